"""The end of a transfer: announce the response, follow a redirect, count the bytes, or ask Python what to do.

Each transfer that is not dismissed ends up in ``finish``, and the last one of a file ends the file.
"""

from libc.errno cimport EAGAIN, EMFILE, ENFILE, ENOMEM
from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.string cimport strncmp
from posix.strings cimport strncasecmp

from rangefetch.answer cimport examine, is_cut_short_unsaid, leads_elsewhere, names_another_part
from rangefetch.blocks cimport block_size_for, blocks_advance, blocks_claim_head, blocks_init, blocks_note_failure
from rangefetch.checks cimport free
from rangefetch.claims cimport feed, host_admits, lane_claim, lanes_allowed
from rangefetch.clock cimport busy_us
from rangefetch.coding cimport name_coding
from rangefetch.disk cimport lane_advance, lane_flush, lane_put
from rangefetch.growth cimport begin_growth
from rangefetch.host cimport (
    STARVING_PAUSE_MS,
    host_fill,
    host_rest,
    leave_hosts,
    share_answered,
    share_waits,
    source_leaves,
)
from rangefetch.lane cimport (
    dismiss_lanes,
    lane_detach,
    lane_dismiss,
    lane_release,
    lane_rest,
    lane_send,
    url_of,
)
from rangefetch.lease cimport guest_was_refused, is_guest, send_all_home
from rangefetch.libcurl cimport *
from rangefetch.mailbox cimport EVENT_ANSWERED, EVENT_DONE, EVENT_FAILED, EVENT_REMOVED, Message, MessageType
from rangefetch.origin cimport is_secure
from rangefetch.platform cimport (
    rf_count,
    rf_load,
    rf_note,
    rf_peek,
    rf_now_us,
    rf_start_writeback,
    rf_store,
)
from rangefetch.peers cimport ask_for_room
from rangefetch.pool cimport make_room
from rangefetch.report cimport copy_text, describe, post, post_about, post_last, status_of
from rangefetch.service cimport note_bytes, note_refusal
from rangefetch.small cimport allocate, small_arrives, small_closes, small_forgets, small_holds
from rangefetch.tail cimport help_slowest
from rangefetch.transfer cimport *

cdef enum:
    MOST_REDIRECTS = 20              # as aria2 and browsers do
    TELLING_BYTES = 256 << 10        # the time of a shorter transfer says more about the request than about the rate
    NO_PROGRESS_BYTES = 4 << 10      # a failed transfer that brought less than this made no progress
    DECIDING_MS = 100                # for Python to decide what follows from a refusal
    LONGEST_FILL_MS = 600_000        # the longest Retry-After that is honoured when a hedge is refused
    LONGEST_STARVING_MS = 30_000     # waiting for a descriptor for a connection
    HUGE_MIB = 2048                  # from this size on, write-back is started for each range that is complete


cdef inline void let_go(Loop *loop, FileCore *file, MessageType type) noexcept nogil:
    """Take the file off the loop's list; the event says that nothing will touch its descriptor any more."""
    cdef FileCore **link = &loop.files
    while link[0] != NULL and link[0] != file:
        link = &link[0].next
    if link[0] != NULL:
        link[0] = file.next
    rf_note(&file.counters.lasted_us, rf_now_us() - file.counters.began_us)
    rf_note(&file.counters.cpu_us, busy_us(loop) - file.counters.began_cpu_us)
    rf_note(&file.waits_for, WAIT_NOTHING)
    small_closes(file)
    leave_hosts(file)
    post_last(loop, type, file)
    if loop.files == NULL:
        # Without files there are no more ticks to update this.
        rf_note(&loop.cpu_percent, 0)


cdef inline void end_file(Loop *loop, FileCore *file, MessageType type) noexcept nogil:
    """Stop all work for the file, then release it. If other loops have guests of it, recall them first; the file is
    released once they are gone, if it is still over then."""
    dismiss_lanes(loop, file)
    file.removing = file.removing or type == EVENT_REMOVED
    if file.spread.guests != NULL:
        send_all_home(file)
    else:
        let_go(loop, file, type)


cdef inline bint is_complete(FileCore *file) noexcept nogil:
    return not is_guest(file) and file.small.stage == PLACED and (
        file.finished or (file.mapped and file.blocks.done == file.blocks.count)
    )


