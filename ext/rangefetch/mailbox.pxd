"""Messages between Python and the loops: commands to a loop, events from it.

A mailbox is a growing array protected by a mutex. The mutex is held only to copy one message, to grow the array or to
take it whole, and never while waiting for anything else. libcurl's callbacks never lock it.
"""

from libc.stdint cimport int64_t

from rangefetch.checks cimport free, malloc, realloc
from rangefetch.platform cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
)

cdef enum MessageType:
    # Commands, to a loop.
    COMMAND_ADD = 1        # take on the file
    COMMAND_REMOVE = 2     # end its transfers and drop it; answered by EVENT_REMOVED
    COMMAND_RELEASE = 3    # a lane that was held after a failure may continue
    COMMAND_FEED = 4       # a setting of the file (lanes, window) has changed: check whether it wants more lanes
    COMMAND_QUIT = 5       # stop everything and end the thread
    COMMAND_BAN = 6        # send the source no further requests
    COMMAND_REST = 7       # send the source no requests for `number` milliseconds
    COMMAND_RESOLVE = 8    # forget where redirects from the source led
    COMMAND_MOVE = 9       # the source is now at the URL in `text`, with the profile in `extra`
    COMMAND_PROFILE = 12   # use the profile in `extra` for the source
    COMMAND_PLACE = 11     # give a held small file the descriptor `number`
    COMMAND_SOURCE = 10    # add a source at the URL in `text`, with the profile in `extra`
    COMMAND_RANGED = 14    # `number`: whether to request ranges, from the next request on
    COMMAND_MAKE_ROOM = 13  # close idle connections if one is to the host with this `number`; 0: to any host
    COMMAND_ROOM = 15      # a host that a file waits for may have room now
    # Between the loops that share a file (see lease.pxd): to a guest's loop ...
    COMMAND_GUEST = 24     # take on the guest
    COMMAND_LEND = 25      # the bytes from `offset` to `number` are lent to the guest
    COMMAND_RECALL = 26    # return part of what is unclaimed
    COMMAND_LEAVE = 27     # end its transfers and drop it; answered by COMMAND_GONE
    # ... and to the file's home, from the guest in `extra`.
    COMMAND_WANTS = 28     # it has little left to claim
    COMMAND_RETURN = 29    # the bytes from `offset` to `number` are the home's again
    COMMAND_GONE = 30      # its loop has dropped it and will not use the file's descriptor any more
    COMMAND_REFUSED = 31   # a host has asked for a pause; the home passes this on to Python as EVENT_FAILED
    # Events, from a loop.
    EVENT_ANSWERED = 16    # the first accepted response: size, ranges, validators, headers, final URL
    EVENT_FAILED = 17      # a transfer failed; its lane is held until COMMAND_RELEASE
    EVENT_DONE = 18        # all bytes are in the file, and the loop has dropped it
    EVENT_MET = 20         # the first accepted response of a further source
    EVENT_TRACE = 22       # `trace` describes a transfer that has ended
    EVENT_REACHED = 21     # the bytes that a reader waits for are there
    EVENT_HELD = 23        # the file is not small or not plain: it waits for COMMAND_PLACE
    EVENT_REMOVED = 19     # the loop has dropped the file and will not use its descriptor any more

# A transfer that has ended: its range, libcurl's timings (CURLINFO_*_TIME_T), and its outcome.
cdef struct Trace:
    int64_t start
    int64_t end
    int64_t bytes
    int64_t status
    int64_t fault
    int64_t new_connections
    int64_t lookup_us
    int64_t connect_us
    int64_t tls_us
    int64_t first_byte_us
    int64_t total_us
    int64_t began_ms         # since the loop received the file
    int64_t hedge
    int64_t cut

cdef struct Message:
    MessageType type
    void *file          # borrowed: a FileCore, kept alive by its Python File until EVENT_DONE or EVENT_REMOVED
    int code            # CURLcode
    int status          # HTTP status
    int fault           # Fault
    int sys_errno
    int source          # which of the file's sources
    int epoch           # events: the source's epoch when the request was sent; commands: its epoch from now on
    int64_t number
    void *extra         # borrowed: a ProfileCore, kept alive by the File; between loops, a Guest
    int64_t retry_after_s
    int64_t offset      # the position of the transfer
    int64_t received    # bytes of its range that it had written by then
    int64_t kept        # EVENT_FAILED: bytes of the file that are there, without those of transfers in progress
    int64_t request     # number of the request among the file's, starting at 1
    int64_t host        # the number of the host that it was sent to
    char *text          # owned by the message (may be NULL): the final URL, or libcurl's error message
    char *address       # owned by the message (may be NULL): the requested URL, after redirects
    char *headers       # owned by the message (may be NULL): "name: value" lines; for a new source, its validators
    Trace *trace        # owned by the message (may be NULL)

