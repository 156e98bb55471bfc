"""A loop: one thread, one CURLM, and the files that belong to it. It never takes the GIL.

Each round takes the commands, lets libcurl move bytes (``on_body`` writes them into the file), tells Python what is
new, and gives idle lanes the next ranges. Nothing here is called from two threads, but for ``loop_tell``.
"""

from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset, strlen
from posix.strings cimport strcasecmp, strncasecmp

from rangefetch.answer cimport examine
from rangefetch.blocks cimport (
    block_size_for,
    blocks_advance,
    blocks_claim,
    blocks_claim_head,
    blocks_give_back,
    blocks_init,
    blocks_revoke,
)
from rangefetch.disk cimport lane_flush, lane_write
from rangefetch.libcurl cimport *
from rangefetch.mailbox cimport *
from rangefetch.platform cimport (
    pthread_t,
    rf_add,
    rf_bell,
    rf_bell_ring,
    rf_load,
    rf_now_ms,
    rf_reserve,
    rf_set_length,
    rf_thread_name,
)
from rangefetch.transfer cimport *

cdef enum:
    FIRST_CLAIM_BYTES = 8 << 20      # before a lane's rate is known
    LARGEST_CLAIM_BYTES = 64 << 20
    CLAIM_SECONDS = 3                # how long a range should last
    LARGEST_SWALLOW_BYTES = 64 << 10  # of an error's body; beyond, a new connection costs less
    MOST_REDIRECTS = 20              # as aria2 and browsers do
    TICK_MS = 500                    # how often stalls are looked for
    IDLE_MS = 60_000                 # how long to sleep with nothing to do; commands wake the loop
    POOLED_CONNECTIONS = 256         # pinned: libcurl's default follows the running transfers and drops warm ones

cdef struct Loop:
    pthread_t thread
    CURLM *multi          # owned: cleaned up by the engine after the thread has ended
    Mailbox inbox
    Mailbox *outbox       # borrowed: the engine's
    rf_bell *bell         # borrowed: the engine's; rung when the outbox has something
    int *handles          # borrowed: the engine's count of live easy handles
    Lane *lanes           # owned: all lanes, freed when the loop ends
    Lane *idle            # those without a transfer
    FileCore *files       # borrowed, each until EVENT_DONE or EVENT_REMOVED
    long buffer_bytes     # libcurl's receive buffer
    int64_t now_ms
    int64_t ticked_ms
    bint posted           # something was put into the outbox in this round
    bint quitting


# ---- Words to Python -------------------------------------------------------------------------------------------

cdef inline char *copy_text(const char *text) noexcept nogil:
    """A copy that free() takes, or NULL."""
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
    """The answer's headers as "name: value" lines, for free()."""
    cdef size_t size = 1
    cdef size_t at = 0
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
        at += snprintf(lines + at, size - at, "%s: %s\n", header.name, header.value)
        header = curl_easy_nextheader(easy, CURLH_HEADER, -1, header)
    return lines


cdef inline void post(Loop *loop, Message *event) noexcept nogil:
    """Hand an event, and the strings in it, to Python."""
    if not mailbox_put(loop.outbox, event):
        free(event.text)
        free(event.headers)
    loop.posted = True


cdef inline void post_bare(Loop *loop, Kind kind, FileCore *file) noexcept nogil:
    cdef Message event
    memset(&event, 0, sizeof(event))
    event.kind = kind
    event.file = file
    post(loop, &event)


cdef inline void post_about(Loop *loop, Kind kind, Lane *lane, CURLcode code, const char *text) noexcept nogil:
    cdef Message event
    memset(&event, 0, sizeof(event))
    event.kind = kind
    event.file = lane.file
    event.code = code
    event.fault = lane.fault
    event.status = <int>info_long(lane.easy, CURLINFO_RESPONSE_CODE)
    event.sys_errno = lane.sys_errno if lane.sys_errno else <int>info_long(lane.easy, CURLINFO_OS_ERRNO)
    event.retry_after_s = info_off(lane.easy, CURLINFO_RETRY_AFTER)
    event.offset = lane.position
    event.received = lane.position - lane.start
    event.text = copy_text(text)
    event.headers = copy_headers(lane.easy)
    post(loop, &event)


# ---- libcurl's callback: the only place through which bytes come -------------------------------------------------