cdef inline int map_blocks(FileCore *file, Lane *lane) noexcept nogil:
    """On the first response, create the block map and give the file its length. Returns 0 or an errno."""
    if file.mapped or file.size < 0:
        return 0
    if blocks_init(&file.blocks, file.size, block_size_for(file.size)) != 0:
        return ENOMEM
    lane.claim_end = blocks_claim_head(&file.blocks, lane.end)
    blocks_advance(&file.blocks, 0, lane.position, lane.source.number)
    # Once Python sees this, the map and the size are there to be read.
    rf_store(&file.mapped, True)
    return allocate(file) if file.small.stage == PLACED else 0


cdef inline void announce(Loop *loop, Lane *lane) noexcept nogil:
    """Tell Python what the first good response said. A disk error is noted as the lane's fault."""
    cdef FileCore *file = lane.file
    cdef Source *source = lane.source
    lane.is_first = False
    source.met = True
    source.redirects = 0
    rf_store(&file.answered, True)
    begin_growth(loop, file, loop.now_ms - lane.started_ms)
    cdef int failed = map_blocks(file, lane)
    if failed:
        lane.sys_errno = failed
        lane.fault = FAULT_DISK
    post_about(loop, EVENT_ANSWERED, lane, CURLE_OK, url_of(source))


cdef inline void small_ends(Loop *loop, Lane *lane) noexcept nogil:
    """The transfer of a file taken for small ends without completing the file.

    From now on it is like any other file at this point, except that it has no place. Call before releasing the lane.
    """
    cdef FileCore *file = lane.file
    if file.small.stage == PLACED:
        return
    file.small.stage = HELD
    if lane.fault == FAULT_DISK:
        small_forgets(file)
    elif lane.check == ACCEPTED and not file.answered:
        # After an overflow, all bytes are revoked when the lane is released.
        file.small.kept_bytes = 0 if lane.fault == FAULT_OVERFLOW else lane.position
        announce(loop, lane)


cdef inline void fail(Loop *loop, Lane *lane, CURLcode code) noexcept nogil:
    """Report why the lane, which was released, failed, and hold a lane until Python has decided."""
    cdef FileCore *file = lane.file
    cdef Message event
    if file.small.stage == HELD and lane.fault == FAULT_DISK:
        # The file system may not support files without a name. If it is full instead, that will show again.
        lane_rest(loop, lane)
        small_holds(loop, file)
        return
    if is_guest(file):
        # The home will request what failed here, unless the host wants to be left alone.
        file.removing = True
        if is_refusal(status_of(lane), info_off(lane.easy, CURLINFO_RETRY_AFTER)):
            guest_was_refused(lane, code, words_for(lane, code))
        lane_rest(loop, lane)
        return
    if is_complete(file):
        # The last bytes arrived before whatever ended the transfer, so there is nothing to report.
        lane_rest(loop, lane)
        return
    file.lanes_held += 1
    if file.mapped and lane.position - lane.start < NO_PROGRESS_BYTES:
        blocks_note_failure(&file.blocks, lane.position, lane.claim_end)
    event = describe(EVENT_FAILED, lane, code, words_for(lane, code))
    lane_rest(loop, lane)
    event.kept = kept_bytes(loop, file)
    if not post(loop, &event):
        # There is no memory to ask Python what to do next. The memory for the last event was set aside.
        end_file(loop, file, EVENT_REMOVED)


cdef inline int64_t kept_bytes(Loop *loop, FileCore *file) noexcept nogil:
    """Bytes of the file without those of transfers in progress, which are revoked if a response turns out too long."""
    cdef int64_t kept = file.blocks.bytes_done
    cdef Lane *lane = loop.lanes
    while lane != NULL:
        if lane.file == file and file.mapped and lane.hedge.octets == NULL:
            kept -= lane.position - lane.start
        lane = lane.next
    return kept


cdef inline const char *words_for(Lane *lane, CURLcode code) noexcept nogil:
    """libcurl's message for this failure; if there is none, its text for the code."""
    return curl_easy_strerror(code) if code and not lane.error_text[0] else lane.error_text


cdef inline void fail_elsewhere(Loop *loop, FileCore *file, Message *refused) noexcept nogil:
    """Report to Python that a guest was refused, as if a lane here had been. Takes over the message's strings."""
    cdef Message event = refused[0]
    refused.text = refused.headers = refused.address = NULL
    event.type = EVENT_FAILED
    event.number = 0
    event.request = file.counters.requests
    event.kept = file.blocks.bytes_done
    file.lanes_held += 1
    if event.received < NO_PROGRESS_BYTES:
        blocks_note_failure(&file.blocks, event.offset, refused.number)
    if not post(loop, &event):
        end_file(loop, file, EVENT_REMOVED)


