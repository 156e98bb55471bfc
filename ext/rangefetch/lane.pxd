"""A lane: a reusable easy handle, its setup, and the callbacks that receive its bytes."""

from libc.errno cimport EAGAIN, EMFILE, errno
from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.string cimport memcpy, strncmp

from rangefetch.answer cimport examine, is_too_large, leads_elsewhere
from rangefetch.blocks cimport blocks_give_back, blocks_revoke
from rangefetch.bucket cimport bucket_is_dry, bucket_is_limited, bucket_take
from rangefetch.checks cimport calloc, free, malloc
from rangefetch.disk cimport lane_flush, lane_forget_spans, lane_write
from rangefetch.host cimport share_begin, share_closes, share_end, share_opens, source_share
from rangefetch.libcurl cimport *
from rangefetch.origin cimport is_secure, origin_number
from rangefetch.pace cimport slot_is_used
from rangefetch.platform cimport (
    RF_NO_SOCKET,
    rf_add,
    rf_close_socket,
    rf_count,
    rf_load,
    rf_most_descriptors,
    rf_socket,
    rf_store,
)
from rangefetch.reach cimport may_open, on_request
from rangefetch.report cimport post_trace
from rangefetch.small cimport small_is_plain
from rangefetch.transfer cimport *
from rangefetch.trust cimport credential_for, is_for_the_users

cdef enum:
    LARGEST_SWALLOW_BYTES = 64 << 10  # of an error's body; beyond that, a new connection costs less
    SLOW_READ_BYTES = 16 << 10
    MOST_HEADER_LINES = 1000          # libcurl before 8 scans all of them for each header that we look up
    FILES_SHARE = 4                   # one in so many descriptors is kept for files, not connections ...
    MOST_FOR_FILES = 64
    STARVING_MS = 2000                # ... as long as connections keep opening and closing


cdef inline int64_t lane_received_end(const Lane *lane) noexcept nogil:
    """One past the last byte of its range that has been received, written or not."""
    return lane.position + lane.buffered + lane.hedge.filled_bytes


# ---- libcurl's callbacks: all bytes arrive through these ---------------------------------------------------------

cdef inline bint must_wait(Lane *lane) noexcept nogil:
    """Whether the lane must pause: for a limit, for a reader slower than one stream, or for a file without a place."""
    cdef FileCore *file = lane.file
    cdef int64_t reader_bytes
    if file.small.stage == HELD or bucket_is_dry(lane.loop.bucket) or bucket_is_dry(file.bucket):
        return True
    if file.splits or lane.check != ACCEPTED or file.window_bytes == 0:
        return False
    reader_bytes = rf_load(&file.reader_bytes)
    return reader_bytes >= 0 and lane_received_end(lane) >= reader_bytes + file.window_bytes


cdef inline size_t lane_pause(Lane *lane) noexcept nogil:
    """Have libcurl keep this piece; the loop resumes the transfer when the piece may be taken.

    Buffered bytes are written first: the lane may be waiting for a reader that waits for these bytes.
    """
    if not lane_flush(lane):
        return CURL_WRITEFUNC_ERROR
    if not lane.paused:
        lane.paused = True
        lane.loop.lanes_paused += 1
    lane_forget_spans(lane)
    return CURL_WRITEFUNC_PAUSE