cdef inline size_t on_body(char *data, size_t size, size_t count, void *arg) noexcept nogil:
    cdef Lane *lane = <Lane *>arg
    cdef FileCore *file = lane.file
    cdef size_t wanted
    size *= count
    lane.received_bytes += size
    if lane.verdict == UNCHECKED:
        lane.verdict = examine(file, lane)
        # A lane of a resumed file is news too: the other lanes wait for its answer.
        if lane.verdict == ACCEPTED and lane.is_first:
            file.answered = True
        lane.spans = lane.spans and header_value(lane.easy, "Transfer-Encoding") == NULL
    if lane.verdict == SWALLOWED:
        lane.swallowed_bytes += size
        return size if lane.swallowed_bytes <= LARGEST_SWALLOW_BYTES else CURL_WRITEFUNC_ERROR
    if lane.verdict == REFUSED:
        return CURL_WRITEFUNC_ERROR
    wanted = size
    if lane.end >= 0 and <int64_t>wanted > lane.end - lane.position - lane.buffered:
        wanted = <size_t>(lane.end - lane.position - lane.buffered)
        lane.fault = FAULT_OVERFLOW
    if not lane_write(lane, data, <int64_t>wanted):
        return CURL_WRITEFUNC_ERROR
    return size if wanted == size else CURL_WRITEFUNC_ERROR


cdef inline int on_debug(CURL *easy, int kind, char *data, size_t size, void *arg) noexcept nogil:
    """Hear of a received span before it is cut into pieces; everything else that libcurl tells is not for us."""
    cdef Lane *lane = <Lane *>arg
    if kind == CURLINFO_DATA_IN:
        lane.announced = data
        lane.announced_bytes = <int64_t>size
    return 0


# ---- Lanes -----------------------------------------------------------------------------------------------------

cdef inline void lane_set_base(Loop *loop, Lane *lane) noexcept nogil:
    curl_easy_reset(lane.easy)
    opt_no_signal(lane.easy, 1)
    opt_buffer_size(lane.easy, loop.buffer_bytes)
    opt_on_body(lane.easy, on_body)
    opt_on_body_arg(lane.easy, lane)
    opt_on_debug(lane.easy, on_debug)
    opt_on_debug_arg(lane.easy, lane)
    opt_private(lane.easy, lane)
    opt_error_buffer(lane.easy, lane.error_text)
    opt_protocols(lane.easy, "http,https")
    # Redirects are followed here, not by libcurl, which would send the user's headers along to any host.
    opt_follow_location(lane.easy, 0)
    opt_content_decoding(lane.easy, 0)
    opt_tcp_keepalive(lane.easy, 1)
    opt_suppress_connect_headers(lane.easy, 1)


cdef inline Lane *lane_new(Loop *loop) noexcept nogil:
    """A lane in the loop's list, or NULL where there is no memory."""
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
    lane.next = loop.lanes
    loop.lanes = lane
    return lane


cdef inline void lane_free(Loop *loop, Lane *lane) noexcept nogil:
    curl_easy_cleanup(lane.easy)
    rf_add(loop.handles, -1)
    free(lane.buffer)
    free(lane)


cdef inline void lane_rest(Loop *loop, Lane *lane) noexcept nogil:
    """Its transfer is over and told of: the lane is idle."""
    lane.file = NULL
    lane.next_idle = loop.idle
    loop.idle = lane


cdef inline const char *origin_of(const char *url, size_t *size) noexcept nogil:
    """Where in a URL host and port stand, without userinfo and without the scheme's own port."""
    cdef bint secure = strncasecmp(url, "https", 5) == 0
    cdef const char *at = url
    cdef size_t i = 0
    while at[0] != 0 and at[0] != c':':
        at += 1
    while at[0] == c':' or at[0] == c'/':
        at += 1
    while at[i] != 0 and at[i] != c'/' and at[i] != c'?' and at[i] != c'#':
        if at[i] == c'@':
            at += i + 1
            i = 0
        else:
            i += 1
    if secure and i > 4 and strncasecmp(at + i - 4, ":443", 4) == 0:
        i -= 4
    elif not secure and i > 3 and strncasecmp(at + i - 3, ":80", 3) == 0:
        i -= 3
    size[0] = i
    return at


cdef inline bint is_secure(const char *url) noexcept nogil:
    return strncasecmp(url, "https:", 6) == 0


