"""What the lanes do: which range is next, how many lanes there should be, and how a file's last bytes come.

Ranges are claimed in file order, because hashing and streaming live on the contiguous frontier. When nothing is left
to claim, an idle lane helps the slowest one: it takes the later part of its range (a steal), or, where that is less
than a block, fetches the rest a second time into a buffer of its own, and whoever has it whole first commits it (a
hedge). So no file waits for one slow connection.
"""

from libc.stdint cimport int32_t, int64_t

from rangefetch.blocks cimport MOST_FAILURES, blocks_claim
from rangefetch.bucket cimport bucket_is_limited
from rangefetch.checks cimport malloc
from rangefetch.lane cimport lane_dismiss, lane_received_end, lane_rest, lane_send, lane_take
from rangefetch.platform cimport rf_count, rf_load, rf_note
from rangefetch.service cimport (
    has_room,
    is_fruitless,
    is_unserved,
    may_help,
    note_refusal,
    note_unserved,
    request_cost_ms,
)
from rangefetch.transfer cimport (
    ACCEPTED,
    UNCHECKED,
    WAIT_LIMIT,
    WAIT_NOTHING,
    WAIT_PYTHON,
    WAIT_READER,
    WAIT_REST,
    WAIT_TRANSFER,
    FileCore,
    Lane,
    Loop,
    Source,
    Wait,
)

cdef enum:
    FIRST_CLAIM_BYTES = 8 << 20      # before a lane's rate is known
    FAILURES_PASSED = 3              # before a single lane goes on with what lies behind
    LARGEST_CLAIM_BYTES = 64 << 20
    WINDOW_SHARE = 4                 # a range takes no more than such a part of the window
    CLAIM_SECONDS = 3                # how long a range should last
    REQUESTS_WORTH = 4               # ... and at least, in round trips
    FIRST_LANES = 4                  # what a file begins with when its server answers ranges
    DISTANT_LANES = 16               # ... and when the first answer took so long that growing by steps costs seconds
    DISTANT_MS = 50
    GROWTH_PAYS_PERCENT = 120        # doubled lanes should bring at least so much of the goodput before
    GROWTH_PAYS_FULLY_PERCENT = 170
    STILL_SHARE = 4                  # ... or one lane in so many stands still
    PATIENCE_MS = 750                # for growth to pay
    LOOK_AGAIN_MS = 10_000           # after growth that did not pay
    BUSY_PERCENT = 85                # of a processor: this thread has no room for more
    LARGEST_HEDGE_BYTES = 4 << 20
    UNKNOWN_BYTES_PER_S = 1 << 20    # what a lane is taken to bring where none has told
    RATE_AFTER_MS = 500              # a lane that has brought nothing for so long counts as slow, not as new
    SLOW_FACTOR = 8                  # slower than its fellows by so much: replaced
    SLOW_AFTER_MS = 1500
    CRAWL_MS = 2000                  # bytes that nobody will be free for sooner get a lane, however few they are


# ---- Sources -----------------------------------------------------------------------------------------------------

cdef inline Source *best_source(Loop *loop, FileCore *file, bint helping) noexcept nogil:
    """The source that a lane should ask: one that was not tried yet, else the one that gives its lanes the most.

    Lanes that share a source share its rate, so the faster ones get more of them by themselves. NULL: none may be
    asked now, or not for help.
    """
    cdef Source *best = NULL
    cdef Source *each
    cdef int i
    for i in range(file.source_count):
        each = file.sources[i]
        if each.banned or each.rested_ms > loop.now_ms or not has_room(loop, file, each):
            continue
        if helping and not may_help(loop, each):
            continue
        if best == NULL or is_better(each, best):
            best = each
    return best


cdef inline bint is_better(const Source *one, const Source *other) noexcept nogil:
    """Whether one source promises more than another that comes before it in the user's order."""
    if one.bytes_per_s == 0 and other.bytes_per_s == 0:
        return one.lanes < other.lanes
    if one.bytes_per_s == 0 or other.bytes_per_s == 0:
        return one.bytes_per_s == 0 and one.lanes == 0
    return one.bytes_per_s > other.bytes_per_s


# ---- Claims ------------------------------------------------------------------------------------------------------

