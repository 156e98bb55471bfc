"""How the loops of a process send each other messages: the only functions of a loop that other threads call."""

from libc.stdint cimport int64_t
from libc.string cimport memset

from rangefetch.mailbox cimport COMMAND_MAKE_ROOM, COMMAND_ROOM, MessageType, Message, mailbox_put
from rangefetch.platform cimport pthread_mutex_lock, pthread_mutex_unlock, rf_bell_ring
from rangefetch.transfer cimport HostTable, Loop


cdef inline bint loop_tell(Loop *loop, const Message *command) noexcept nogil:
    """Send a command and hand over its strings; from any thread. False: it was not sent, and the caller still owns
    them."""
    cdef bint is_first = False
    if not mailbox_put(&loop.inbox, command, &is_first):
        return False
    # Otherwise the bell was rung for an earlier message, and the loop takes all of them at once.
    if is_first:
        rf_bell_ring(&loop.wake)
    return True


cdef inline void loop_joins(Loop *loop) noexcept nogil:
    """Add the loop to the process's list, so that it receives messages to all loops."""
    cdef HostTable *table = loop.hosts
    pthread_mutex_lock(&table.lock)
    loop.next_peer = table.loops
    table.loops = loop
    pthread_mutex_unlock(&table.lock)


cdef inline void loop_leaves(Loop *loop) noexcept nogil:
    """Remove the loop from the process's list."""
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
    """Send a message to all loops of the process except ``teller``; with the table's lock held. If memory runs out, a
    loop notices by itself at its next tick."""
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
    """Send a message to all other loops of the process."""
    pthread_mutex_lock(&loop.hosts.lock)
    tell_loops(loop.hosts, loop, type, number)
    pthread_mutex_unlock(&loop.hosts.lock)


cdef inline void ask_for_room(Loop *loop, int64_t number) noexcept nogil:
    """Have the other loops close their idle connections to a host; 0: to any host."""
    tell_peers(loop, COMMAND_MAKE_ROOM, number)


cdef inline void make_room_soon(Loop *loop, int64_t number) noexcept nogil:
    """Have this loop do the same in its next round, since the caller may be in the middle of something."""
    cdef Message command
    memset(&command, 0, sizeof(command))
    command.type = COMMAND_MAKE_ROOM
    command.number = number
    loop_tell(loop, &command)


cdef inline void note_room(Loop *loop) noexcept nogil:
    """Note that a host which files wait for may have room now. It is acted on after libcurl returns, since one of its
    callbacks may be the caller."""
    loop.has_room = loop.tells_of_room = True
