"""Speeds up the end of a file, so that no file waits for one slow connection.

An idle lane helps the slowest one. It takes the later part of that lane's range (a steal) or, if that is less than a
block, fetches the rest a second time into a buffer of its own, and the first to have it all commits it (a hedge). A
lane far slower than the others is replaced, and helpers that bring nothing are given up.
"""

from libc.stdint cimport int64_t

from rangefetch.checks cimport malloc
from rangefetch.claims cimport best_source, feed, is_limited, lane_stays, lanes_allowed
from rangefetch.lane cimport lane_dismiss, lane_received_end, lane_rest, lane_send, lane_take
from rangefetch.platform cimport rf_count
from rangefetch.service cimport is_fruitless, is_unserved, note_refusal, note_unserved, request_cost_ms
from rangefetch.transfer cimport ACCEPTED, UNCHECKED, FileCore, Lane, Loop, Source

cdef enum:
    LARGEST_HEDGE_BYTES = 4 << 20
    UNKNOWN_BYTES_PER_S = 1 << 20    # the rate assumed for a lane if none is known
    RATE_AFTER_MS = 500              # a lane that has received nothing for this long counts as slow, not as new
    SLOW_FACTOR = 8                  # slower than the others by this factor: replaced
    SLOW_AFTER_MS = 1500
    LONGEST_AFTER_MS = 60_000        # longest pause between replacements that do not help
    CRAWL_MS = 2000                  # bytes for which no lane will be free sooner get a new lane, however few they are


cdef inline bint may_be_waiting(Loop *loop, const Lane *lane) noexcept nogil:
    """Whether the lane has waited for its response for less than twice as long as the file's requests usually take."""
    return lane.received_bytes == 0 and loop.now_ms - lane.started_ms < 2 * lane.file.memory.request_ms


cdef inline int64_t left_ms(Loop *loop, const Lane *lane) noexcept nogil:
    """How long the lane will need for the rest of its range; -1: it is too new to tell."""
    cdef int64_t left = lane.end - lane_received_end(lane)
    if lane.bytes_per_s > 0:
        return left * 1000 // lane.bytes_per_s
    if loop.now_ms - lane.moved_ms >= RATE_AFTER_MS and not may_be_waiting(loop, lane):
        return left * 1000
    return -1


cdef inline int64_t usual_bytes_per_s(Loop *loop, FileCore *file, const Lane *but) noexcept nogil:
    """The average rate of the file's lanes, leaving out one of them; 0: not known."""
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
    """The lane that would end last: the one with the most time left, if it has no rival yet."""
    cdef Lane *lane = loop.lanes
    cdef Lane *slowest = NULL
    cdef int64_t most_ms = 0
    while lane != NULL:
        if (
            lane.file == file and lane.hedge.rival == NULL and lane.hedge.octets == NULL and lane.end >= 0
            and left_ms(loop, lane) > most_ms and (lane.check == ACCEPTED or lane.check == UNCHECKED)
        ):
            slowest = lane
            most_ms = left_ms(loop, lane)
        lane = lane.next
    return slowest