cdef inline int32_t lanes_allowed(FileCore *file) noexcept nogil:
    """How many lanes may work for the file now."""
    cdef int32_t most = <int32_t>rf_load(&file.lanes_most)
    if not file.answered:
        # What the file is, one answer tells; until then a second request would be a guess.
        most = 1
    elif file.lanes_aim < most:
        most = file.lanes_aim
    return most - file.lanes_busy - file.lanes_held


cdef inline int64_t claim_bytes(FileCore *file, int64_t bytes_per_s) noexcept nogil:
    """How long the next range of a lane should be: seconds at its own rate, shorter when the end is near.

    Near the end each takes half of its share of what is left, so that they come to it together. A request has its
    price, though, and far away that is most of a short range: there, lanes that begin divide what there is.
    """
    cdef int64_t size = FIRST_CLAIM_BYTES
    cdef int64_t share = file.blocks.unclaimed // (2 * (file.lanes_busy + 1))
    cdef int64_t worth = bytes_per_s * file.request_ms // 1000 * REQUESTS_WORTH
    cdef int32_t idle = lanes_allowed(file)
    if file.request_ms >= DISTANT_MS:
        if bytes_per_s == 0 and idle > 0:
            worth = file.blocks.unclaimed // idle
        if share < worth:
            share = worth
    if bytes_per_s * CLAIM_SECONDS > size:
        size = bytes_per_s * CLAIM_SECONDS
    if size > LARGEST_CLAIM_BYTES:
        size = LARGEST_CLAIM_BYTES
    if file.window_bytes > 0 and size > file.window_bytes // WINDOW_SHARE:
        # One lane that stands still must not hold the whole window.
        size = file.window_bytes // WINDOW_SHARE
    return share if share < size else size


cdef inline int64_t horizon_of(FileCore *file) noexcept nogil:
    """Before which byte ranges must begin: a window ahead of the reader, else of the contiguous frontier."""
    cdef int64_t reader_bytes = rf_load(&file.reader_bytes)
    if file.window_bytes == 0:
        return file.size
    if reader_bytes >= 0:
        return reader_bytes + file.window_bytes
    return file.blocks.frontier * file.blocks.block_size + file.window_bytes


cdef inline int failures_passed(FileCore *file) noexcept nogil:
    """After how many failures a block comes last. One that is held has failed, and that is its to try again; what does
    not come at all is not waited for, unless somebody reads in order.
    """
    if file.lanes_held > 0:
        return 1
    return <int>FAILURES_PASSED if file.window_bytes == 0 else <int>(MOST_FAILURES + 1)


cdef inline bint lane_claim(Loop *loop, FileCore *file, Lane *lane) noexcept nogil:
    """Give the lane the next thing to fetch. False: there is nothing."""
    lane.is_first = not file.answered
    lane.ranged = file.ranged
    lane.redirects = 0
    lane.helps = False
    lane.source = best_source(loop, file, False)
    if lane.source == NULL:
        return False
    if file.mapped:
        if not blocks_claim(
            &file.blocks, file.first_bytes if lane.is_first else claim_bytes(file, lane.bytes_per_s),
            horizon_of(file), failures_passed(file), &lane.start, &lane.claim_end,
        ):
            return False
        lane.end = lane.claim_end
        if lane.is_first and lane.end > lane.start + file.first_bytes:
            lane.end = lane.start + file.first_bytes
    elif lane.is_first:
        lane.start = 0
        lane.end = file.first_bytes if file.ranged else -1
        lane.claim_end = 0
    else:
        return False
    lane.position = lane.start
    return True


cdef inline bint is_limited(Loop *loop, FileCore *file) noexcept nogil:
    """Under a limit no lane is slow by itself."""
    return bucket_is_limited(loop.bucket) or bucket_is_limited(&file.bucket)


cdef inline bint wants_lane(FileCore *file) noexcept nogil:
    """Whether the file is better served by one lane more."""
    if file.removing or lanes_allowed(file) <= 0:
        return False
    if not file.answered:
        return True
    if file.probing:
        return False
    if not file.splits or not file.mapped or file.blocks.unclaimed == 0:
        return False
    return file.lanes_busy == 0 or file.blocks.unclaimed >= file.least_bytes or file.crawls


cdef inline bint is_resting(Loop *loop, const FileCore *file) noexcept nogil:
    """Whether there is a source that may be asked again later."""
    cdef int i
    for i in range(file.source_count):
        if not file.sources[i].banned and file.sources[i].rested_ms > loop.now_ms:
            return True
    return False