cdef inline bint same_origin(const char *one, const char *other) noexcept nogil:
    """Same scheme, host and port (RFC 6454, section 5): what belongs to the user may be sent there too."""
    cdef size_t one_size = 0
    cdef size_t other_size = 0
    cdef const char *one_at = origin_of(one, &one_size)
    cdef const char *other_at = origin_of(other, &other_size)
    return (
        is_secure(one) == is_secure(other) and one_size == other_size
        and strncasecmp(one_at, other_at, one_size) == 0
    )


cdef inline void lane_set_up(Loop *loop, Lane *lane, FileCore *file) noexcept nogil:
    """Make the easy handle ask as the file's profile says; most of it stands from the last transfer."""
    cdef ProfileCore *profile = file.profile
    cdef Source *source = &file.source
    cdef const char *url = source.resolved_url if source.resolved_url != NULL else source.url
    cdef bint bare = source.resolved_url != NULL and not same_origin(source.url, source.resolved_url)
    cdef int i
    if lane.profile_serial != profile.serial:
        lane_set_base(loop, lane)
        for i in range(profile.setting_count):
            if profile.settings[i].text != NULL:
                opt_text(lane.easy, profile.settings[i].option, profile.settings[i].text)
            else:
                opt_long(lane.easy, profile.settings[i].option, profile.settings[i].number)
        opt_headers(lane.easy, profile.bare_headers if bare else profile.headers)
        lane.profile_serial = profile.serial
    elif lane.bare != bare:
        opt_headers(lane.easy, profile.bare_headers if bare else profile.headers)
    lane.bare = bare
    # For TLS libcurl would tell of every record, too, and spans are no larger than those.
    lane.spans = not is_secure(url)
    opt_verbose(lane.easy, lane.spans)
    opt_url(lane.easy, url)


cdef inline void lane_send(Loop *loop, Lane *lane) noexcept nogil:
    """Send the request for what is left of the lane's range."""
    lane_set_up(loop, lane, lane.file)
    if lane.ranged:
        # The one place where a range is written with its last byte instead of its end (RFC 9110, section 14.1.2).
        snprintf(
            lane.range_text, RANGE_TEXT_BYTES, "%lld-%lld", <long long>lane.position, <long long>(lane.end - 1)
        )
        opt_range(lane.easy, lane.range_text)
    else:
        opt_range(lane.easy, NULL)
    lane.verdict = UNCHECKED
    lane.fault = FAULT_NONE
    lane.sys_errno = 0
    lane.swallowed_bytes = 0
    lane.announced_bytes = lane.span_left = lane.buffered = 0
    lane.received_bytes = 0
    lane.moved_received = 0
    lane.error_text[0] = 0
    lane.started_ms = lane.moved_ms = loop.now_ms
    lane.file.requests += 1
    curl_multi_add_handle(loop.multi, lane.easy)


# ---- Claims ----------------------------------------------------------------------------------------------------

cdef inline int64_t claim_bytes(FileCore *file, int64_t bytes_per_s) noexcept nogil:
    """How long the next range of a lane should be: seconds at its own rate, shorter when the end is near."""
    cdef int64_t size = FIRST_CLAIM_BYTES
    cdef int64_t share = file.blocks.unclaimed // (2 * (file.lanes_busy + 1))
    if bytes_per_s * CLAIM_SECONDS > size:
        size = bytes_per_s * CLAIM_SECONDS
    if size > LARGEST_CLAIM_BYTES:
        size = LARGEST_CLAIM_BYTES
    return share if share < size else size


cdef inline bint lane_claim(FileCore *file, Lane *lane, int64_t bytes_per_s) noexcept nogil:
    """Give the lane the next thing to fetch. False: there is nothing."""
    lane.is_first = not file.answered
    lane.ranged = file.ranged
    lane.redirects = 0
    if file.mapped:
        if not blocks_claim(
            &file.blocks, file.first_bytes if lane.is_first else claim_bytes(file, bytes_per_s), file.window_bytes,
            &lane.start, &lane.claim_end,
        ):
            return False
        lane.end = lane.claim_end
    elif lane.is_first:
        lane.start = 0
        lane.end = file.first_bytes if file.ranged else -1
        lane.claim_end = 0
    else:
        return False
    lane.position = lane.start
    return True


cdef inline bint wants_lane(FileCore *file) noexcept nogil:
    """Whether the file is better served by one lane more."""
    if file.removing or file.lanes_busy + file.lanes_held >= rf_load(&file.lanes_most):
        return False
    if not file.answered:
        # What the file is, one answer tells; until then a second request would be a guess.
        return file.lanes_busy + file.lanes_held == 0
    if not file.splits or not file.mapped or file.blocks.unclaimed == 0:
        return False
    return file.lanes_busy == 0 or file.blocks.unclaimed >= file.least_bytes


