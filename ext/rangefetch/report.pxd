"""What a loop reports to Python."""

from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, memset, strlen

from rangefetch.checks cimport free, malloc
from rangefetch.libcurl cimport (
    CURL,
    CURLH_HEADER,
    CURLINFO_OS_ERRNO,
    CURLINFO_RESPONSE_CODE,
    CURLINFO_APPCONNECT_TIME_T,
    CURLINFO_CONNECT_TIME_T,
    CURLINFO_EFFECTIVE_URL,
    CURLINFO_HTTP_CONNECTCODE,
    CURLINFO_NAMELOOKUP_TIME_T,
    CURLINFO_NUM_CONNECTS,
    CURLINFO_RETRY_AFTER,
    CURLINFO_STARTTRANSFER_TIME_T,
    CURLINFO_TOTAL_TIME_T,
    CURLcode,
    curl_easy_nextheader,
    curl_header,
    info_long,
    info_off,
    info_text,
)
from rangefetch.mailbox cimport EVENT_TRACE, Message, MessageType, Trace, mailbox_put, mailbox_put_reserved
from rangefetch.transfer cimport FileCore, Lane, Loop

cdef enum:
    LONGEST_RETRY_AFTER_S = 365 * 24 * 3600


cdef inline char *copy_text(const char *text) noexcept nogil:
    """A copy for the caller to free(); NULL if out of memory, or if there is no text."""
    cdef size_t size
    cdef char *copy
    if text == NULL:
        return NULL
    size = strlen(text) + 1
    copy = <char *>malloc(size)
    if copy != NULL:
        memcpy(copy, text, size)
    return copy


cdef inline char *copy_headers(CURL *easy) noexcept nogil:
    """The response's headers as "name: value" lines, for the caller to free(); NULL if out of memory."""
    cdef size_t size = 1
    cdef size_t at = 0
    cdef int written
    cdef char *lines
    cdef curl_header *header = curl_easy_nextheader(easy, CURLH_HEADER, -1, NULL)
    while header != NULL:
        size += strlen(header.name) + strlen(header.value) + 3
        header = curl_easy_nextheader(easy, CURLH_HEADER, -1, header)
    lines = <char *>malloc(size)
    if lines == NULL:
        return NULL
    lines[0] = 0
    header = curl_easy_nextheader(easy, CURLH_HEADER, -1, NULL)
    while header != NULL:
        written = snprintf(lines + at, size - at, "%s: %s\n", header.name, header.value)
        if written < 0 or <size_t>written >= size - at:
            break
        at += <size_t>written
        header = curl_easy_nextheader(easy, CURLH_HEADER, -1, header)
    return lines


cdef inline bint post(Loop *loop, Message *event) noexcept nogil:
    """Hand an event and its strings to Python. False: out of memory, and the event is dropped."""
    cdef bint is_first
    loop.posted = True
    if mailbox_put(loop.outbox, event, &is_first):
        return True
    free(event.text)
    free(event.headers)
    free(event.address)
    free(event.trace)
    return False


cdef inline void post_last(Loop *loop, MessageType type, FileCore *file) noexcept nogil:
    """Report that the loop has let go of a file. Memory for this event was reserved when the loop got the file."""
    cdef Message event
    memset(&event, 0, sizeof(event))
    event.type = type
    event.file = file
    loop.posted = True
    mailbox_put_reserved(loop.outbox, &event)


cdef inline void post_bare(Loop *loop, MessageType type, FileCore *file) noexcept nogil:
    cdef Message event
    memset(&event, 0, sizeof(event))
    event.type = type
    event.file = file
    post(loop, &event)


cdef inline const char *asked_url(const Lane *lane) noexcept nogil:
    """The URL that the lane requested. libcurl does not have it if it could not parse it."""
    if lane.epoch != lane.source.epoch:
        return info_text(lane.easy, CURLINFO_EFFECTIVE_URL)
    return lane.source.resolved_url if lane.source.resolved_url != NULL else lane.source.url


cdef inline bint post_about(Loop *loop, MessageType type, Lane *lane, CURLcode code, const char *text) noexcept nogil:
    """Report a transfer to Python. False: out of memory, and nothing is reported."""
    cdef Message event = describe(type, lane, code, text)
    return post(loop, &event)


cdef inline int status_of(Lane *lane) noexcept nogil:
    """The status of the lane's response; 0: there was none."""
    cdef long status = info_long(lane.easy, CURLINFO_RESPONSE_CODE)
    # If a proxy refused the tunnel, its response is the only one.
    return <int>(status if status != 0 else info_long(lane.easy, CURLINFO_HTTP_CONNECTCODE))


cdef inline Message describe(MessageType type, Lane *lane, CURLcode code, const char *text) noexcept nogil:
    """Make the event that describes a transfer."""
    cdef Message event
    memset(&event, 0, sizeof(event))
    event.type = type
    event.file = lane.file.home
    event.code = code
    event.fault = lane.fault
    event.status = status_of(lane)
    event.sys_errno = lane.sys_errno if lane.sys_errno else <int>info_long(lane.easy, CURLINFO_OS_ERRNO)
    # libcurl before 8 returns whatever the server sends.
    event.retry_after_s = min(max(info_off(lane.easy, CURLINFO_RETRY_AFTER), 0), LONGEST_RETRY_AFTER_S)
    event.source = lane.source.number
    event.epoch = lane.epoch
    event.request = lane.request
    event.host = lane.share.host.number if lane.share != NULL else lane.asked_host
    event.offset = lane.position
    event.received = lane.position - lane.start
    event.text = copy_text(text)
    event.headers = copy_headers(lane.easy)
    event.address = copy_text(asked_url(lane))
    return event


cdef inline void post_trace(Loop *loop, Lane *lane) noexcept nogil:
    """Report how the lane's transfer went, or nothing if out of memory."""
    cdef Message event
    cdef Trace *trace = <Trace *>malloc(sizeof(Trace))
    if trace == NULL:
        return
    trace.start = lane.start
    trace.end = lane.end
    trace.bytes = lane.received_bytes
    trace.status = info_long(lane.easy, CURLINFO_RESPONSE_CODE)
    trace.fault = lane.fault
    trace.new_connections = info_long(lane.easy, CURLINFO_NUM_CONNECTS)
    trace.lookup_us = info_off(lane.easy, CURLINFO_NAMELOOKUP_TIME_T)
    trace.connect_us = info_off(lane.easy, CURLINFO_CONNECT_TIME_T)
    trace.tls_us = info_off(lane.easy, CURLINFO_APPCONNECT_TIME_T)
    trace.first_byte_us = info_off(lane.easy, CURLINFO_STARTTRANSFER_TIME_T)
    trace.total_us = info_off(lane.easy, CURLINFO_TOTAL_TIME_T)
    trace.began_ms = lane.started_ms - lane.file.counters.began_us // 1000
    trace.hedge = lane.hedge.octets != NULL
    trace.cut = lane.cut
    memset(&event, 0, sizeof(event))
    event.type = EVENT_TRACE
    event.file = lane.file.home
    event.source = lane.source.number
    event.trace = trace
    post(loop, &event)