cdef inline char *redirect_target(Lane *lane) noexcept nogil:
    """The URL that a redirect leads to, to be freed by the caller; NULL if there is none, or no memory.

    libcurl provides it only once it has the whole response. If the body was too long and was cut off, it is built from
    the Location header here.
    """
    cdef const char *location
    cdef char *joined
    cdef char *copy
    cdef const char *target = info_text(lane.easy, CURLINFO_REDIRECT_URL)
    if target != NULL:
        return copy_text(target)
    location = header_value(lane.easy, "Location")
    if location == NULL:
        return NULL
    joined = url_joined(info_text(lane.easy, CURLINFO_EFFECTIVE_URL), location)
    copy = copy_text(joined)
    curl_free(joined)
    return copy


cdef inline bint follow(Loop *loop, Lane *lane, long status) noexcept nogil:
    """Follow a redirect, if that is allowed; else note the fault. False: not a redirect, or not followed."""
    cdef Source *source = lane.source
    cdef const char *current = url_of(source)
    cdef char *target
    if status not in (300, 301, 302, 303, 307, 308):
        return False
    target = redirect_target(lane)
    if target == NULL:
        return False
    if lane.epoch != source.epoch:
        # The source has got a new address, to which a redirect of the old one does not apply.
        free(target)
        go_to(loop, lane, False)
        return True
    lane.redirects += 1
    lane.fault = FAULT_REDIRECT
    snprintf(lane.error_text, ERROR_TEXT_BYTES, "%s", target)
    if (
        (strncasecmp(target, "http:", 5) != 0 and not is_secure(target))
        or (is_secure(current) and not is_secure(target) and not source.profile.allow_downgrade)
    ):
        free(target)
        return False
    if lane.redirects > MOST_REDIRECTS:
        free(target)
        lane.fault = FAULT_REDIRECTS
        return False
    free(source.resolved_url)
    source.resolved_url = target
    go_to(loop, lane, True)
    return True


cdef inline void go_to(Loop *loop, Lane *lane, bint redirected) noexcept nogil:
    """Request the source's current URL. If its host may not be asked yet, release the lane; a later lane goes there."""
    cdef Source *source = lane.source
    source_leaves(source)
    if host_admits(loop, lane.file, source):
        lane_send(loop, lane)
        return
    source.redirects = lane.redirects if redirected else 0
    lane_release(lane)
    lane_rest(loop, lane)


cdef inline void commit_hedge(Loop *loop, Lane *lane) noexcept nogil:
    """The hedging lane has all of its bytes: end the slow lane, and write those that it had not received."""
    cdef Lane *slow = lane.hedge.rival
    cdef int64_t at
    slow.hedge.rival = lane.hedge.rival = NULL
    lane.source.refusals = 0
    lane_detach(loop, slow)
    at = slow.position
    if at < lane.position:
        # The slow lane's buffer could not be written, so there is a gap of bytes that neither lane has.
        lane.fault = FAULT_DISK
        lane.sys_errno = slow.sys_errno
    else:
        # The claim moves to the lane that fulfils it.
        lane.claim_end = slow.claim_end
        slow.claim_end = at
        if lane_put(lane, lane.hedge.octets + (at - lane.position), lane.end - at, at):
            lane.position = at
            lane_advance(lane, lane.end - at)
        else:
            lane.position = at
    lane_release(slow)
    lane_rest(loop, slow)


cdef inline bint has_excess(Loop *loop, FileCore *file) noexcept nogil:
    """Whether a transfer of the file has just brought more bytes than announced.

    Its blocks count as done until libcurl reports its end, a moment later; then they are revoked.
    """
    cdef Lane *lane = loop.lanes
    while lane != NULL:
        if lane.file == file and lane.fault == FAULT_OVERFLOW and lane.hedge.octets == NULL:
            return True
        lane = lane.next
    return False


cdef inline void go_on(Loop *loop, FileCore *file, Lane *lane) noexcept nogil:
    """The lane has fetched its range: give it the next one, or end the file."""
    cdef int64_t elapsed_ms = loop.now_ms - lane.started_ms
    note_bytes(loop, lane)
    if is_complete(file) and not has_excess(loop, file):
        lane_rest(loop, lane)
        # Other lanes may have received their last byte too, and only wait for libcurl to report it.
        end_file(loop, file, EVENT_DONE)
        return
    if lane.bytes_per_s == 0 and lane.received_bytes >= TELLING_BYTES:
        lane.bytes_per_s = lane.received_bytes * 1000 // (elapsed_ms if elapsed_ms > 0 else 1)
    if lane.source.bytes_per_s == 0:
        # The file may end before the next tick; a lane that helps the last one needs to know what rate to expect.
        lane.source.bytes_per_s = lane.bytes_per_s
    if file.splits and lanes_allowed(file) > 0 and lane_claim(loop, file, lane):
        rf_count(&file.lanes_busy, 1)
        lane_send(loop, lane)
    elif lanes_allowed(file) <= 0 or not help_slowest(loop, file, lane):
        lane_rest(loop, lane)
    feed(loop, file)