cdef inline void feed(Loop *loop, FileCore *file) noexcept nogil:
    """Open lanes for the file while it wants them."""
    cdef Lane *lane
    while wants_lane(file):
        lane = loop.idle
        if lane == NULL:
            lane = lane_new(loop)
            if lane == NULL:
                return
        else:
            loop.idle = lane.next_idle
        if not lane_claim(file, lane, 0):
            lane_rest(loop, lane)
            return
        lane.file = file
        file.lanes_busy += 1
        lane_send(loop, lane)


# ---- How a file begins and ends ----------------------------------------------------------------------------------

cdef inline void let_go(Loop *loop, FileCore *file, Kind kind) noexcept nogil:
    """Take the file off the loop's list; the event says that nothing will touch its descriptor any more."""
    cdef FileCore **link = &loop.files
    while link[0] != NULL and link[0] != file:
        link = &link[0].next
    if link[0] != NULL:
        link[0] = file.next
    post_bare(loop, kind, file)


cdef inline bint is_complete(FileCore *file) noexcept nogil:
    return file.finished or (file.mapped and file.blocks.done == file.blocks.count)


cdef inline int settle(FileCore *file, Lane *lane) noexcept nogil:
    """The first answer came: map the blocks, and give the file its length. Returns 0 or an errno."""
    if file.mapped or file.size < 0:
        return 0
    if blocks_init(&file.blocks, file.size, block_size_for(file.size)) != 0:
        return ENOMEM
    lane.claim_end = blocks_claim_head(&file.blocks, lane.end)
    blocks_advance(&file.blocks, 0, lane.position)
    file.mapped = True
    if file.size == 0 or file.allocation == ALLOCATE_NOTHING:
        return 0
    if file.allocation == ALLOCATE_LENGTH:
        return rf_set_length(file.fd, file.size)
    return rf_reserve(file.fd, file.size)


cdef inline void announce(Loop *loop, Lane *lane) noexcept nogil:
    """Tell Python what the first good answer said. A disk that refuses is noted as the lane's fault."""
    cdef Source *source = &lane.file.source
    lane.is_first = False
    lane.file.answered = True
    lane.sys_errno = settle(lane.file, lane)
    if lane.sys_errno:
        lane.fault = FAULT_DISK
    post_about(
        loop, EVENT_ANSWERED, lane, CURLE_OK,
        source.resolved_url if source.resolved_url != NULL else source.url,
    )


cdef inline void detach(Loop *loop, Lane *lane) noexcept nogil:
    """Take the handle from libcurl and add up what the transfer did; one that was in flight is broken off."""
    curl_multi_remove_handle(loop.multi, lane.easy)
    lane_flush(lane)
    lane.file.connections += info_long(lane.easy, CURLINFO_NUM_CONNECTS)
    lane.file.received_bytes += lane.received_bytes


cdef inline void release(Lane *lane) noexcept nogil:
    """The lane works for its file no more: what it had claimed and did not bring is missing again."""
    lane.file.lanes_busy -= 1
    if lane.file.mapped:
        blocks_give_back(&lane.file.blocks, lane.position, lane.claim_end)
        if lane.fault == FAULT_OVERFLOW:
            # A server that does not know how much it sends may not know what it sends, either.
            blocks_revoke(&lane.file.blocks, lane.start, lane.position)


cdef inline void dismiss_lanes(Loop *loop, FileCore *file) noexcept nogil:
    """End all transfers of the file."""
    cdef Lane *lane = loop.lanes
    while lane != NULL:
        if lane.file == file:
            detach(loop, lane)
            release(lane)
            lane_rest(loop, lane)
        lane = lane.next


cdef inline void fail(Loop *loop, Lane *lane, CURLcode code) noexcept nogil:
    """The lane was released without success: say why, and hold a lane until Python has decided."""
    lane.file.lanes_held += 1
    post_about(loop, EVENT_FAILED, lane, code, lane.error_text)
    lane_rest(loop, lane)