cdef struct Mailbox:
    pthread_mutex_t lock
    Message *items      # owned: freed in mailbox_close, or by the caller of mailbox_take
    size_t count
    size_t capacity
    size_t reserved     # slots in `items`, after `count`, that are reserved for messages which must not be lost
    bint shut           # no more messages are accepted, since nobody will read them


cdef inline dict event_names():
    """The names by which Python knows the events."""
    return {
        <int>EVENT_ANSWERED: "ANSWERED", <int>EVENT_FAILED: "FAILED", <int>EVENT_DONE: "DONE",
        <int>EVENT_REMOVED: "REMOVED", <int>EVENT_MET: "MET", <int>EVENT_REACHED: "REACHED", <int>EVENT_TRACE: "TRACE",
        <int>EVENT_HELD: "HELD",
    }


cdef inline int mailbox_open(Mailbox *box) noexcept nogil:
    box.items = NULL
    box.count = box.capacity = box.reserved = 0
    box.shut = False
    return pthread_mutex_init(&box.lock, NULL)


cdef inline bint make_room_for(Mailbox *box, size_t count) noexcept nogil:
    """Grow the array so that ``count`` more messages fit, in addition to reserved ones; with the lock held."""
    cdef size_t wanted = box.count + box.reserved + count
    cdef size_t capacity = box.capacity if box.capacity else 16
    cdef Message *grown
    if wanted <= box.capacity:
        return True
    while capacity < wanted:
        capacity *= 2
    grown = <Message *>realloc(box.items, capacity * sizeof(Message))
    if grown == NULL:
        return False
    box.items = grown
    box.capacity = capacity
    return True


cdef inline bint mailbox_put(Mailbox *box, const Message *message, bint *is_first) noexcept nogil:
    """Add a copy of the message, and take ownership of its strings. False: out of memory, or the mailbox is shut; the
    caller still owns them.

    ``is_first`` is set to whether the mailbox was empty."""
    cdef bint fits
    pthread_mutex_lock(&box.lock)
    fits = not box.shut and make_room_for(box, 1)
    if fits:
        is_first[0] = box.count == 0
        box.items[box.count] = message[0]
        box.count += 1
    pthread_mutex_unlock(&box.lock)
    return fits


cdef inline bint mailbox_reserve(Mailbox *box) noexcept nogil:
    """Reserve a slot for one message that must not be lost. False: out of memory."""
    cdef bint fits
    pthread_mutex_lock(&box.lock)
    fits = make_room_for(box, 1)
    if fits:
        box.reserved += 1
    pthread_mutex_unlock(&box.lock)
    return fits


cdef inline void mailbox_unreserve(Mailbox *box) noexcept nogil:
    pthread_mutex_lock(&box.lock)
    box.reserved -= 1
    pthread_mutex_unlock(&box.lock)


cdef inline void mailbox_put_reserved(Mailbox *box, const Message *message) noexcept nogil:
    """Add a message to a reserved slot, which uses up the reservation."""
    pthread_mutex_lock(&box.lock)
    box.reserved -= 1
    box.items[box.count] = message[0]
    box.count += 1
    pthread_mutex_unlock(&box.lock)


cdef inline Message *mailbox_take(Mailbox *box, size_t *count) noexcept nogil:
    """Take all messages, oldest first. The caller must free the array and what the messages own.

    NULL with a count above 0: there was no memory for a new array with the reserved slots, and nothing was taken.
    """
    cdef Message *items
    cdef Message *fresh = NULL
    pthread_mutex_lock(&box.lock)
    count[0] = box.count
    if box.count > 0 and box.reserved > 0:
        fresh = <Message *>malloc(box.reserved * sizeof(Message))
    if box.count == 0 or (box.reserved > 0 and fresh == NULL):
        items = NULL
    else:
        items = box.items
        box.items = fresh
        box.count = 0
        box.capacity = box.reserved
    pthread_mutex_unlock(&box.lock)
    return items


cdef inline void mailbox_shut(Mailbox *box) noexcept nogil:
    """Accept no more messages. Those already there can still be taken."""
    pthread_mutex_lock(&box.lock)
    box.shut = True
    pthread_mutex_unlock(&box.lock)


cdef inline void messages_clear(Message *items, size_t count) noexcept nogil:
    """Free what the messages own, but not the array."""
    cdef size_t i
    for i in range(count):
        free(items[i].text)
        free(items[i].headers)
        free(items[i].address)
        free(items[i].trace)


cdef inline void messages_free(Message *items, size_t count) noexcept nogil:
    messages_clear(items, count)
    free(items)


cdef inline void mailbox_close(Mailbox *box) noexcept nogil:
    messages_free(box.items, box.count)
    pthread_mutex_destroy(&box.lock)