cdef inline bint steal(Loop *loop, FileCore *file, Lane *victim, Lane *thief, int64_t thief_rate) noexcept nogil:
    """Take the later part of the victim's range, split by their rates, at a block border. False: it would not pay.

    The victim keeps the block that it is in, since its response may arrive at any moment. When lanes that waited could
    lose everything, one after the other, servers that respond late were asked for the same bytes forever.
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
    rf_count(&file.counters.steals, 1)
    return True


cdef inline bint hedge(Loop *loop, FileCore *file, Lane *slow, Lane *fast, int64_t fast_rate) noexcept nogil:
    """Fetch the rest of the slow lane's range a second time. False: it would not pay."""
    cdef int64_t at = lane_received_end(slow)
    cdef int64_t left = slow.end - at
    if left <= 0 or (left > LARGEST_HEDGE_BYTES and left > file.blocks.block_size):
        return False
    if left_ms(loop, slow) <= 2 * (request_cost_ms(file) + left * 1000 // fast_rate):
        return False
    fast.hedge.octets = <char *>malloc(<size_t>left)
    if fast.hedge.octets == NULL:
        return False
    fast.hedge.size_bytes = left
    fast.is_first = False
    fast.ranged = True
    fast.redirects = 0
    # The hedge claims nothing: the bytes belong to the slow lane until one of the two has them all.
    fast.start = fast.position = fast.claim_end = at
    fast.end = slow.end
    fast.hedge.rival = slow
    slow.hedge.rival = fast
    rf_count(&file.counters.hedges, 1)
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
        # No rate is known. The slow lane's own would be too low: it falls while the lane stalls.
        rate = slowest.bytes_per_s if slowest.bytes_per_s > UNKNOWN_BYTES_PER_S else UNKNOWN_BYTES_PER_S
    if not steal(loop, file, slowest, lane, rate) and not hedge(loop, file, slowest, lane, rate):
        return lane_stays(lane)
    lane.helps = True
    lane.file = file
    rf_count(&file.lanes_busy, 1)
    lane_send(loop, lane)
    return True


cdef inline bint has_silent_helper(Loop *loop, FileCore *file) noexcept nogil:
    """Whether a lane that was sent to help still waits for its response."""
    cdef Lane *lane = loop.lanes
    while lane != NULL:
        if lane.file == file and lane.helps and lane.check == UNCHECKED:
            return True
        lane = lane.next
    return False


cdef inline void watch_tail(Loop *loop, FileCore *file) noexcept nogil:
    """While the last ranges are in flight, have idle lanes help; called once a tick.

    One at a time, since each may need another connection, and not every server answers one more.
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
    """Give up lanes that get no response while others do, and hedges that bring nothing."""
    cdef Lane *lane = loop.lanes
    cdef Source *source
    cdef int64_t since_ms
    while lane != NULL:
        if lane.file == file and not lane.is_first:
            source, since_ms = lane.source, lane.started_ms
            if lane.hedge.octets != NULL:
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


cdef inline void note_replaced(Loop *loop, FileCore *file, const Lane *lane) noexcept nogil:
    """If the lane began after the last replacement, a new connection was no better: wait twice as long before the next.

    A server that sends to each connection in bursts makes every new lane look slow.
    """
    if loop.now_ms - file.replaced_ms > 2 * file.replace_after_ms:
        file.replace_after_ms = SLOW_AFTER_MS
    elif lane.started_ms >= file.replaced_ms:
        file.replace_after_ms = min(2 * file.replace_after_ms, <int64_t>LONGEST_AFTER_MS)
    file.replaced_ms = loop.now_ms
    rf_count(&file.counters.replacements, 1)


cdef inline void replace_slow(Loop *loop, FileCore *file) noexcept nogil:
    """Give up one lane that is far slower than the others; a new connection may be faster."""
    cdef Lane *lane = loop.lanes
    cdef int64_t usual, anew_ms
    if file.blocks.unclaimed == 0 or is_limited(loop, file) or file.lanes_busy < 2:
        return
    if loop.now_ms - file.replaced_ms < file.replace_after_ms:
        return
    while lane != NULL:
        if (
            lane.file == file and lane.end >= 0 and not lane.is_first and lane.check != UNCHECKED
            and loop.now_ms - lane.started_ms >= SLOW_AFTER_MS
        ):
            usual = usual_bytes_per_s(loop, file, lane)
            anew_ms = request_cost_ms(file)
            if usual > 0:
                anew_ms += (lane.end - lane_received_end(lane)) * 1000 // usual
            if usual > SLOW_FACTOR * lane.bytes_per_s and left_ms(loop, lane) > 4 * anew_ms:
                note_replaced(loop, file, lane)
                lane_dismiss(loop, lane)
                feed(loop, file)
                return
        lane = lane.next