cdef inline bint follow(Loop *loop, Lane *lane, long status) noexcept nogil:
    """Go where a redirect leads, if it may be followed; else note the fault. False: not a redirect, or not followed."""
    cdef FileCore *file = lane.file
    cdef Source *source = &file.source
    cdef const char *target
    cdef const char *current = source.resolved_url if source.resolved_url != NULL else source.url
    cdef char *copy
    if status not in (301, 302, 303, 307, 308):
        return False
    target = info_text(lane.easy, CURLINFO_REDIRECT_URL)
    if target == NULL:
        return False
    lane.redirects += 1
    lane.fault = FAULT_REDIRECT
    snprintf(lane.error_text, ERROR_TEXT_BYTES, "%s", target)
    if strncasecmp(target, "http:", 5) != 0 and not is_secure(target):
        return False
    if is_secure(current) and not is_secure(target) and not file.profile.allow_downgrade:
        return False
    if lane.redirects > MOST_REDIRECTS:
        lane.fault = FAULT_REDIRECTS
        return False
    copy = copy_text(target)
    if copy == NULL:
        lane.fault = FAULT_MEMORY
        return False
    free(source.resolved_url)
    source.resolved_url = copy
    lane_send(loop, lane)
    return True


cdef inline void go_on(Loop *loop, FileCore *file, Lane *lane) noexcept nogil:
    """The lane brought what it was sent for: give it the next range, or end the file."""
    cdef int64_t elapsed_ms = loop.now_ms - lane.started_ms
    cdef int64_t bytes_per_s = lane.received_bytes * 1000 // (elapsed_ms if elapsed_ms > 0 else 1)
    if is_complete(file):
        lane_rest(loop, lane)
        # Others may have brought their last byte, too, and only wait for libcurl to say so.
        dismiss_lanes(loop, file)
        let_go(loop, file, EVENT_DONE)
        return
    if (
        file.splits and file.lanes_busy + file.lanes_held < rf_load(&file.lanes_most)
        and lane_claim(file, lane, bytes_per_s)
    ):
        file.lanes_busy += 1
        lane_send(loop, lane)
    else:
        lane_rest(loop, lane)
    feed(loop, file)


cdef inline void finish(Loop *loop, Lane *lane, CURLcode code) noexcept nogil:
    """libcurl is done with the lane's transfer, well or not."""
    cdef FileCore *file = lane.file
    cdef long status = info_long(lane.easy, CURLINFO_RESPONSE_CODE)
    if code == CURLE_OK and lane.verdict == UNCHECKED:
        # An answer without a body: the callback never ran.
        lane.verdict = examine(file, lane)
    if code == CURLE_OK and lane.verdict == SWALLOWED and lane.fault == FAULT_NONE:
        lane.verdict = ACCEPTED
    if code == CURLE_OK and lane.verdict == ACCEPTED and lane.is_first:
        announce(loop, lane)
    if not lane_flush(lane):
        code = CURLE_WRITE_ERROR
    if lane.verdict == ACCEPTED and lane.fault == FAULT_NONE and lane.end >= 0:
        # What counts is what the answer said: a body may end short of it (chunked, or empty) without an error, and
        # a connection may break after the last byte.
        if lane.position < lane.end:
            code = CURLE_PARTIAL_FILE if code == CURLE_OK else code
        else:
            code = CURLE_OK
    detach(loop, lane)
    if lane.fault == FAULT_STATUS and follow(loop, lane, status):
        return
    release(lane)
    if code != CURLE_OK or lane.verdict != ACCEPTED or lane.fault != FAULT_NONE:
        fail(loop, lane, code)
        return
    if not file.mapped:
        # The stream's end is its length.
        file.size = lane.position
        file.finished = True
    go_on(loop, file, lane)


# ---- The rounds --------------------------------------------------------------------------------------------------

cdef inline void take_on(Loop *loop, FileCore *file) noexcept nogil:
    file.next = loop.files
    loop.files = file
    if is_complete(file):
        let_go(loop, file, EVENT_DONE)
    else:
        feed(loop, file)


cdef inline bint has_file(Loop *loop, FileCore *file) noexcept nogil:
    """Whether the file is still here: a command may cross with the event that ended it."""
    cdef FileCore *each = loop.files
    while each != NULL and each != file:
        each = each.next
    return each != NULL


cdef inline void remove_file(Loop *loop, FileCore *file) noexcept nogil:
    file.removing = True
    dismiss_lanes(loop, file)
    let_go(loop, file, EVENT_REMOVED)


