"""Chooses which source a lane asks, and for which range.

Ranges are claimed in file order, because hashing and streaming follow the contiguous frontier. When nothing is left to
claim, lanes help each other (``tail.pxd``); ``growth.pxd`` decides how many lanes there are.
"""

from libc.stdint cimport int32_t, int64_t

from rangefetch.blocks cimport MOST_FAILURES, blocks_claim
from rangefetch.bucket cimport bucket_is_limited
from rangefetch.host cimport (
    host_is_full,
    host_is_resting,
    share_admits,
    share_may_ask,
    share_give_back,
    source_share,
)
from rangefetch.lane cimport lane_rest, lane_send, lane_take
from rangefetch.pace cimport slot_is_due, waits_for_slot
from rangefetch.platform cimport rf_count, rf_load, rf_peek
from rangefetch.service cimport has_room, may_help, part_of
from rangefetch.transfer cimport (
    HELD,
    SMALL,
    WAIT_HOST,
    WAIT_LIMIT,
    WAIT_LOOP,
    WAIT_NOTHING,
    WAIT_PYTHON,
    WAIT_RATE,
    WAIT_READER,
    WAIT_REST,
    WAIT_TRANSFER,
    FileCore,
    Guest,
    HostShare,
    Lane,
    Loop,
    Source,
    Wait,
)

cdef enum:
    FIRST_CLAIM_BYTES = 8 << 20      # before a lane's rate is known
    LARGEST_CLAIM_BYTES = 64 << 20
    CLAIM_SECONDS = 3                # how long a range should last
    REQUESTS_WORTH = 4               # ... and near the end of the file at least, in round trips
    WINDOW_SHARE = 4                 # a range takes at most this fraction of the window
    FAILURES_PASSED = 3              # how often a block must fail before those behind it come first
    DISTANT_MS = 50                  # with requests this slow, their cost matters more than that lanes end together


# ---- Sources -----------------------------------------------------------------------------------------------------

cdef inline bint host_admits(Loop *loop, FileCore *file, Source *source) noexcept nogil:
    """Whether a transfer may begin at the source's host; if so, a connection is granted for a lane that is sent now."""
    cdef HostShare *share = source_share(loop, source)
    cdef int64_t most = rf_load(&file.home.host_lanes_most)
    cdef bint insists = file.insists and file.lanes_busy == 0
    # The slot is taken only if there is a connection for it: an unused slot is lost.
    return (
        share_may_ask(loop, share, most, insists, not file.answered) and slot_is_due(loop, file, source)
        and share_admits(loop, share, most, insists, not file.answered)
    )


cdef inline Source *best_source(Loop *loop, FileCore *file, bint helping) noexcept nogil:
    """The source that a lane should ask: one that was not tried yet, else the one with the best rate per lane.

    Lanes that share a source share its rate, so faster sources attract more lanes. Returns NULL if no source may be
    asked now, or none for help. The source's host has granted a connection; if the lane is not sent, ``lane_stays``
    must give it back.
    """
    cdef Source *best = NULL
    cdef Source *each
    cdef int64_t most = rf_load(&file.home.host_lanes_most)
    cdef bint insists = file.insists and file.lanes_busy == 0
    cdef int i
    for i in range(file.source_count):
        each = file.sources[i]
        if each.banned or each.rested_ms > loop.now_ms or not has_room(loop, file, each):
            continue
        if helping and not may_help(loop, each):
            continue
        if (
            not share_may_ask(loop, source_share(loop, each), most, insists, not file.answered)
            or not slot_is_due(loop, file, each)
        ):
            continue
        if best == NULL or is_better(each, best):
            best = each
    return best if best != NULL and host_admits(loop, file, best) else NULL


cdef inline bint lane_stays(Lane *lane) noexcept nogil:
    """Give back what the source's host has granted, since the lane is not sent after all. Returns False."""
    if lane.source.share != NULL:
        share_give_back(lane.source.share)
    return False


cdef inline bint is_better(const Source *one, const Source *other) noexcept nogil:
    """Whether a source promises more than another that precedes it in the user's order."""
    if one.bytes_per_s == 0 and other.bytes_per_s == 0:
        return one.lanes < other.lanes
    if one.bytes_per_s == 0 or other.bytes_per_s == 0:
        return one.bytes_per_s == 0 and one.lanes == 0
    return one.bytes_per_s > other.bytes_per_s