cdef inline size_t on_body(char *data, size_t size, size_t count, void *arg) noexcept nogil:
    cdef Lane *lane = <Lane *>arg
    cdef size_t taken = size * count
    cdef int64_t come = <int64_t>taken
    cdef int64_t wanted = come
    cdef int64_t room
    if lane.fault != FAULT_NONE and lane.check != SWALLOWED:
        # It has failed already. libcurl before 8 forgets an error raised within curl_easy_pause, and continues.
        return CURL_WRITEFUNC_ERROR
    if must_wait(lane):
        return lane_pause(lane)
    if lane.check == UNCHECKED:
        lane.check = examine(lane.file, lane)
        lane.span.usable = lane.span.usable and header_value(lane.easy, "Transfer-Encoding") == NULL
        if lane.check == ACCEPTED and lane.file.small.stage == SMALL:
            if not small_is_plain(lane):
                lane.file.small.stage = HELD
                return lane_pause(lane)
        elif lane.check == ACCEPTED and lane.is_first:
            # Set this for a resumed file too: its other lanes wait for this response.
            rf_store(&lane.file.answered, True)
    bucket_take(lane.loop.bucket, come)
    bucket_take(lane.file.bucket, come)
    lane.received_bytes += come
    if lane.check == SWALLOWED:
        lane.swallowed_bytes += come
        return taken if lane.swallowed_bytes <= LARGEST_SWALLOW_BYTES else CURL_WRITEFUNC_ERROR
    if lane.check == REFUSED:
        return CURL_WRITEFUNC_ERROR
    if lane.file.probing:
        lane.fault = FAULT_PROBED
        return CURL_WRITEFUNC_ERROR
    if lane.end < 0 and is_too_large(lane.file, lane_received_end(lane) + come):
        lane.fault = FAULT_TOO_LARGE
        return CURL_WRITEFUNC_ERROR
    room = wanted if lane.end < 0 else max(lane.end - lane_received_end(lane), 0)
    if lane.hedge.octets != NULL:
        room = min(room, lane.hedge.size_bytes - lane.hedge.filled_bytes)
    if wanted > room:
        wanted = room
        if not lane.cut:
            lane.fault = FAULT_OVERFLOW
    if lane.hedge.octets != NULL:
        memcpy(lane.hedge.octets + lane.hedge.filled_bytes, data, <size_t>wanted)
        lane.hedge.filled_bytes += wanted
    elif not lane_write(lane, data, wanted):
        return CURL_WRITEFUNC_ERROR
    return taken if wanted == come else CURL_WRITEFUNC_ERROR


cdef inline size_t on_header(char *data, size_t size, size_t count, void *arg) noexcept nogil:
    """Count header lines: libcurl keeps them all, and before 8.6 it had no limit. Note where they end.

    A redirect is examined as soon as its headers end: its body is not needed, and may never arrive or never end.
    """
    cdef Lane *lane = <Lane *>arg
    cdef size_t length = size * count
    lane.header_lines += 1
    if lane.header_lines > MOST_HEADER_LINES:
        lane.fault = FAULT_HEADERS
        return 0
    if length <= 2:
        lane.headers_ended = True
        if lane.check == UNCHECKED and lane.fault == FAULT_NONE and leads_elsewhere(lane.easy):
            lane.check = examine(lane.file, lane)
    elif length >= 5 and strncmp(data, b"HTTP/", 5) == 0:
        lane.headers_ended = False
    return length


cdef inline int on_debug(CURL *easy, int kind, char *data, size_t size, void *arg) noexcept nogil:
    """Note a received span before libcurl cuts it into pieces; ignore everything else that libcurl reports here."""
    cdef Lane *lane = <Lane *>arg
    if kind == CURLINFO_DATA_IN and lane.span.usable:
        lane.span.announced = data
        lane.span.announced_bytes = <int64_t>size
    return 0


