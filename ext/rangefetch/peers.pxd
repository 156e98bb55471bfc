"""What the loops of a process tell each other; the only thing of a loop's that other threads call."""

from libc.stdint cimport int64_t
from libc.string cimport memset

from rangefetch.mailbox cimport COMMAND_MAKE_ROOM, COMMAND_ROOM, MessageType, Message, mailbox_put
from rangefetch.platform cimport pthread_mutex_lock, pthread_mutex_unlock, rf_bell_ring
from rangefetch.transfer cimport HostTable, Loop


cdef inline bint loop_tell(Loop *loop, const Message *command) noexcept nogil:
    """Send a command, and give up its text; from any thread. False: no memory, and the text is still the caller's."""
    cdef bint is_first = False
    if not mailbox_put(&loop.inbox, command, &is_first):
        return False
    # The loop takes all that is there.
    if is_first:
        rf_bell_ring(&loop.wake)
    return True


cdef inline void loop_joins(Loop *loop) noexcept nogil:
    """The loop is told what concerns all loops from now on."""
    cdef HostTable *table = loop.hosts
    pthread_mutex_lock(&table.lock)
    loop.next_peer = table.loops
    table.loops = loop
    pthread_mutex_unlock(&table.lock)


cdef inline void loop_leaves(Loop *loop) noexcept nogil:
    """It is not any more."""
    cdef HostTable *table = loop.hosts
    cdef Loop **link
    pthread_mutex_lock(&table.lock)
    link = &table.loops
    while link[0] != NULL and link[0] != loop:
        link = &link[0].next_peer
    if link[0] != NULL:
        link[0] = loop.next_peer
    pthread_mutex_unlock(&table.lock)


cdef inline void tell_loops(HostTable *table, const Loop *teller, MessageType type, int64_t number) noexcept nogil:
    """Tell all loops of the process but the one that tells; with the table's lock held. Where there is no memory for
    it, their next look will do."""
    cdef Loop *peer = table.loops
    cdef Message command
    memset(&command, 0, sizeof(command))
    command.type = type
    command.number = number
    while peer != NULL:
        if peer != teller:
            loop_tell(peer, &command)
        peer = peer.next_peer


cdef inline void tell_peers(Loop *loop, MessageType type, int64_t number) noexcept nogil:
    """Tell all other loops of the process."""
    pthread_mutex_lock(&loop.hosts.lock)
    tell_loops(loop.hosts, loop, type, number)
    pthread_mutex_unlock(&loop.hosts.lock)


cdef inline void ask_for_room(Loop *loop, int64_t number) noexcept nogil:
    """Have the other loops close what they keep idle for a host; 0: for any."""
    tell_peers(loop, COMMAND_MAKE_ROOM, number)


cdef inline void make_room_soon(Loop *loop, int64_t number) noexcept nogil:
    """The same of this loop, in its next round: whoever asks may be in the middle of something."""
    cdef Message command
    memset(&command, 0, sizeof(command))
    command.type = COMMAND_MAKE_ROOM
    command.number = number
    loop_tell(loop, &command)


cdef inline void note_room(Loop *loop) noexcept nogil:
    """A host that something waits for may have room for it, here or in another loop, which is told after this round:
    this may be called by libcurl."""
    loop.has_room = loop.tells_of_room = True