cdef inline void obey(Loop *loop) noexcept nogil:
    """Take the commands that have come, and carry them out."""
    cdef size_t count = 0
    cdef size_t i
    cdef Message *commands = mailbox_take(&loop.inbox, &count)
    cdef FileCore *file
    for i in range(count):
        file = <FileCore *>commands[i].file
        if commands[i].kind == COMMAND_QUIT:
            loop.quitting = True
        elif commands[i].kind == COMMAND_ADD:
            take_on(loop, file)
        elif has_file(loop, file):
            if commands[i].kind == COMMAND_REMOVE:
                remove_file(loop, file)
            else:
                if commands[i].kind == COMMAND_RELEASE and file.lanes_held > 0:
                    file.lanes_held -= 1
                feed(loop, file)
    messages_free(commands, count)


cdef inline void spread_news(Loop *loop) noexcept nogil:
    """First answers that were accepted while libcurl worked: tell of them before their transfers' ends."""
    cdef Lane *lane = loop.lanes
    while lane != NULL:
        if lane.file != NULL and lane.is_first and lane.verdict == ACCEPTED:
            announce(loop, lane)
            if lane.fault == FAULT_NONE:
                feed(loop, lane.file)
            else:
                detach(loop, lane)
                release(lane)
                fail(loop, lane, CURLE_OK)
        lane = lane.next


cdef inline void reap(Loop *loop) noexcept nogil:
    """Take the transfers that libcurl is done with."""
    cdef CURLMsg *done
    cdef CURL *easy
    cdef CURLcode code
    cdef int left = 0
    done = curl_multi_info_read(loop.multi, &left)
    while done != NULL:
        if done.msg == CURLMSG_DONE:
            # Copied first: the message dies when its handle is removed.
            easy = done.easy_handle
            code = done.data.result
            finish(loop, <Lane *>info_text(easy, CURLINFO_PRIVATE), code)
        done = curl_multi_info_read(loop.multi, &left)


cdef inline void look_for_stalls(Loop *loop) noexcept nogil:
    """End transfers that have brought nothing for the read timeout."""
    cdef Lane *lane = loop.lanes
    cdef ProfileCore *profile
    cdef int64_t limit_ms
    loop.ticked_ms = loop.now_ms
    while lane != NULL:
        if lane.file != NULL:
            profile = lane.file.profile
            limit_ms = profile.read_timeout_ms
            if lane.received_bytes != lane.moved_received:
                lane.moved_received = lane.received_bytes
                lane.moved_ms = loop.now_ms
            elif lane.received_bytes == 0:
                # libcurl watches over the connecting itself.
                limit_ms += profile.connect_timeout_ms
            if profile.read_timeout_ms > 0 and loop.now_ms - lane.moved_ms > limit_ms:
                lane.fault = FAULT_STALLED
                detach(loop, lane)
                release(lane)
                fail(loop, lane, CURLE_OPERATION_TIMEDOUT)
        lane = lane.next


cdef inline void loop_end(Loop *loop) noexcept nogil:
    """Let go of every file and lane."""
    cdef Lane *lane
    while loop.files != NULL:
        remove_file(loop, loop.files)
    while loop.lanes != NULL:
        lane = loop.lanes
        loop.lanes = lane.next
        lane_free(loop, lane)
    loop.idle = NULL


cdef inline void *loop_run(void *arg) noexcept nogil:
    """The thread."""
    cdef Loop *loop = <Loop *>arg
    cdef int running = 0
    rf_thread_name("rangefetch-loop")
    while not loop.quitting:
        loop.now_ms = rf_now_ms()
        obey(loop)
        curl_multi_perform(loop.multi, &running)
        loop.now_ms = rf_now_ms()
        spread_news(loop)
        reap(loop)
        if loop.now_ms - loop.ticked_ms >= TICK_MS:
            look_for_stalls(loop)
        if loop.posted:
            loop.posted = False
            rf_bell_ring(loop.bell)
        if not loop.quitting:
            curl_multi_poll(loop.multi, NULL, 0, TICK_MS if loop.files != NULL else IDLE_MS, NULL)
    loop_end(loop)
    rf_bell_ring(loop.bell)
    return NULL


cdef inline bint loop_tell(Loop *loop, Kind kind, FileCore *file) noexcept nogil:
    """Send a command; from any thread. False: no memory."""
    cdef Message command
    memset(&command, 0, sizeof(command))
    command.kind = kind
    command.file = file
    if not mailbox_put(&loop.inbox, &command):
        return False
    curl_multi_wakeup(loop.multi)
    return True
