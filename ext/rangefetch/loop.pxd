"""The event loop: one thread with one CURLM, and the files that belong to it. It never takes the GIL.

Each round executes the commands that have arrived, lets libcurl move bytes (``on_body`` in ``lane.pxd`` writes them),
posts events to Python, and gives idle lanes their next ranges. What happens when a transfer ends is in ``outcome.pxd``.
All functions here run in the loop's own thread.
"""

from libc.stdint cimport int64_t

from rangefetch.blocks cimport blocks_contiguous
from rangefetch.bucket cimport bucket_fill, bucket_is_dry
from rangefetch.checks cimport RF_CHECKED, free
from rangefetch.claims cimport feed, is_limited, resting_host, wait_of
from rangefetch.clock cimport busy_us, look_at_clock
from rangefetch.commands cimport obey, quit
from rangefetch.ending cimport end_files, end_transfers
from rangefetch.growth cimport steer
from rangefetch.host cimport share_answered, share_waits, shares_sweep
from rangefetch.invariants cimport check_loop
from rangefetch.lane cimport lane_detach, lane_dismiss, lane_end, lane_free, lane_release, lane_rest, must_wait, url_of
from rangefetch.libcurl cimport *
from rangefetch.mailbox cimport *
from rangefetch.outcome cimport announce, fail, finish, small_ends
from rangefetch.peers cimport ask_for_room, tell_peers
from rangefetch.platform cimport (
    rf_bell_quiet,
    rf_bell_ring,
    rf_count,
    rf_load,
    rf_note,
    rf_sleep_ms,
    rf_store,
    rf_thread_name,
)
from rangefetch.pool cimport make_room, sweep_ends, waits_in_line
from rangefetch.report cimport post_about, post_bare
from rangefetch.service cimport FIRST_PAUSE_MS, is_new_connection, is_unserved, memory_of, note_bytes, note_served
from rangefetch.small cimport CRAWL_AFTER_MS, CRAWL_LEFT_MS, small_holds
from rangefetch.spread cimport spread_out
from rangefetch.tail cimport crawls, left_ms, may_be_waiting, replace_slow, watch_tail, withdraw
from rangefetch.transfer cimport *

cdef enum:
    TICK_MS = 250                    # how often rates are measured and stalls are detected
    YOUNG_TICK_MS = 100              # ... for YOUNG_US after a file was added, while its number of lanes grows
    YOUNG_US = 1_500_000
    PAUSED_MS = 10                   # how often empty buckets are refilled
    IDLE_MS = 60_000                 # how long to sleep with nothing to do; commands wake the loop
    MAKE_ROOM_EVERY_MS = 1000
    LIVELY_BYTES = 1 << 10           # a transfer must receive at least this much ...
    LIVELY_MS = 10_000               # ... in this time, or in the read timeout if that is longer
    BLIND_MS = 10                    # how long to sleep when libcurl cannot wait for its sockets


