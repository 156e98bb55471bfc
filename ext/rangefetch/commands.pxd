"""Commands: how a loop carries out what Python and other loops tell it to do."""

from libc.string cimport memcpy, strcspn, strlen

from rangefetch.checks cimport calloc, free
from rangefetch.claims cimport feed
from rangefetch.clock cimport busy_us
from rangefetch.host cimport source_leaves
from rangefetch.lease cimport (
    guest_borrows,
    guest_is_gone,
    guest_leaves,
    guest_of,
    guest_returns,
    is_guest,
    lend,
    send_all_home,
    take_back,
)
from rangefetch.mailbox cimport *
from rangefetch.outcome cimport end_file, fail_elsewhere, is_complete, let_go
from rangefetch.platform cimport rf_bell_ring, rf_store
from rangefetch.pool cimport make_room
from rangefetch.small cimport small_is_placed, small_holds, small_may_begin
from rangefetch.transfer cimport *


cdef inline void append(Loop *loop, FileCore *file) noexcept nogil:
    """Append a file to the loop's list, so that files that wait for the same host are served in order of arrival."""
    cdef FileCore **link = &loop.files
    while link[0] != NULL:
        link = &link[0].next
    link[0] = file
    file.next = NULL
    if file.small.stage == PLACED:
        loop.newest_us = loop.now_us


cdef inline void take_on(Loop *loop, FileCore *file) noexcept nogil:
    if loop.files == NULL:
        # Time spent idle must not count in the next measurement.
        loop.ticked_ms = loop.now_ms
        loop.cpu_us = busy_us(loop)
    append(loop, file)
    if is_guest(file):
        # It has no leases yet. If the loop is about to end, it leaves at once.
        file.removing = loop.quitting
        return
    file.counters.began_us = loop.now_us
    file.counters.began_cpu_us = busy_us(loop)
    if file.small.stage == SMALL and not small_may_begin(file):
        small_holds(loop, file)
    elif is_complete(file):
        let_go(loop, file, EVENT_DONE)
    else:
        feed(loop, file)


cdef inline bint has_file(Loop *loop, FileCore *file) noexcept nogil:
    """Whether the loop still has the file. A command may cross with the event that ended the file, which Python may
    have freed by now: only its address is compared, and it is not dereferenced."""
    cdef FileCore *each = loop.files
    while each != NULL and each != file:
        each = each.next
    return each != NULL


cdef inline void quit(Loop *loop) noexcept nogil:
    """Remove all files. The loop ends once the last is gone, which guests on other loops may delay."""
    cdef FileCore *file = loop.files
    cdef FileCore *after
    loop.quitting = True
    while file != NULL:
        after = file.next
        if is_guest(file):
            guest_leaves(loop, file)
        else:
            end_file(loop, file, EVENT_REMOVED)
        file = after


cdef inline void obey_guests(Loop *loop, FileCore *file, Message *command) noexcept nogil:
    """Execute a command between loops that share a file (see ``lease.pxd``)."""
    cdef Guest *guest = guest_of(file, command.extra)
    if command.type == COMMAND_LEND:
        guest_borrows(file, command.offset, command.number)
    elif command.type == COMMAND_RECALL:
        guest_returns(file)
    elif command.type == COMMAND_LEAVE:
        file.removing = True
    elif guest == NULL:
        return
    elif command.type == COMMAND_WANTS:
        guest.wants = True
        if not guest.leaving:
            lend(file, guest)
    elif command.type == COMMAND_RETURN:
        take_back(file, guest, command.offset, command.number)
    elif command.type == COMMAND_GONE:
        guest_is_gone(loop, file, guest)


cdef inline bint is_between_loops(MessageType type) noexcept nogil:
    return COMMAND_LEND <= type <= COMMAND_GONE


cdef inline bint changes_sources(MessageType type) noexcept nogil:
    """Whether a command changes something that guests have copied, so that they must be replaced by new ones."""
    return type not in (COMMAND_RELEASE, COMMAND_FEED)