cdef inline bint is_refusal(long status, int64_t retry_after_s) noexcept nogil:
    """Whether the host asks to be left alone (RFC 9110, section 10.2.3; RFC 6585, section 4)."""
    return status == 429 or (retry_after_s > 0 and (status in (403, 408, 413, 423, 425) or status >= 500))


cdef inline bint others_work(Loop *loop, const Lane *lane) noexcept nogil:
    """Whether another lane, here or on another loop, is receiving bytes for the file."""
    cdef Lane *other = loop.lanes
    if rf_peek(&lane.file.spread.lanes_elsewhere) > 0:
        return True
    if is_guest(lane.file) and rf_peek(&lane.file.home.lanes_busy) > 0:
        return True
    while other != NULL:
        if other != lane and other.file == lane.file and other.check == ACCEPTED:
            return True
        other = other.next
    return False


cdef inline void heed(Loop *loop, Lane *lane, long status) noexcept nogil:
    """Note what the response says about its host: it is up, or wants to be left alone.

    Python decides for how long; this makes sure that no request is sent before it has.
    """
    cdef int64_t retry_after_s = info_off(lane.easy, CURLINFO_RETRY_AFTER)
    if status == 0 or lane.share == NULL:
        return
    if not is_refusal(status, retry_after_s):
        share_answered(loop, lane)
    elif lane.hedge.octets != NULL:
        # Python is not told about hedges that fail.
        host_fill(
            lane.share.host, loop.now_ms + max(DECIDING_MS, min(1000 * max(retry_after_s, 0), LONGEST_FILL_MS)), 1
        )
    elif others_work(loop, lane):
        host_fill(lane.share.host, loop.now_ms + DECIDING_MS, 1)
    else:
        host_rest(lane.share.host, loop.now_ms + DECIDING_MS)


cdef inline bint has_no_socket(Loop *loop, const Lane *lane, CURLcode code) noexcept nogil:
    """Whether the transfer got no connection because others hold them all, so that it will get one later."""
    if code == CURLE_OK or lane.check != UNCHECKED or lane.refused_socket == 0:
        return False
    if lane.refused_socket == EMFILE or lane.refused_socket == ENFILE:
        if loop.starved_ms == 0:
            loop.starved_ms = loop.now_ms
        return loop.now_ms - loop.starved_ms < LONGEST_STARVING_MS
    return lane.refused_socket == EAGAIN


cdef inline void put_off(Loop *loop, Lane *lane) noexcept nogil:
    """Try again when there is a connection for it. Idle ones are closed, here and on other loops."""
    cdef int64_t host = lane.share.host.number if lane.share != NULL and lane.refused_socket == EAGAIN else 0
    if lane.refused_socket != EAGAIN:
        loop.starved_again_ms = loop.now_ms + STARVING_PAUSE_MS
    if lane.share != NULL:
        share_waits(lane.share, True)
    if lane.epoch == lane.source.epoch:
        lane.source.redirects = lane.redirects
    lane_detach(loop, lane)
    lane_release(lane)
    lane_rest(loop, lane)
    make_room(loop, host)
    ask_for_room(loop, host)


cdef inline bint has_too_large_headers(const Lane *lane, CURLcode code) noexcept nogil:
    """Whether libcurl ended a response because its headers were too large; it uses several codes for that."""
    return lane.header_lines > 0 and (
        code == CURLE_TOO_LARGE or code == CURLE_OUT_OF_MEMORY
        or (code == CURLE_RECV_ERROR and strncmp(lane.error_text, "Too large response headers", 26) == 0)
    )