cdef inline void note_answers(Loop *loop) noexcept nogil:
    """Process the responses that began in this round: time them, and announce first responses before their transfers
    end."""
    cdef Lane *lane = loop.lanes
    cdef FileCore *file
    cdef Memory *memory
    cdef int64_t took_ms
    while lane != NULL:
        file = lane.file
        if file != NULL and lane.first_ms == 0 and lane.check != UNCHECKED:
            lane.first_ms = loop.now_ms
            took_ms = loop.now_ms - lane.started_ms
            note_served(loop, lane)
            if lane.check == ACCEPTED:
                share_answered(loop, lane)
            memory = memory_of(file)
            rf_note(&memory.request_ms, (3 * memory.request_ms + took_ms) // 4 if memory.request_ms > 0 else took_ms)
            if file.small.stage == HELD:
                post_bare(loop, EVENT_HELD, file)
        if file != NULL and file.small.stage != PLACED:
            # The response of a held file is announced once the file has its place.
            if file.small.stage == SMALL and lane.check == ACCEPTED:
                lane.is_first = False
        elif file != NULL and lane.is_first and lane.check == ACCEPTED and not file.probing:
            announce(loop, lane)
            if lane.fault == FAULT_NONE:
                feed(loop, file)
            else:
                lane_detach(loop, lane)
                lane_release(lane)
                fail(loop, lane, CURLE_OK)
        elif file != NULL and lane.check == ACCEPTED and not lane.source.met and not file.probing:
            lane.source.met = True
            post_about(loop, EVENT_MET, lane, CURLE_OK, url_of(lane.source))
        lane = lane.next


cdef inline void tell_reached(Loop *loop) noexcept nogil:
    """Post REACHED for files whose contiguous bytes have reached what Python asked for."""
    cdef FileCore *file = loop.files
    cdef int64_t wanted
    while file != NULL:
        wanted = rf_load(&file.notify_bytes)
        if wanted > 0 and (blocks_contiguous(&file.blocks) if file.mapped else file.stream_bytes) >= wanted:
            rf_store(&file.notify_bytes, 0)
            post_bare(loop, EVENT_REACHED, file)
        file = file.next


cdef inline void reap(Loop *loop) noexcept nogil:
    """Finish the transfers that libcurl reports as done, and those whose end it will not report."""
    cdef Lane *lane = loop.lanes
    cdef CURLMsg *done
    cdef CURL *easy
    cdef CURLcode code
    cdef int left = 0
    done = curl_multi_info_read(loop.multi, &left)
    while done != NULL:
        if done.msg == CURLMSG_DONE:
            # Copied first: libcurl frees the message when the handle is removed.
            easy = done.easy_handle
            code = done.data.result
            if easy == loop.sweeper:
                sweep_ends(loop)
            else:
                finish(loop, <Lane *>info_text(easy, CURLINFO_PRIVATE), code)
        done = curl_multi_info_read(loop.multi, &left)
    while lane != NULL and loop.lanes_ended > 0:
        if lane.ended != CURLE_OK:
            finish(loop, lane, lane.ended)
        lane = lane.next


cdef inline bint drips(Loop *loop, Lane *lane, int64_t limit_ms) noexcept nogil:
    """Whether a response arrives so slowly that it counts as stalled. Never under a speed limit, which may be why."""
    if (
        lane.lively_received == 0 or lane.received_bytes - lane.lively_received >= LIVELY_BYTES
        or lane.paused or is_limited(loop, lane.file)
    ):
        lane.lively_received = lane.received_bytes
        lane.lively_ms = loop.now_ms
    return loop.now_ms - lane.lively_ms > max(limit_ms, LIVELY_MS)


cdef inline void measure_lane(Loop *loop, Lane *lane, int64_t elapsed_ms) noexcept nogil:
    """Measure a lane's rate, and end its transfer if it has stalled for the read timeout."""
    cdef ProfileCore *profile = lane.source.profile
    cdef int64_t moved = lane.received_bytes - lane.moved_received
    cdef int64_t lately = moved * 1000 // elapsed_ms
    cdef int64_t limit_ms = profile.read_timeout_ms
    cdef int64_t connected_us, known
    lane.moved_received = lane.received_bytes
    if lane.paused:
        lane.file.lanes_paused_seen += 1
    if moved > 0:
        note_bytes(loop, lane)
    if moved > 0 or lane.paused:
        lane.moved_ms = loop.now_ms
    elif loop.now_ms - lane.started_ms >= elapsed_ms:
        lane.file.lanes_still += 1
    if lane.received_bytes > 0 and loop.now_ms - lane.first_ms < elapsed_ms:
        # Its first bytes arrived during this tick: a rate over the whole tick would be far too low.
        pass
    elif lane.received_bytes > 0:
        lane.bytes_per_s = (lane.bytes_per_s + lately) // 2 if lane.bytes_per_s > 0 else lately
        known = lane.source.bytes_per_s
        lane.source.bytes_per_s = (7 * known + lane.bytes_per_s) // 8 if known > 0 else lane.bytes_per_s
    else:
        connected_us = info_off(lane.easy, CURLINFO_PRETRANSFER_TIME_T)
        if connected_us > 0:
            # The read timeout starts when the request could be sent, or later if a limit paused the lane after that.
            lane.moved_ms = max(lane.moved_ms, lane.started_ms + connected_us // 1000)
        else:
            # libcurl enforces the connect timeout itself.
            limit_ms = limit_ms + profile.connect_timeout_ms if profile.connect_timeout_ms > 0 else 0
        if loop.now_ms - lane.started_ms >= elapsed_ms and not may_be_waiting(loop, lane):
            # The rate of its last range means less with every tick without a response.
            lane.bytes_per_s //= 2
    if profile.read_timeout_ms > 0 and limit_ms > 0 and (
        loop.now_ms - lane.moved_ms > limit_ms or drips(loop, lane, limit_ms)
    ):
        if lane.hedge.octets != NULL:
            lane_dismiss(loop, lane)
            return
        if lane.hedge.rival != NULL:
            lane_dismiss(loop, lane.hedge.rival)
        lane.fault = FAULT_STALLED
        lane_detach(loop, lane)
        small_ends(loop, lane)
        lane_release(lane)
        fail(loop, lane, CURLE_OPERATION_TIMEDOUT)


cdef inline bint small_crawls(Loop *loop, const Lane *lane) noexcept nogil:
    """Whether a small file arrives so slowly that it is better fetched like a large one, whose slow ranges get help.
    Never without range support: the file could not continue where this transfer is aborted."""
    return (
        lane.check == ACCEPTED and lane.file.splits and loop.now_ms - lane.started_ms >= CRAWL_AFTER_MS
        and left_ms(loop, lane) > CRAWL_LEFT_MS and not is_limited(loop, lane.file)
    )


cdef inline void watch_small(Loop *loop, Lane *lane) noexcept nogil:
    """Watch a small file's lane: give up a new connection that is not answered while the host answers others, and
    hold a file that arrives too slowly to be treated as small."""
    cdef FileCore *file = lane.file
    cdef HostShare *share = lane.share
    if is_new_connection(lane) and is_unserved(loop, lane):
        lane_dismiss(loop, lane)
        # The file waits for a connection that works, and for now the host gets no more than it serves.
        if share != NULL:
            share.served = share.lanes if share.lanes > 1 else 1
            share.served_again_ms = loop.now_ms + FIRST_PAUSE_MS
    elif small_crawls(loop, lane):
        lane_detach(loop, lane)
        small_ends(loop, lane)
        lane_release(lane)
        lane_rest(loop, lane)
        small_holds(loop, file)


cdef inline void tick(Loop *loop) noexcept nogil:
    """Run a few times a second: measure rates, and act on what is slow."""
    cdef int64_t elapsed_ms = loop.now_ms - loop.ticked_ms
    cdef Lane *lane = loop.lanes
    cdef FileCore *file = loop.files
    cdef int64_t cpu_us = busy_us(loop)
    rf_note(&loop.cpu_percent, <int>((cpu_us - loop.cpu_us) // (10 * elapsed_ms)) if file != NULL else 0)
    loop.cpu_us = cpu_us
    loop.ticked_ms = loop.now_ms
    forget_waits(loop)
    while file != NULL:
        file.lanes_still = 0
        file.lanes_paused_seen = 0
        file = file.next
    while lane != NULL:
        if lane.file != NULL:
            measure_lane(loop, lane, elapsed_ms)
        if lane.file != NULL and lane.file.small.stage == SMALL:
            watch_small(loop, lane)
        lane = lane.next
    file = loop.files
    while file != NULL:
        if file.lanes_paused_seen:
            rf_count(&file.counters.paused_ms, elapsed_ms)
        if file.answered and file.splits and file.mapped and file.small.stage == PLACED:
            spread_out(loop, file)
            steer(loop, file, elapsed_ms)
            withdraw(loop, file)
            file.crawls = crawls(loop, file)
            replace_slow(loop, file)
            watch_tail(loop, file)
        # A source that was resting when a lane became idle may be available by now.
        feed(loop, file)
        rf_store(&file.waits_for, wait_of(loop, file))
        rf_store(&file.resting_host, resting_host(loop, file))
        file = file.next
    help_in_line(loop)
    shares_sweep(loop)


cdef inline void help_in_line(Loop *loop) noexcept nogil:
    """If a lane's connection is not being served, have all loops close idle ones to that host (see ``pool.pxd``)."""
    cdef Lane *lane = loop.lanes
    cdef int64_t asked = 0
    if loop.now_ms - loop.asked_for_room_ms < MAKE_ROOM_EVERY_MS:
        return
    while lane != NULL:
        # Once for consecutive lanes of the same host; lanes of one file are usually adjacent.
        if waits_in_line(loop, lane) and lane.share != NULL and lane.share.host.number != asked:
            asked = lane.share.host.number
            loop.asked_for_room_ms = loop.now_ms
            make_room(loop, asked)
            ask_for_room(loop, asked)
        lane = lane.next


cdef inline void use_room(Loop *loop) noexcept nogil:
    """A host may have room for a connection, or be back from its rest: feed the files, and tell the other loops if this
    may concern them."""
    cdef FileCore *file = loop.files
    loop.has_room = False
    forget_waits(loop)
    while file != NULL:
        feed(loop, file)
        file = file.next
    if loop.tells_of_room:
        loop.tells_of_room = False
        tell_peers(loop, COMMAND_ROOM, 0)


cdef inline void forget_waits(Loop *loop) noexcept nogil:
    """Clear the marks of what waits for a host; whatever still waits sets them again."""
    cdef HostShare *share
    cdef int i
    for i in range(HOST_BUCKETS):
        share = loop.shares[i]
        while share != NULL:
            share_waits(share, False)
            share = share.next


cdef inline void fill_buckets(Loop *loop) noexcept nogil:
    """Refill the token buckets, and resume paused lanes in turn."""
    cdef FileCore *file = loop.files
    cdef Lane *lane
    cdef CURLcode code
    cdef int visited = 0
    bucket_fill(loop.bucket, loop.now_us)
    while file != NULL:
        bucket_fill(file.bucket, loop.now_us)
        file = file.next
    # Round robin, so that no lane starves.
    while loop.lanes_paused > 0 and not bucket_is_dry(loop.bucket) and visited <= loop.lane_count:
        lane = loop.turn if loop.turn != NULL else loop.lanes
        loop.turn = lane.next
        visited += 1
        if lane.paused and not must_wait(lane):
            lane.paused = False
            loop.lanes_paused -= 1
            # This may deliver data that libcurl has kept, and pause again or fail. Before version 8, libcurl reports
            # such a failure only here.
            code = curl_easy_pause(lane.easy, CURLPAUSE_CONT)
            if code != CURLE_OK:
                lane_end(lane, code)


cdef inline void loop_end(Loop *loop) noexcept nogil:
    """Shut the inbox and free all lanes."""
    cdef Lane *lane
    mailbox_shut(&loop.inbox)
    # A guest that has arrived in the meantime leaves again.
    obey(loop)
    quit(loop)
    while loop.lanes != NULL:
        lane = loop.lanes
        loop.lanes = lane.next
        lane_free(loop, lane)
    loop.idle = NULL
    sweep_ends(loop)


cdef inline int tick_ms(Loop *loop) noexcept nogil:
    return YOUNG_TICK_MS if loop.files != NULL and loop.now_us - loop.newest_us < YOUNG_US else TICK_MS


cdef inline int sleep_ms(Loop *loop) noexcept nogil:
    """How long the loop may sleep unless a socket or a command wakes it."""
    cdef int most_ms = sleep_but_for_slots_ms(loop)
    if loop.next_slot_us == 0:
        return most_ms
    return <int>min(most_ms, max((loop.next_slot_us - loop.now_us + 999) // 1000, 1))


cdef inline int sleep_but_for_slots_ms(Loop *loop) noexcept nogil:
    if loop.lanes_ended > 0:
        return 0
    if loop.lanes_paused > 0:
        return PAUSED_MS
    if loop.due_ms > 0:
        return <int>max(loop.due_ms - loop.now_ms, 1)
    if loop.files != NULL:
        return tick_ms(loop)
    return IDLE_MS


cdef inline void end_all(Loop *loop) noexcept nogil:
    """End all transfers. Called when curl_multi_perform fails, after which libcurl may never report their ends."""
    cdef Lane *lane = loop.lanes
    while lane != NULL:
        if lane.file != NULL:
            lane_end(lane, CURLE_FAILED_INIT)
        lane = lane.next


cdef inline void loop_sleep(Loop *loop) noexcept nogil:
    """Wait for libcurl's sockets, for a command, or until something is due."""
    cdef curl_waitfd command
    command.fd = loop.wake.read_fd
    command.events = CURL_WAIT_POLLIN
    command.revents = 0
    if curl_multi_poll(loop.multi, &command, 1, sleep_ms(loop), NULL) != CURLM_OK:
        rf_sleep_ms(BLIND_MS)
    if command.revents != 0:
        rf_bell_quiet(&loop.wake)


cdef inline void *loop_run(void *arg) noexcept nogil:
    """The thread's main function."""
    cdef Loop *loop = <Loop *>arg
    cdef int running = 0
    rf_thread_name("rangefetch-loop")
    while not loop.quitting or loop.files != NULL:
        look_at_clock(loop)
        obey(loop)
        fill_buckets(loop)
        if curl_multi_perform(loop.multi, &running) != CURLM_OK:
            end_all(loop)
        look_at_clock(loop)
        note_answers(loop)
        tell_reached(loop)
        reap(loop)
        loop.due_ms = 0
        end_transfers(loop)
        end_files(loop)
        if loop.next_slot_us != 0 and loop.next_slot_us <= loop.now_us:
            loop.next_slot_us = 0
            loop.has_room = True
        if loop.has_room:
            use_room(loop)
        if loop.now_ms - loop.ticked_ms >= tick_ms(loop):
            tick(loop)
        if RF_CHECKED:
            check_loop(loop)
        if loop.posted:
            loop.posted = False
            rf_bell_ring(loop.bell)
        if not loop.quitting or loop.files != NULL:
            loop_sleep(loop)
    loop_end(loop)
    rf_bell_ring(loop.bell)
    return NULL