cdef inline Wait wait_of(Loop *loop, FileCore *file) noexcept nogil:
    """What the file waits for; looked at once a tick, after ``feed``.

    Nothing is an answer, too: there is something to fetch, nobody is at it, and nothing is due that would change that.
    """
    if file.lanes_busy > 0:
        if file.lanes_paused_seen == 0:
            return WAIT_TRANSFER
        return WAIT_LIMIT if is_limited(loop, file) else WAIT_READER
    if file.lanes_held > 0 or (file.probing and file.answered):
        return WAIT_PYTHON
    if is_resting(loop, file):
        return WAIT_REST
    if (
        file.mapped and rf_load(&file.reader_bytes) >= 0
        and file.blocks.hint * file.blocks.block_size >= horizon_of(file)
    ):
        return WAIT_READER
    return WAIT_NOTHING


cdef inline void feed(Loop *loop, FileCore *file) noexcept nogil:
    """Open lanes for the file while it wants them."""
    cdef Lane *lane
    while wants_lane(file):
        lane = lane_take(loop)
        if lane == NULL:
            return
        lane.bytes_per_s = 0
        if not lane_claim(loop, file, lane):
            lane_rest(loop, lane)
            return
        lane.file = file
        rf_count(&file.lanes_busy, 1)
        file.crawls = False
        lane_send(loop, lane)


# ---- The tail ----------------------------------------------------------------------------------------------------

cdef inline bint may_be_waiting(Loop *loop, const Lane *lane) noexcept nogil:
    """Whether the lane has waited for its answer no longer than twice what answers take here."""
    return lane.received_bytes == 0 and loop.now_ms - lane.started_ms < 2 * lane.file.request_ms


cdef inline int64_t left_ms(Loop *loop, const Lane *lane) noexcept nogil:
    """How long a lane will need for the rest of its range; -1: it is too new to tell."""
    cdef int64_t left = lane.end - lane_received_end(lane)
    if lane.bytes_per_s > 0:
        return left * 1000 // lane.bytes_per_s
    if loop.now_ms - lane.moved_ms >= RATE_AFTER_MS and not may_be_waiting(loop, lane):
        return left * 1000
    return -1


cdef inline int64_t usual_bytes_per_s(Loop *loop, FileCore *file, const Lane *but) noexcept nogil:
    """What the file's lanes bring on average, without one of them; 0: not known."""
    cdef Lane *lane = loop.lanes
    cdef int64_t sum_ = 0
    cdef int64_t count = 0
    while lane != NULL:
        if lane.file == file and lane != but and lane.bytes_per_s > 0:
            sum_ += lane.bytes_per_s
            count += 1
        lane = lane.next
    return sum_ // count if count else 0


cdef inline Lane *slowest_lane(Loop *loop, FileCore *file) noexcept nogil:
    """The lane that the end of the file will wait for: the one with the most time left, without a rival yet."""
    cdef Lane *lane = loop.lanes
    cdef Lane *slowest = NULL
    cdef int64_t most_ms = 0
    while lane != NULL:
        if (
            lane.file == file and lane.rival == NULL and lane.hedge == NULL and lane.end >= 0
            and left_ms(loop, lane) > most_ms and (lane.verdict == ACCEPTED or lane.verdict == UNCHECKED)
        ):
            slowest = lane
            most_ms = left_ms(loop, lane)
        lane = lane.next
    return slowest