cdef inline void add_source(FileCore *file, Message *command) noexcept nogil:
    """Add a source. If there is no room or memory for it, the file continues with those it has."""
    cdef Source *source
    cdef size_t size
    if file.source_count == MOST_SOURCES:
        return
    source = <Source *>calloc(1, sizeof(Source))
    if source == NULL:
        return
    source.url = command.text
    source.profile = <ProfileCore *>command.extra
    source.number = file.source_count
    command.text = NULL
    if command.headers != NULL:
        # Its ETag and Last-Modified, one per line; Python has checked that they fit.
        source.known = True
        size = strcspn(command.headers, b"\n")
        memcpy(source.etag, command.headers, size)
        memcpy(source.last_modified, command.headers + size + 1, strlen(command.headers + size + 1))
    file.sources[file.source_count] = source
    rf_store(&file.source_count, file.source_count + 1)


cdef inline void change_source(Loop *loop, Source *source, Message *command) noexcept nogil:
    if command.type == COMMAND_BAN:
        source.banned = True
    elif command.type == COMMAND_PROFILE:
        source_leaves(source)
        source.profile = <ProfileCore *>command.extra
    elif command.type == COMMAND_REST:
        source.rested_ms = loop.now_ms + command.number
    elif command.type == COMMAND_RESOLVE or command.type == COMMAND_MOVE:
        source.epoch = command.epoch
        source.redirects = 0
        source_leaves(source)
        free(source.resolved_url)
        source.resolved_url = NULL
        if command.type == COMMAND_MOVE:
            source.profile = <ProfileCore *>command.extra
            free(source.url)
            source.url = command.text
            command.text = NULL


cdef inline void obey(Loop *loop) noexcept nogil:
    """Execute the commands in the inbox."""
    cdef size_t count = 0
    cdef size_t i
    cdef Message *commands = mailbox_take(&loop.inbox, &count)
    cdef FileCore *file
    if commands == NULL and count > 0:
        # Out of memory: the commands stay in the inbox, and the loop tries again in its next round.
        rf_bell_ring(&loop.wake)
        return
    for i in range(count):
        file = <FileCore *>commands[i].file
        if commands[i].type == COMMAND_QUIT:
            quit(loop)
        elif commands[i].type == COMMAND_MAKE_ROOM:
            make_room(loop, commands[i].number)
        elif commands[i].type == COMMAND_ROOM:
            loop.has_room = True
        elif commands[i].type == COMMAND_ADD or commands[i].type == COMMAND_GUEST:
            take_on(loop, file)
        elif has_file(loop, file):
            if commands[i].type == COMMAND_REMOVE:
                end_file(loop, file, EVENT_REMOVED)
            elif is_between_loops(commands[i].type):
                obey_guests(loop, file, &commands[i])
                feed(loop, file)
            elif commands[i].type == COMMAND_REFUSED:
                if not file.removing:
                    fail_elsewhere(loop, file, &commands[i])
            else:
                if changes_sources(commands[i].type):
                    send_all_home(file)
                if commands[i].type == COMMAND_RELEASE and file.lanes_held > 0:
                    file.lanes_held -= 1
                    file.retries += 1
                elif commands[i].type == COMMAND_RANGED:
                    # Once the download has begun, only ranges can continue it.
                    file.ranged = file.answered or file.mapped or commands[i].number != 0
                elif commands[i].type == COMMAND_PLACE:
                    small_is_placed(loop, file, <int>commands[i].number)
                elif commands[i].type == COMMAND_SOURCE:
                    add_source(file, &commands[i])
                elif 0 <= commands[i].source < file.source_count:
                    change_source(loop, file.sources[commands[i].source], &commands[i])
                # After a failure, Python decides what happens next.
                if commands[i].type != COMMAND_PLACE or file.lanes_held == 0:
                    feed(loop, file)
    messages_free(commands, count)
