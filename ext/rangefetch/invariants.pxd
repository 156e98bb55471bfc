"""Invariants that hold between two rounds of a loop; checked in debug builds (``make debug``)."""

from libc.stdint cimport int32_t, int64_t

from rangefetch.blocks cimport BLOCK_CLAIMED, BLOCK_DONE, BLOCK_MISSING, BlockMap, block_end
from rangefetch.checks cimport rf_check
from rangefetch.transfer cimport FileCore, Lane, Loop

cdef enum:
    MOST_CHECKED_BLOCKS = 4096  # checking larger maps takes too long


cdef inline void check_blocks(BlockMap *blocks) noexcept nogil:
    """Check that the counters of a map match its blocks."""
    cdef int64_t bytes_done = 0
    cdef int64_t missing = 0
    cdef int64_t size
    cdef int32_t done = 0
    cdef int32_t i
    for i in range(blocks.count):
        size = block_end(blocks, i) - i * blocks.block_size
        rf_check(blocks.partial[i] <= size, "a block has no more written bytes than its size")
        if blocks.state[i] == BLOCK_DONE:
            done += 1
            bytes_done += size
            continue
        bytes_done += blocks.partial[i]
        if blocks.state[i] == BLOCK_MISSING:
            missing += size - blocks.partial[i]
            rf_check(i >= blocks.hint, "no block before the hint is missing")
        rf_check(i >= blocks.frontier, "all blocks before the frontier are done")
    rf_check(done == blocks.done, "the number of done blocks is right")
    rf_check(bytes_done == blocks.bytes_done, "the number of done bytes is right")
    rf_check(missing == blocks.unclaimed, "the number of unclaimed bytes is right")
    rf_check(
        blocks.frontier >= blocks.count or blocks.state[blocks.frontier] != BLOCK_DONE,
        "the block at the frontier is not done"
    )


cdef inline int writers(Loop *loop, FileCore *file, int64_t block) noexcept nogil:
    """How many lanes will write into a block. Hedging lanes do not count: they write only once they have everything."""
    cdef Lane *lane = loop.lanes
    cdef int count = 0
    while lane != NULL:
        if (
            lane.file == file and lane.hedge.octets == NULL and lane.position < lane.claim_end
            and lane.position // file.blocks.block_size <= block
            and block * file.blocks.block_size < lane.claim_end
        ):
            count += 1
        lane = lane.next
    return count


cdef inline void check_file(Loop *loop, FileCore *file) noexcept nogil:
    """Check that a claimed block has one writer, possibly on another loop, that any other block has none, and that the
    file's busy lanes are counted correctly."""
    cdef Lane *lane = loop.lanes
    cdef int busy = 0
    cdef bint lent
    cdef int64_t i
    while lane != NULL:
        busy += lane.file == file
        rf_check(lane.hedge.rival == NULL or lane.hedge.rival.hedge.rival == lane, "two rivals name each other")
        rf_check(lane.buffered >= 0, "the number of buffered bytes is not negative")
        lane = lane.next
    rf_check(busy == file.lanes_busy, "the number of busy lanes of the file is right")
    if not file.mapped or file.blocks.count > MOST_CHECKED_BLOCKS:
        return
    check_blocks(&file.blocks)
    for i in range(file.blocks.count):
        lent = file.spread.holder != NULL and file.spread.holder[i] != 0
        rf_check(
            writers(loop, file, i) + (lent and file.blocks.state[i] == BLOCK_CLAIMED)
            == (file.blocks.state[i] == BLOCK_CLAIMED)
            # In a guest's map, blocks that are not lent to it are claimed but have no writer here.
            or (file.home != file and file.blocks.state[i] == BLOCK_CLAIMED and writers(loop, file, i) == 0),
            "a block that is claimed has one writer, and any other has none"
        )
        rf_check(not lent or file.blocks.state[i] != BLOCK_MISSING, "a block lent to a guest is not missing here")


cdef inline void check_loop(Loop *loop) noexcept nogil:
    """Check all files of a loop, and its own counters."""
    cdef FileCore *file = loop.files
    cdef Lane *lane = loop.lanes
    cdef int paused = 0
    cdef int count = 0
    while lane != NULL:
        paused += lane.paused
        count += 1
        rf_check(lane.file != NULL or lane.source == NULL or not lane.paused, "an idle lane is not paused")
        lane = lane.next
    rf_check(paused == loop.lanes_paused, "the number of paused lanes is right")
    rf_check(count == loop.lane_count, "the number of lanes is right")
    while file != NULL:
        check_file(loop, file)
        file = file.next