cdef inline bint steal(Loop *loop, FileCore *file, Lane *victim, Lane *thief, int64_t thief_rate) noexcept nogil:
    """Take the later part of the victim's range, split by rates, at a block border. False: it would not pay.

    The block in which the victim is stays its own, for its answer may come at any moment; where all was taken from
    those that waited, each in turn, servers that answer late were asked for the same bytes for ever.
    """
    cdef int64_t at = lane_received_end(victim)
    cdef int64_t left = victim.end - at
    cdef int64_t kept = <int64_t>(<double>left * <double>victim.bytes_per_s / <double>(victim.bytes_per_s + thief_rate))
    cdef int64_t border = ((at + kept) // file.blocks.block_size + 1) * file.blocks.block_size
    cdef int64_t then_ms = request_cost_ms(file) + (victim.end - border) * 1000 // thief_rate
    if border >= victim.end or border >= file.size:
        return False
    if victim.bytes_per_s > 0 and (border - at) * 1000 // victim.bytes_per_s > then_ms:
        then_ms = (border - at) * 1000 // victim.bytes_per_s
    if left_ms(loop, victim) - then_ms <= 2 * request_cost_ms(file):
        return False
    thief.is_first = False
    thief.ranged = True
    thief.redirects = 0
    thief.start = thief.position = border
    thief.end = thief.claim_end = victim.claim_end
    victim.end = victim.claim_end = border
    victim.cut = True
    rf_count(&file.steals, 1)
    return True


cdef inline bint hedge(Loop *loop, FileCore *file, Lane *slow, Lane *fast, int64_t fast_rate) noexcept nogil:
    """Fetch the rest of the slow lane's range a second time. False: it would not pay."""
    cdef int64_t at = lane_received_end(slow)
    cdef int64_t left = slow.end - at
    if left <= 0 or (left > LARGEST_HEDGE_BYTES and left > file.blocks.block_size):
        return False
    if left_ms(loop, slow) <= 2 * (request_cost_ms(file) + left * 1000 // fast_rate):
        return False
    fast.hedge = <char *>malloc(<size_t>left)
    if fast.hedge == NULL:
        return False
    fast.hedge_bytes = left
    fast.is_first = False
    fast.ranged = True
    fast.redirects = 0
    # It claims nothing: the bytes are the slow lane's until one of them has them all.
    fast.start = fast.position = fast.claim_end = at
    fast.end = slow.end
    fast.rival = slow
    slow.rival = fast
    rf_count(&file.hedges, 1)
    return True


cdef inline bint help_slowest(Loop *loop, FileCore *file, Lane *lane) noexcept nogil:
    """Have an idle lane help the slowest one. False: there is nothing to gain."""
    cdef Lane *slowest
    cdef int64_t rate
    if not file.splits or not file.mapped or file.blocks.unclaimed > 0 or is_limited(loop, file):
        return False
    slowest = slowest_lane(loop, file)
    if slowest == NULL:
        return False
    lane.source = best_source(loop, file, True)
    if lane.source == NULL:
        return False
    rate = lane.bytes_per_s
    if rate <= 0:
        rate = usual_bytes_per_s(loop, file, slowest)
    if rate <= 0:
        rate = lane.source.bytes_per_s
    if rate <= 0:
        # Nothing else is known. Its own rate would not do: it falls while the lane stands still.
        rate = slowest.bytes_per_s if slowest.bytes_per_s > UNKNOWN_BYTES_PER_S else UNKNOWN_BYTES_PER_S
    if not steal(loop, file, slowest, lane, rate) and not hedge(loop, file, slowest, lane, rate):
        return False
    lane.helps = True
    lane.file = file
    rf_count(&file.lanes_busy, 1)
    lane_send(loop, lane)
    return True


cdef inline bint has_silent_helper(Loop *loop, FileCore *file) noexcept nogil:
    """Whether a lane that was sent to help has not been answered yet."""
    cdef Lane *lane = loop.lanes
    while lane != NULL:
        if lane.file == file and lane.helps and lane.verdict == UNCHECKED:
            return True
        lane = lane.next
    return False


cdef inline void watch_tail(Loop *loop, FileCore *file) noexcept nogil:
    """From time to time: while the last ranges are in flight, lanes that went idle may help after all.

    One after the other, for it may take a connection more, which not every server answers.
    """
    cdef Lane *lane
    while (
        file.lanes_busy > 0 and file.blocks.unclaimed == 0 and lanes_allowed(file) > 0
        and not has_silent_helper(loop, file)
    ):
        lane = lane_take(loop)
        if lane == NULL:
            return
        lane.bytes_per_s = 0
        if not help_slowest(loop, file, lane):
            lane_rest(loop, lane)
            return


cdef inline void withdraw(Loop *loop, FileCore *file) noexcept nogil:
    """Give up lanes that nobody answers while others are answered, and help that brings nothing."""
    cdef Lane *lane = loop.lanes
    cdef Source *source
    cdef int64_t since_ms
    while lane != NULL:
        if lane.file == file and not lane.is_first:
            source, since_ms = lane.source, lane.started_ms
            if lane.hedge != NULL:
                if is_fruitless(loop, lane):
                    lane_dismiss(loop, lane)
                    note_refusal(loop, source, 0)
            elif is_unserved(loop, lane):
                lane_dismiss(loop, lane)
                note_unserved(loop, source, since_ms)
        lane = lane.next


cdef inline bint crawls(Loop *loop, FileCore *file) noexcept nogil:
    """Whether none of the file's lanes will be free soon."""
    cdef Lane *lane = loop.lanes
    if file.blocks.unclaimed == 0 or is_limited(loop, file):
        return False
    while lane != NULL:
        if lane.file == file and left_ms(loop, lane) < CRAWL_MS:
            return False
        lane = lane.next
    return True


cdef inline void replace_slow(Loop *loop, FileCore *file) noexcept nogil:
    """Give up one lane that is far slower than its fellows: another connection may have better luck."""
    cdef Lane *lane = loop.lanes
    cdef int64_t usual, anew_ms
    if file.blocks.unclaimed == 0 or is_limited(loop, file) or file.lanes_busy < 2:
        return
    if loop.now_ms - file.replaced_ms < SLOW_AFTER_MS:
        return
    while lane != NULL:
        if (
            lane.file == file and lane.end >= 0 and not lane.is_first and lane.verdict != UNCHECKED
            and loop.now_ms - lane.started_ms >= SLOW_AFTER_MS
        ):
            usual = usual_bytes_per_s(loop, file, lane)
            anew_ms = request_cost_ms(file)
            if usual > 0:
                anew_ms += (lane.end - lane_received_end(lane)) * 1000 // usual
            if usual > SLOW_FACTOR * lane.bytes_per_s and left_ms(loop, lane) > 4 * anew_ms:
                file.replaced_ms = loop.now_ms
                rf_count(&file.replacements, 1)
                lane_dismiss(loop, lane)
                feed(loop, file)
                return
        lane = lane.next


# ---- How many lanes ------------------------------------------------------------------------------------------------

cdef inline bint growth_pays(FileCore *file) noexcept nogil:
    """Whether the lanes that were added last brought more, or there is plainly room for more.

    A server that paces each connection often does so in bursts; then lanes stand still for whole ticks while nothing
    is saturated, and goodput says little.
    """
    return (
        file.goodput * 100 >= file.goodput_before * GROWTH_PAYS_PERCENT
        or file.lanes_still * STILL_SHARE >= file.lanes_busy
    )


cdef inline void steer(Loop *loop, FileCore *file, int64_t elapsed_ms) noexcept nogil:
    """Double the lanes while that brings more, else go back to what was as good; look again after a while.

    Where doubling brought nearly double, nothing but each connection is the bound: four times as many are next.
    """
    cdef int32_t most = <int32_t>rf_load(&file.lanes_most)
    cdef int32_t factor = 2
    file.goodput = (file.blocks.bytes_done - file.goodput_bytes) * 1000 // elapsed_ms
    file.goodput_bytes = file.blocks.bytes_done
    if file.blocks.unclaimed == 0 or file.lanes_busy < file.lanes_aim or file.goodput == 0:
        # Lanes that have not come up yet, or the tail: nothing to be learnt.
        return
    if loop.now_ms - file.grown_ms < 2 * request_cost_ms(file):
        return
    if file.settled_ms != 0:
        if loop.now_ms - file.settled_ms < LOOK_AGAIN_MS:
            return
        rf_note(&file.settled_ms, 0)
    elif file.lanes_before < file.lanes_aim and not growth_pays(file):
        if loop.now_ms - file.grown_ms >= PATIENCE_MS:
            if file.goodput * 20 < file.goodput_before * 21:
                rf_note(&file.lanes_aim, file.lanes_before)
            file.lanes_before = file.lanes_aim
            rf_note(&file.settled_ms, loop.now_ms)
        return
    if file.lanes_aim >= most or loop.cpu_percent >= BUSY_PERCENT:
        # Where this thread is the limit, more lanes are more work and nothing else.
        return
    if file.lanes_before < file.lanes_aim and file.goodput * 100 >= file.goodput_before * GROWTH_PAYS_FULLY_PERCENT:
        factor = 4
    file.goodput_before = file.goodput
    file.lanes_before = file.lanes_aim
    rf_note(&file.lanes_aim, factor * file.lanes_aim if factor * file.lanes_aim < most else most)
    file.grown_ms = loop.now_ms
    feed(loop, file)
