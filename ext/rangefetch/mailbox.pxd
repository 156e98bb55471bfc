"""Messages between Python and a loop: commands down, events up, both numbers first.

A mailbox is a growing array behind a mutex that is held for the copy of one message, or for the exchange of two
pointers, and never while waiting for anything else. libcurl's callbacks do not touch it.
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
    COMMAND_REMOVE = 2     # stop its transfers and let go of it; answered by EVENT_REMOVED
    COMMAND_RELEASE = 3    # a lane that was held after a failure may go on
    COMMAND_FEED = 4       # something about the file changed (lanes, window): look again
    COMMAND_QUIT = 5       # stop everything and end the thread
    COMMAND_BAN = 6        # never ask the source again
    COMMAND_REST = 7       # do not ask the source for `number` milliseconds
    COMMAND_RESOLVE = 8    # forget where redirects from the source led
    COMMAND_MOVE = 9       # the source is now at the URL in `text`, and asked as `extra` says
    COMMAND_PROFILE = 12   # the source is asked as `extra` says from now on
    COMMAND_PLACE = 11     # the file, which was taken for a small one, has the descriptor `number` from now on
    COMMAND_SOURCE = 10    # a further source, at the URL in `text`, asked as `extra` says
    COMMAND_RANGED = 14    # whether the file is asked for in ranges, from the next request on: `number`
    COMMAND_MAKE_ROOM = 13  # close idle connections, if some are for the host of that `number`, or of any at 0
    COMMAND_ROOM = 15      # a host that something waits for may have room for it
    # Between the loops that carry one file (see lease.pxd): to a guest's loop ...
    COMMAND_GUEST = 24     # take on the guest
    COMMAND_LEND = 25      # its bytes from `offset` to `number` are to be fetched there
    COMMAND_RECALL = 26    # give back of what is unclaimed
    COMMAND_LEAVE = 27     # stop its transfers and let go of it; answered by COMMAND_GONE
    # ... and to the file's home, from the guest in `extra`.
    COMMAND_WANTS = 28     # it has little left to claim
    COMMAND_RETURN = 29    # the bytes from `offset` to `number` are the home's again
    COMMAND_GONE = 30      # its loop has let go of it: nothing there will touch the file's descriptor any more
    COMMAND_REFUSED = 31   # its host wants to be left alone: an EVENT_FAILED, for Python
    # Events, from a loop.
    EVENT_ANSWERED = 16    # the first good answer: size, ranges, validators, headers, final URL
    EVENT_FAILED = 17      # a transfer failed; its lane is held until COMMAND_RELEASE
    EVENT_DONE = 18        # all bytes are in the file, and the loop has let go of it
    EVENT_MET = 20         # the first good answer of a further source
    EVENT_TRACE = 22       # how a transfer went: `trace`
    EVENT_REACHED = 21     # the bytes that a reader waits for are there
    EVENT_HELD = 23        # the file is not as small or plain as it was taken for: it waits for COMMAND_PLACE
    EVENT_REMOVED = 19     # the loop has let go of the file: nothing will touch its descriptor any more

# How a transfer went: its range, when libcurl was where (CURLINFO_*_TIME_T), and why it ended.
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
    int64_t began_ms         # since the file was taken on
    int64_t hedge
    int64_t cut

cdef struct Message:
    MessageType type
    void *file          # borrowed: a FileCore, which its Python File keeps until EVENT_DONE or EVENT_REMOVED
    int code            # CURLcode
    int status          # HTTP status
    int fault           # Fault
    int sys_errno
    int source          # which of the file's sources
    int epoch           # how often that had got another address when it was asked; of a command, from now on
    int64_t number
    void *extra         # borrowed: a ProfileCore, which the File's Profile keeps
    int64_t retry_after_s
    int64_t offset      # where the transfer stood
    int64_t received    # bytes that it had brought
    int64_t request     # how many requests the file had made with this one
    int64_t host        # the number of the host that was asked
    char *text          # owned by the message (may be NULL): the final URL, or libcurl's own words
    char *address       # owned by the message (may be NULL): where the source was asked, after redirects
    char *headers       # owned by the message (may be NULL): "name: value" lines; of a new source its validators
    Trace *trace        # owned by the message (may be NULL)

cdef struct Mailbox:
    pthread_mutex_t lock
    Message *items      # owned: freed in mailbox_close, or by whoever took them
    size_t count
    size_t capacity
    size_t reserved     # room in `items`, beyond `count`, that is kept for messages which must not be lost
    bint shut           # nobody will read what comes any more


cdef inline dict event_names():
    """The events by number, as Python knows them."""
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
    """Grow until so many more messages fit beside those that room is kept for; with the lock held."""
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
    """Add a copy; the message's strings now belong to the mailbox. False: no memory, or nobody to read it; nothing was
    taken.

    ``is_first``: nothing was there that would be taken with it."""
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
    """Keep room for one message that must not be lost. False: no memory."""
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
    """Add a message for which room was kept; none is kept for it any more."""
    pthread_mutex_lock(&box.lock)
    box.reserved -= 1
    box.items[box.count] = message[0]
    box.count += 1
    pthread_mutex_unlock(&box.lock)


cdef inline Message *mailbox_take(Mailbox *box, size_t *count) noexcept nogil:
    """Take all messages, oldest first; the caller frees the array and what the messages own.

    NULL with a count above 0: without memory for the room that is kept, they stay where they are.
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
    """Nothing more is taken than what is there."""
    pthread_mutex_lock(&box.lock)
    box.shut = True
    pthread_mutex_unlock(&box.lock)


cdef inline void messages_free(Message *items, size_t count) noexcept nogil:
    cdef size_t i
    for i in range(count):
        free(items[i].text)
        free(items[i].headers)
        free(items[i].address)
        free(items[i].trace)
    free(items)


cdef inline void mailbox_close(Mailbox *box) noexcept nogil:
    messages_free(box.items, box.count)
    pthread_mutex_destroy(&box.lock)