cdef inline void finish(Loop *loop, Lane *lane, CURLcode code) noexcept nogil:
    """Deal with the end of a lane's transfer, successful or not, once libcurl has reported it."""
    cdef FileCore *file = lane.file
    cdef long status = info_long(lane.easy, CURLINFO_RESPONSE_CODE)
    cdef bint hedging = lane.hedge.octets != NULL
    cdef bint is_well
    if has_no_socket(loop, lane, code):
        put_off(loop, lane)
        return
    if code != CURLE_OK and lane.check == UNCHECKED and lane.refused_address[0] != 0:
        lane.fault = FAULT_ADDRESS
        snprintf(lane.error_text, ERROR_TEXT_BYTES, "%s", lane.refused_address)
    heed(loop, lane, status)
    if code == CURLE_OK and lane.check == UNCHECKED:
        # A response without a body: the callback was never called.
        if lane.headers_ended:
            lane.check = examine(file, lane)
        else:
            # To libcurl a connection that closes in the middle of the headers is no error (RFC 9112, section 8: it is).
            code = CURLE_RECV_ERROR
            snprintf(lane.error_text, ERROR_TEXT_BYTES, "the connection was closed in the middle of the headers")
    if lane.check == UNCHECKED and has_too_large_headers(lane, code):
        lane.fault = FAULT_HEADERS
    if lane.fault == FAULT_ENCODED:
        name_coding(lane.easy, lane.error_text)
    if code != CURLE_OK and lane.check == UNCHECKED and lane.fault == FAULT_NONE and leads_elsewhere(lane.easy):
        # Whatever libcurl objects to, such as a second Location header, follow the redirect; the first one counts.
        lane.fault = FAULT_STATUS
    if code == CURLE_PARTIAL_FILE and lane.check == UNCHECKED and names_another_part(lane, status):
        lane.fault = FAULT_RANGE_WRONG
    if code == CURLE_OK and lane.check == SWALLOWED and lane.fault == FAULT_NONE:
        lane.check = ACCEPTED
    if code == CURLE_OK and lane.check == ACCEPTED and lane.is_first and file.small.stage == PLACED:
        announce(loop, lane)
    if lane.fault == FAULT_PROBED or (file.probing and code == CURLE_OK and lane.check == ACCEPTED):
        if lane.fault == FAULT_PROBED:
            announce(loop, lane)
        lane_detach(loop, lane)
        lane_release(lane)
        lane_rest(loop, lane)
        return
    if not lane_flush(lane):
        code = CURLE_WRITE_ERROR
    if code == CURLE_OK and lane.check == ACCEPTED and is_cut_short_unsaid(file, lane):
        lane.fault = FAULT_RANGE_WRONG
    if lane.check == ACCEPTED and lane.fault == FAULT_NONE and lane.end >= 0:
        # Rely on the length in the response: a body may end early without an error (chunked, or empty), and a
        # connection may break after the last byte.
        if lane.position + lane.hedge.filled_bytes < lane.end:
            if code == CURLE_OK:
                lane.fault = FAULT_RANGE_SHORT
        else:
            code = CURLE_OK
    lane_detach(loop, lane)
    if lane.fault == FAULT_STATUS and follow(loop, lane, status):
        return
    if file.small.stage == SMALL and lane.fault == FAULT_RANGE_WRONG and file.seems_empty and lane.ranged:
        file.ranged = lane.ranged = False
        lane.end = -1
        go_to(loop, lane, False)
        return
    is_well = code == CURLE_OK and lane.check == ACCEPTED and lane.fault == FAULT_NONE
    if is_well:
        lane.source.redirects = 0
    if file.small.stage == SMALL and is_well and small_arrives(lane):
        lane_release(lane)
        lane_rest(loop, lane)
        let_go(loop, file, EVENT_DONE)
        return
    small_ends(loop, lane)
    if lane.hedge.rival != NULL and not hedging:
        # Successful or not, it no longer needs its rival.
        lane_dismiss(loop, lane.hedge.rival)
    elif (
        hedging and code == CURLE_OK and lane.hedge.rival != NULL and lane.fault == FAULT_NONE
        and lane.end >= lane.hedge.rival.end and lane.hedge.rival.fault != FAULT_OVERFLOW
    ):
        commit_hedge(loop, lane)
    elif hedging:
        # A hedge is optional: if it fails or falls short, the slow lane continues, and nothing is reported.
        note_refusal(loop, lane.source, info_off(lane.easy, CURLINFO_RETRY_AFTER))
        lane_release(lane)
        lane_rest(loop, lane)
        return
    lane_release(lane)
    if not is_well:
        fail(loop, lane, code)
        return
    if file.size >> 20 >= HUGE_MIB and not rf_load(&file.home.uncached):
        # Otherwise gigabytes of dirty pages pile up, and then the kernel blocks this thread until they are written.
        rf_start_writeback(file.fd, lane.start, lane.position - lane.start)
    if not file.mapped:
        # A stream's length is known only at its end.
        rf_store(&file.size, lane.position)
        file.finished = True
    if file.small.stage == HELD:
        lane_rest(loop, lane)
        small_holds(loop, file)
        return
    go_on(loop, file, lane)