# ---- Claims ------------------------------------------------------------------------------------------------------

cdef inline int32_t lanes_at_once(FileCore *file) noexcept nogil:
    """How many lanes the file may have here now, those that are held included. Callable from any thread."""
    cdef int32_t most = <int32_t>part_of(file, rf_load(&file.home.lanes_most))
    if not rf_load(&file.answered):
        # The first response says what the file is; until then a second request would be a guess.
        return 1
    return min(most, <int32_t>rf_peek(&file.growth.aim))


cdef inline int32_t lanes_allowed(FileCore *file) noexcept nogil:
    """How many more lanes may work for the file now."""
    return lanes_at_once(file) - file.lanes_busy - file.lanes_held


cdef inline int64_t claim_bytes(FileCore *file, int64_t bytes_per_s) noexcept nogil:
    """How many bytes the next range of a lane should have: some seconds at its own rate, fewer when the end is near.

    Near the end each lane takes half of its share of what is left, so that all finish together. But every request costs
    time, and with a distant server most of a short range's time: there, new lanes divide all that is left.
    """
    cdef int64_t size = FIRST_CLAIM_BYTES
    cdef int64_t share = file.blocks.unclaimed // (2 * (file.lanes_busy + 1))
    cdef int64_t worth = bytes_per_s * file.memory.request_ms // 1000 * REQUESTS_WORTH
    cdef int32_t idle = lanes_allowed(file)
    if file.memory.request_ms >= DISTANT_MS:
        if bytes_per_s == 0 and idle > 0:
            worth = file.blocks.unclaimed // idle
        if share < worth:
            share = worth
    if bytes_per_s * CLAIM_SECONDS > size:
        size = bytes_per_s * CLAIM_SECONDS
    if size > LARGEST_CLAIM_BYTES:
        size = LARGEST_CLAIM_BYTES
    if file.window_bytes > 0 and size > file.window_bytes // WINDOW_SHARE:
        # One stalled lane must not hold up the whole window.
        size = file.window_bytes // WINDOW_SHARE
    return share if share < size else size


cdef inline int64_t horizon_of(FileCore *file) noexcept nogil:
    """The byte before which ranges must begin: one window ahead of the reader, or else of the contiguous frontier."""
    cdef int64_t reader_bytes = rf_load(&file.reader_bytes)
    if file.window_bytes == 0:
        return file.size
    if reader_bytes >= 0:
        return reader_bytes + file.window_bytes
    return file.blocks.frontier * file.blocks.block_size + file.window_bytes


cdef inline int failures_passed(FileCore *file) noexcept nogil:
    """How many failures put a block behind all others.

    While a lane is held, one failure is enough: the retry is that lane's. Nothing waits for a block that cannot be
    fetched, unless somebody reads in order.
    """
    if file.lanes_held > 0:
        return 1
    return <int>FAILURES_PASSED if file.window_bytes == 0 else <int>(MOST_FAILURES + 1)


cdef inline bint may_try_again(const FileCore *file) noexcept nogil:
    """Whether blocks that failed may be requested again: no lane is held, or Python has allowed a retry.

    When any idle lane could retry at once, no backoff was kept, and a range that cannot be fetched held up the end many
    times over, since there was always another lane that might bring it.
    """
    return file.lanes_held == 0 or file.retries > 0