cdef inline bint is_for_files(const Loop *loop, curl_socket_t fd) noexcept nogil:
    """Whether this is one of the last descriptors, which are kept for files.

    The system hands out the lowest free descriptor first, so all below this one are in use.
    """
    cdef long most = rf_most_descriptors()
    if <int64_t>fd < most - min(most // FILES_SHARE, MOST_FOR_FILES):
        return False
    # If other code holds so many descriptors that none is ever freed, taking one of these beats having no connection.
    return loop.starved_ms == 0 or loop.now_ms - loop.starved_ms < STARVING_MS


cdef inline curl_socket_t on_open(void *arg, int purpose, curl_sockaddr *address) noexcept nogil:
    """Open a socket, if the host may have another connection."""
    cdef Lane *lane = <Lane *>arg
    cdef curl_socket_t fd
    if not may_open(lane, address):
        return RF_NO_SOCKET
    if not share_opens(lane, lane.share):
        lane.refused_socket = EAGAIN
        return RF_NO_SOCKET
    fd = rf_socket(address.family, address.socktype, address.protocol)
    if fd == RF_NO_SOCKET:
        lane.refused_socket = errno
    elif is_for_files(lane.loop, fd):
        rf_close_socket(fd)
        fd = RF_NO_SOCKET
        lane.refused_socket = EMFILE
    if fd == RF_NO_SOCKET:
        if lane.share != NULL:
            share_closes(lane.share)
    else:
        lane.loop.starved_ms = lane.loop.starved_again_ms = 0
    return fd


cdef inline int on_close(void *arg, curl_socket_t fd) noexcept nogil:
    if arg != NULL:
        share_closes(<HostShare *>arg)
    return rf_close_socket(fd)


cdef inline CURLcode lane_set_base(Loop *loop, Lane *lane) noexcept nogil:
    """Set the options that all requests share. Returns the error of the first required one that libcurl refuses."""
    curl_easy_reset(lane.easy)
    lane.slowed = False
    # Errors of these four are ignored. The buffer size, for one, cannot change while an aborted transfer's is in place.
    opt_buffer_size(lane.easy, loop.buffer_bytes)
    opt_tcp_keepalive(lane.easy, 1)
    opt_suppress_connect_headers(lane.easy, 1)
    # Without this, removing a transfer before libcurl 8 blocks on its name look-up, and all others of the loop with it.
    opt_quick_exit(lane.easy, 1)
    return (
        opt_no_signal(lane.easy, 1)
        or opt_on_body(lane.easy, on_body)
        or opt_on_body_arg(lane.easy, lane)
        or opt_on_header(lane.easy, on_header)
        or opt_on_header_arg(lane.easy, lane)
        or opt_on_debug(lane.easy, on_debug)
        or opt_on_debug_arg(lane.easy, lane)
        or opt_on_open(lane.easy, on_open)
        or opt_on_open_arg(lane.easy, lane)
        or opt_on_close(lane.easy, on_close)
        or opt_on_request(lane.easy, on_request)
        or opt_on_request_arg(lane.easy, lane)
        or opt_private(lane.easy, lane)
        or opt_error_buffer(lane.easy, lane.error_text)
        or opt_protocols(lane.easy, "http,https")
        # Redirects are followed by the engine, not by libcurl, which would send the user's headers to any host.
        or opt_follow_location(lane.easy, 0)
        or opt_content_decoding(lane.easy, 0)
    )


cdef inline CURLcode lane_set_profile(Loop *loop, Lane *lane, const ProfileCore *profile) noexcept nogil:
    """Set the shared options and those of the profile. Returns the first error."""
    cdef const Setting *setting
    cdef int i
    cdef CURLcode code = lane_set_base(loop, lane)
    for i in range(profile.setting_count):
        setting = &profile.settings[i]
        if code == CURLE_OK and setting.text != NULL:
            code = opt_text(lane.easy, setting.option, setting.text)
        elif code == CURLE_OK:
            code = opt_long(lane.easy, setting.option, setting.number)
    return code


cdef inline Lane *lane_new(Loop *loop) noexcept nogil:
    """Create a lane and add it to the loop's list. Returns NULL if out of memory."""
    cdef Lane *lane = <Lane *>calloc(1, sizeof(Lane))
    if lane == NULL:
        return NULL
    lane.easy = curl_easy_init()
    lane.buffer = <char *>malloc(BUFFER_BYTES)
    if lane.easy == NULL or lane.buffer == NULL:
        free(lane.buffer)
        if lane.easy != NULL:
            curl_easy_cleanup(lane.easy)
        free(lane)
        return NULL
    rf_add(loop.handles, 1)
    lane.loop = loop
    lane.next = loop.lanes
    loop.lanes = lane
    loop.lane_count += 1
    return lane


cdef inline void lane_free(Loop *loop, Lane *lane) noexcept nogil:
    curl_easy_cleanup(lane.easy)
    rf_add(loop.handles, -1)
    free(lane.buffer)
    free(lane)


cdef inline void lane_rest(Loop *loop, Lane *lane) noexcept nogil:
    """Make the lane idle; its transfer is over and has been reported."""
    lane.file = NULL
    lane.next_idle = loop.idle
    loop.idle = lane


cdef inline Lane *lane_take(Loop *loop) noexcept nogil:
    """Return an idle lane, or a new one; NULL if out of memory."""
    cdef Lane *lane = loop.idle
    if lane == NULL:
        return lane_new(loop)
    loop.idle = lane.next_idle
    return lane


cdef inline const char *url_of(const Source *source) noexcept nogil:
    """The URL to request now: the one that redirects led to, if any."""
    return source.resolved_url if source.resolved_url != NULL else source.url


cdef inline CURLcode lane_introduce(Lane *lane, const char *url, const Credential *credential) noexcept nogil:
    """Set the user name and password that the handle sends, or remove them. Returns the first error."""
    lane.introduced_to = origin_number(url) if credential != NULL else 0
    if credential == NULL:
        return opt_username(lane.easy, NULL) or opt_password(lane.easy, NULL)
    return (
        opt_username(lane.easy, credential.user) or opt_password(lane.easy, credential.password)
        or opt_http_auth(lane.easy, credential.schemes)
    )


cdef inline CURLcode lane_set_up(Loop *loop, Lane *lane, FileCore *file) noexcept nogil:
    """Set up the easy handle as the source's profile says; most options are still set from the last transfer.

    Returns the first error. With any of these options missing, the handle would request something else.
    """
    cdef Source *source = lane.source
    cdef ProfileCore *profile = source.profile
    cdef const char *url = url_of(source)
    cdef bint bare = not is_for_the_users(source)
    cdef bint slowed = bucket_is_limited(loop.bucket) or bucket_is_limited(file.bucket)
    cdef CURLcode code = CURLE_OK
    if lane.profile_serial != profile.serial or (
        lane.introduced_to != 0 and lane.introduced_to != origin_number(url)
    ):
        # libcurl remembers in the handle how a server authenticates; reset it before asking another server.
        code = lane_set_profile(loop, lane, profile)
        lane.profile_serial = 0
        lane.introduced_to = 0
    if code == CURLE_OK and (lane.profile_serial == 0 or lane.bare != bare):
        code = (
            opt_headers(lane.easy, profile.bare_headers if bare else profile.headers)
            or opt_cookie(lane.easy, NULL if bare else profile.cookie)
        )
    lane.bare = bare
    if lane.slowed != slowed and (
        # Under a limit, small reads keep the amount in flight small.
        opt_buffer_size(lane.easy, SLOW_READ_BYTES if slowed else loop.buffer_bytes) == CURLE_OK
    ):
        lane.slowed = slowed
    # No spans under a limit, since pauses would break them. With TLS libcurl would report every record, and spans are
    # no larger than those. For a small file, libcurl spends more time formatting its messages than spans would save.
    lane.span.usable = not slowed and not is_secure(url) and file.small.stage == PLACED
    if lane.ranged:
        # The only place where a range is given by its last byte instead of its end (RFC 9110, section 14.1.2).
        snprintf(
            lane.range_text, RANGE_TEXT_BYTES, "%lld-%lld", <long long>lane.position, <long long>(lane.end - 1)
        )
    if code == CURLE_OK and (profile.credential_count > 0 or lane.introduced_to != 0):
        code = lane_introduce(lane, url, credential_for(source, url, not bare))
    code = (
        code
        or opt_share(lane.easy, profile.jar.share if profile.jar != NULL else NULL)
        or opt_verbose(lane.easy, lane.span.usable)
        or opt_range(lane.easy, lane.range_text if lane.ranged else NULL)
        or opt_url(lane.easy, url)
        # A connection belongs to the host of its first transfer, and is counted there until it is closed.
        or opt_on_close_arg(lane.easy, lane.share)
    )
    # After an error the handle's options are unknown, so the next request sets all of them.
    lane.profile_serial = profile.serial if code == CURLE_OK else 0
    return code


cdef inline void lane_end(Lane *lane, CURLcode code) noexcept nogil:
    """End a transfer that libcurl will not report; the loop finishes it along with those that libcurl reports."""
    if lane.ended == CURLE_OK:
        lane.loop.lanes_ended += 1
    lane.ended = code


cdef inline void lane_renew(Lane *lane) noexcept nogil:
    """Replace the easy handle by a fresh one: curl_easy_reset would keep the last response's status and headers.

    If out of memory, keep the old one.
    """
    cdef CURL *fresh = curl_easy_init()
    if fresh != NULL:
        curl_easy_cleanup(lane.easy)
        lane.easy = fresh
    lane.profile_serial = 0


cdef inline void lane_send(Loop *loop, Lane *lane) noexcept nogil:
    """Request the rest of the lane's range. If that fails, the loop ends the lane when it next looks."""
    cdef CURLcode code
    share_begin(loop, lane, source_share(loop, lane.source))
    slot_is_used(lane.source)
    code = lane_set_up(loop, lane, lane.file)
    lane.epoch = lane.source.epoch
    lane.asked_end = lane.end
    lane.check = UNCHECKED
    lane.fault = FAULT_NONE
    lane.sys_errno = 0
    lane.header_lines = 0
    lane.headers_ended = False
    lane.lively_received = 0
    lane.swallowed_bytes = lane.received_bytes = lane.moved_received = 0
    lane.span.announced_bytes = lane.span.left = lane.buffered = lane.hedge.filled_bytes = 0
    lane.cut = lane.paused = False
    lane.error_text[0] = lane.refused_address[0] = 0
    lane.started_ms = lane.moved_ms = lane.lively_ms = loop.now_ms
    lane.first_ms = lane.whole_ms = 0
    rf_count(&lane.file.counters.requests, 1)
    lane.request = lane.file.counters.requests
    lane.source.lanes += 1
    if code == CURLE_OK and curl_multi_add_handle(loop.multi, lane.easy) != CURLM_OK:
        code = CURLE_OUT_OF_MEMORY
    if code != CURLE_OK:
        # The handle still has the last transfer's results, which must not be taken for this one's.
        lane_renew(lane)
        snprintf(lane.error_text, ERROR_TEXT_BYTES, "%s", curl_easy_strerror(code))
        lane_end(lane, CURLE_OUT_OF_MEMORY if code == CURLE_OUT_OF_MEMORY else CURLE_FAILED_INIT)


# ---- The end of a transfer ---------------------------------------------------------------------------------------

cdef inline void lane_detach(Loop *loop, Lane *lane) noexcept nogil:
    """Take the handle from libcurl, aborting a transfer in flight, and add its numbers to the counters."""
    curl_multi_remove_handle(loop.multi, lane.easy)
    opt_share(lane.easy, NULL)
    lane_flush(lane)
    if lane.paused:
        lane.paused = False
        loop.lanes_paused -= 1
    if lane.ended != CURLE_OK:
        lane.ended = CURLE_OK
        loop.lanes_ended -= 1
    if lane.file.traced:
        post_trace(loop, lane)
    lane.source.lanes -= 1
    lane.asked_host = lane.share.host.number if lane.share != NULL else 0
    share_end(lane)
    rf_count(&lane.source.received_bytes, lane.received_bytes)
    rf_count(&lane.file.counters.connections, info_long(lane.easy, CURLINFO_NUM_CONNECTS))
    rf_count(&lane.file.counters.received_bytes, lane.received_bytes)


cdef inline void lane_release(Lane *lane) noexcept nogil:
    """Detach the lane from its file: blocks that it claimed and did not fetch are missing again.

    Its rival, if any, continues without it.
    """
    cdef FileCore *file = lane.file
    rf_count(&file.lanes_busy, -1)
    if lane.hedge.rival != NULL:
        lane.hedge.rival.hedge.rival = NULL
        lane.hedge.rival = NULL
    if file.mapped:
        blocks_give_back(&file.blocks, lane.position, lane.claim_end)
        if lane.fault == FAULT_OVERFLOW:
            # A server that is wrong about the length may be wrong about the content.
            blocks_revoke(&file.blocks, lane.start, lane.position)
    free(lane.hedge.octets)
    lane.hedge.octets = NULL
    lane.hedge.size_bytes = lane.hedge.filled_bytes = 0


cdef inline void lane_dismiss(Loop *loop, Lane *lane) noexcept nogil:
    """End the lane's transfer."""
    lane_detach(loop, lane)
    lane_release(lane)
    lane_rest(loop, lane)


cdef inline void dismiss_lanes(Loop *loop, FileCore *file) noexcept nogil:
    """End all transfers of the file."""
    cdef Lane *lane = loop.lanes
    while lane != NULL:
        if lane.file == file:
            lane_dismiss(loop, lane)
        lane = lane.next