cdef inline void note_retry(FileCore *file, int64_t start) noexcept nogil:
    """Update the count of retries that Python has allowed: the block with this byte was claimed."""
    if file.lanes_held == 0:
        file.retries = 0
    elif file.retries > 0 and file.blocks.failed[start // file.blocks.block_size] > 0:
        file.retries -= 1


cdef inline int64_t first_range_bytes(const FileCore *file) noexcept nogil:
    """How many bytes the first request asks for.

    If there is a file of that name, which may be the same, it asks for one byte more than that file has: if the remote
    file is larger, no more than that is sent in vain.
    """
    if file.small.stage == SMALL and 0 <= file.small.there_bytes < file.first_bytes:
        return file.small.there_bytes + 1
    return file.first_bytes


cdef inline bint lane_claim(Loop *loop, FileCore *file, Lane *lane) noexcept nogil:
    """Give the lane the next range to fetch. False: there is nothing."""
    lane.is_first = not file.answered
    lane.ranged = file.ranged
    lane.helps = False
    lane.source = best_source(loop, file, False)
    if lane.source == NULL:
        return False
    lane.redirects = lane.source.redirects
    if file.mapped:
        if not blocks_claim(
            &file.blocks, file.first_bytes if lane.is_first else claim_bytes(file, lane.bytes_per_s),
            horizon_of(file), failures_passed(file), may_try_again(file), &lane.start, &lane.claim_end,
        ):
            return lane_stays(lane)
        note_retry(file, lane.start)
        lane.end = lane.claim_end
        if lane.is_first and lane.end > lane.start + file.first_bytes:
            lane.end = lane.start + file.first_bytes
    elif lane.is_first:
        lane.start = 0
        lane.end = first_range_bytes(file) if file.ranged else -1
        lane.claim_end = 0
    else:
        return lane_stays(lane)
    lane.position = lane.start
    return True


cdef inline bint is_limited(Loop *loop, FileCore *file) noexcept nogil:
    """Whether there is a limit, under which no lane can be called slow."""
    return bucket_is_limited(loop.bucket) or bucket_is_limited(file.bucket)


cdef inline bint wants_lane(FileCore *file) noexcept nogil:
    """Whether the file should have one more lane."""
    if file.removing or file.small.stage == HELD or lanes_allowed(file) <= 0:
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
    cdef Source *each
    cdef int i
    for i in range(file.source_count):
        each = file.sources[i]
        if not each.banned and (
            each.rested_ms > loop.now_ms or host_is_resting(loop, each.share) or host_is_full(loop, each.share)
        ):
            return True
    return False


cdef inline int64_t resting_host(Loop *loop, const FileCore *file) noexcept nogil:
    """The number of the host of one of the file's sources that wants to be left alone; 0: there is none."""
    cdef const Source *each
    cdef int i
    for i in range(file.source_count):
        each = file.sources[i]
        if not each.banned and (host_is_resting(loop, each.share) or host_is_full(loop, each.share)):
            return each.share.host.number
    return 0


cdef inline bint waits_for_host(const FileCore *file) noexcept nogil:
    """Whether a source of the file waits for a connection, since its host has as many as it may have."""
    cdef int i
    for i in range(file.source_count):
        if not file.sources[i].banned and file.sources[i].share != NULL and file.sources[i].share.waits:
            return True
    return False


cdef inline Wait wait_of(Loop *loop, FileCore *file) noexcept nogil:
    """What the file waits for; called once a tick, after ``feed``.

    It may be waiting for nothing: there is something to fetch, no lane fetches it, and nothing due will change that.
    """
    if file.small.stage == HELD:
        return WAIT_PYTHON
    if file.lanes_busy > 0:
        if file.lanes_paused_seen == 0:
            return WAIT_TRANSFER
        return WAIT_LIMIT if is_limited(loop, file) else WAIT_READER
    if file.lanes_held > 0 or (file.probing and file.answered):
        return WAIT_PYTHON
    if file.spread.guests != NULL and file.blocks.unclaimed == 0:
        return wait_of_guests(file)
    if is_resting(loop, file):
        return WAIT_REST
    if waits_for_slot(loop, file):
        return WAIT_RATE
    if waits_for_host(file):
        return WAIT_HOST
    if (
        file.mapped and rf_load(&file.reader_bytes) >= 0
        and file.blocks.hint * file.blocks.block_size >= horizon_of(file)
    ):
        return WAIT_READER
    return wait_of_guests(file)


cdef inline Wait wait_of_guests(const FileCore *file) noexcept nogil:
    """What the file's guests wait for, which are fetching what is left, or are about to return it."""
    cdef const Guest *guest = file.spread.guests
    cdef int64_t found
    cdef int64_t wait = WAIT_NOTHING
    while guest != NULL:
        found = rf_load(&guest.file.waits_for)
        if rf_peek(&guest.file.lanes_busy) > 0 and found in (WAIT_NOTHING, WAIT_LOOP):
            found = WAIT_TRANSFER
        # A guest with nothing to do was told to leave, or is asking for more; its loop is about to say so.
        if wait == WAIT_NOTHING or wait == WAIT_LOOP or found == WAIT_TRANSFER:
            wait = found if found != WAIT_NOTHING else WAIT_LOOP
        guest = guest.next
    return <Wait>wait


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
