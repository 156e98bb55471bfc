"""The block map of one file: which blocks are missing, claimed or done, and how far a block has been written.

Only the loop's thread changes it, so there are no locks; if several loops fetch a file, each has its own map (see
``lease.pxd``). Python may read ``state`` and ``partial`` at any time: a block is marked only after its bytes were
written, with a release store, so a reader that sees the mark finds the bytes in the file. The same holds for
``frontier``. ``bytes_done`` is a relaxed counter that implies nothing about other fields. All intervals are half-open,
``[start, end)``, in bytes.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from rangefetch.checks cimport calloc, free
from rangefetch.platform cimport rf_count, rf_load, rf_note, rf_store
from rangefetch.sizes cimport LARGEST_BLOCK_BYTES, LARGEST_FILE_BYTES

cdef enum:
    BLOCK_MISSING = 0
    BLOCK_CLAIMED = 1
    BLOCK_DONE = 2

cdef enum:
    SMALLEST_BLOCK_BYTES = 1 << 20
    MOST_BLOCKS = 65536
    MOST_SAVED_BLOCKS = 1 << 28    # of a saved state, whose blocks may be smaller

cdef enum:
    MOST_FAILURES = 255            # the counter stops here

cdef struct BlockMap:
    uint8_t *state       # owned: freed in blocks_free
    uint32_t *partial    # owned: freed in blocks_free; bytes written of an unfinished block, below 4 GiB
    uint8_t *failed      # owned: freed in blocks_free; transfers in a row that brought no byte of it
    uint8_t *source      # owned: freed in blocks_free; the highest number of a source that has sent some of it
    int64_t size         # of the file, in bytes
    int64_t block_size   # in bytes; the last block may be shorter
    int32_t count        # of blocks
    int32_t done         # blocks that are done
    int32_t frontier     # the first block that is not done
    int32_t hint         # no block before it is missing
    int64_t bytes_done   # bytes written, those of unfinished blocks included
    int64_t unclaimed    # bytes that are neither written nor claimed


cdef inline bint blocks_fit(int64_t size, int64_t block_size) noexcept nogil:
    """Whether there can be a map: the size and the block size are within bounds, and so is the number of blocks."""
    return (
        0 <= size <= LARGEST_FILE_BYTES and 1 <= block_size <= LARGEST_BLOCK_BYTES
        and (size + block_size - 1) // block_size <= MOST_SAVED_BLOCKS
    )


cdef inline int64_t block_size_for(int64_t size) noexcept nogil:
    """1 MiB, aria2's piece length, doubled until the file has at most 65,536 blocks; ``size`` is known to be sound."""
    cdef int64_t block_size = SMALLEST_BLOCK_BYTES
    while (size + block_size - 1) // block_size > MOST_BLOCKS:
        block_size *= 2
    return block_size


cdef inline int blocks_init(BlockMap *blocks, int64_t size, int64_t block_size) noexcept nogil:
    """Set up a map with all blocks missing. Returns -1 if out of memory, or if there can be no such map; else 0."""
    if not blocks_fit(size, block_size):
        return -1
    blocks.size = size
    blocks.block_size = block_size
    blocks.count = <int32_t>((size + block_size - 1) // block_size)
    blocks.done = blocks.frontier = blocks.hint = 0
    blocks.bytes_done = 0
    blocks.unclaimed = size
    # One more than needed, so that an empty file has a map too.
    blocks.state = <uint8_t *>calloc(<size_t>blocks.count + 1, sizeof(uint8_t))
    blocks.partial = <uint32_t *>calloc(<size_t>blocks.count + 1, sizeof(uint32_t))
    blocks.failed = <uint8_t *>calloc(<size_t>blocks.count + 1, sizeof(uint8_t))
    blocks.source = <uint8_t *>calloc(<size_t>blocks.count + 1, sizeof(uint8_t))
    if blocks.state == NULL or blocks.partial == NULL or blocks.failed == NULL or blocks.source == NULL:
        return -1
    return 0


cdef inline void blocks_free(BlockMap *blocks) noexcept nogil:
    free(blocks.state)
    free(blocks.partial)
    free(blocks.failed)
    free(blocks.source)
    blocks.state = NULL
    blocks.partial = NULL
    blocks.failed = NULL
    blocks.source = NULL


cdef inline int64_t block_end(BlockMap *blocks, int64_t index) noexcept nogil:
    cdef int64_t end = (index + 1) * blocks.block_size
    return end if end < blocks.size else blocks.size


cdef inline void blocks_recall(BlockMap *blocks, const uint8_t *done, const uint32_t *partial) noexcept nogil:
    """Load what an earlier run saved: complete blocks, and how much is there of the others."""
    cdef int32_t i
    cdef int64_t start
    for i in range(blocks.count):
        start = i * blocks.block_size
        if done[i] == BLOCK_DONE:
            rf_note(&blocks.state[i], BLOCK_DONE)
            blocks.done += 1
            rf_count(&blocks.bytes_done, block_end(blocks, i) - start)
        else:
            blocks.partial[i] = partial[i]
            rf_count(&blocks.bytes_done, partial[i])
    blocks.unclaimed = blocks.size - blocks.bytes_done
    while blocks.frontier < blocks.count and blocks.state[blocks.frontier] == BLOCK_DONE:
        blocks.frontier += 1
    blocks.hint = blocks.frontier


cdef inline bint blocks_claim(
    BlockMap *blocks, int64_t most_bytes, int64_t horizon_bytes, int failures, bint again, int64_t *start, int64_t *end
) noexcept nogil:
    """Claim the next run of missing blocks in file order: whole blocks, about ``most_bytes`` long.

    Only blocks that begin before ``horizon_bytes`` are considered. Blocks that have failed ``failures`` times are
    claimed last, and only with ``again``. Of a run of blocks that have failed, half is claimed, so that retries close
    in on the one that cannot be fetched. Returns False if there is nothing to claim.
    """
    cdef int64_t i, last, horizon, stop
    while blocks.hint < blocks.count and blocks.state[blocks.hint] != BLOCK_MISSING:
        blocks.hint += 1
    horizon = (horizon_bytes + blocks.block_size - 1) // blocks.block_size
    if horizon > blocks.count:
        horizon = blocks.count
    i = blocks.hint
    while i < horizon and (blocks.state[i] != BLOCK_MISSING or blocks.failed[i] >= failures):
        i += 1
    if i >= horizon and again:
        i = blocks.hint
    if i >= horizon:
        return False
    start[0] = i * blocks.block_size + blocks.partial[i]
    stop = horizon
    if blocks.failed[i] > 0:
        stop = i + 1
        while stop < horizon and blocks.state[stop] == BLOCK_MISSING and blocks.failed[stop] > 0:
            stop += 1
        stop = i + (stop - i) // 2
    last = i
    rf_note(&blocks.state[i], BLOCK_CLAIMED)
    # A partial block starts a range of its own: a range has no gaps, and the block's first bytes are already there.
    while (
        last + 1 < stop and blocks.state[last + 1] == BLOCK_MISSING and blocks.partial[last + 1] == 0
        and (blocks.failed[last + 1] > 0) == (blocks.failed[i] > 0)
        and block_end(blocks, last + 1) - start[0] <= most_bytes
    ):
        last += 1
        rf_note(&blocks.state[last], BLOCK_CLAIMED)
    end[0] = block_end(blocks, last)
    if i == blocks.hint:
        blocks.hint = <int32_t>(last + 1)
    blocks.unclaimed -= end[0] - start[0]
    return True


cdef inline void blocks_note_failure(BlockMap *blocks, int64_t start, int64_t end) noexcept nogil:
    """A transfer for ``[start, end)`` has brought no byte. Failed blocks right behind it no longer count as failed."""
    cdef int64_t i = start // blocks.block_size
    while i < blocks.count and (i * blocks.block_size < end or blocks.failed[i]):
        if i * blocks.block_size >= end:
            blocks.failed[i] = 0
        elif blocks.failed[i] < MOST_FAILURES:
            blocks.failed[i] = <uint8_t>(blocks.failed[i] + 1)
        i += 1


cdef inline int64_t blocks_claim_head(BlockMap *blocks, int64_t end) noexcept nogil:
    """Claim all blocks from byte 0 that begin before ``end``; returns the end of the last of them."""
    cdef int64_t i = 0
    cdef int64_t claimed_end
    while i < blocks.count and i * blocks.block_size < end:
        rf_note(&blocks.state[i], BLOCK_CLAIMED)
        i += 1
    claimed_end = block_end(blocks, i - 1) if i > 0 else 0
    blocks.hint = <int32_t>i
    blocks.unclaimed -= claimed_end
    return claimed_end


cdef inline void blocks_advance(BlockMap *blocks, int64_t start, int64_t end, int source) noexcept nogil:
    """Record that ``[start, end)``, which continues its first block, is in the file; ``source`` sent it."""
    cdef int64_t i = start // blocks.block_size
    cdef int64_t stop
    rf_count(&blocks.bytes_done, end - start)
    while start < end:
        stop = block_end(blocks, i)
        if blocks.source[i] < source:
            rf_note(&blocks.source[i], <uint8_t>source)
        if end < stop:
            rf_store(&blocks.partial[i], end - i * blocks.block_size)
            break
        rf_store(&blocks.state[i], BLOCK_DONE)
        blocks.done += 1
        start = stop
        i += 1
    blocks_advance_frontier(blocks)


cdef inline void blocks_give_back(BlockMap *blocks, int64_t start, int64_t end) noexcept nogil:
    """Mark ``[start, end)``, claimed but not fetched, as missing again."""
    cdef int64_t i = start // blocks.block_size
    if start >= end:
        return
    if i < blocks.hint:
        blocks.hint = <int32_t>i
    blocks.unclaimed += end - start
    while i * blocks.block_size < end:
        rf_note(&blocks.state[i], BLOCK_MISSING)
        i += 1


cdef inline void blocks_revoke(BlockMap *blocks, int64_t start, int64_t end) noexcept nogil:
    """Mark ``[start, end)``, written but not to be trusted, as missing again."""
    cdef int64_t i = start // blocks.block_size
    if start >= end:
        return
    rf_count(&blocks.bytes_done, -(end - start))
    blocks.unclaimed += end - start
    if i < blocks.frontier:
        rf_store(&blocks.frontier, i)
    if i < blocks.hint:
        blocks.hint = <int32_t>i
    while i * blocks.block_size < end:
        if blocks.state[i] == BLOCK_DONE:
            blocks.done -= 1
        rf_store(&blocks.partial[i], start - i * blocks.block_size if i * blocks.block_size < start else 0)
        rf_store(&blocks.state[i], BLOCK_MISSING)
        i += 1


cdef inline void blocks_claim_all(BlockMap *blocks) noexcept nogil:
    """Mark all blocks of a new map as claimed: they belong to others."""
    cdef int64_t i
    for i in range(blocks.count):
        rf_note(&blocks.state[i], BLOCK_CLAIMED)
    blocks.hint = blocks.count
    blocks.unclaimed = 0


cdef inline void blocks_borrow(BlockMap *blocks, int64_t start, int64_t end) noexcept nogil:
    """Mark ``[start, end)`` as missing here, to be fetched by this loop.

    Any bytes of its first block before ``start`` were fetched elsewhere and are in the file, whatever this map says.
    """
    cdef int64_t i = start // blocks.block_size
    cdef int64_t begun = start - i * blocks.block_size
    cdef int64_t at
    for at in range(i, (end + blocks.block_size - 1) // blocks.block_size):
        rf_count(&blocks.bytes_done, begun - <int64_t>blocks.partial[at])
        rf_store(&blocks.partial[at], <uint32_t>begun)
        rf_note(&blocks.source[at], 0)
        blocks.failed[at] = 0
        begun = 0
    blocks_give_back(blocks, start, end)


cdef inline int64_t blocks_mirror(BlockMap *blocks, BlockMap *other, int64_t i) noexcept nogil:
    """Copy the progress of a claimed block from another loop's map, which may be changing meanwhile.

    Returns how many of its bytes are missing.
    """
    cdef int64_t size = block_end(blocks, i) - i * blocks.block_size
    cdef int64_t before = size if blocks.state[i] == BLOCK_DONE else <int64_t>blocks.partial[i]
    # Both marks are stored after the bytes: `state` of a finished block, `partial` of an unfinished one.
    cdef bint done = rf_load(&other.state[i]) == BLOCK_DONE
    cdef int64_t now = size if done else <int64_t>rf_load(&other.partial[i])
    if now == before and done == (blocks.state[i] == BLOCK_DONE):
        return size - now
    rf_count(&blocks.bytes_done, now - before)
    if blocks.source[i] < rf_load(&other.source[i]):
        rf_note(&blocks.source[i], rf_load(&other.source[i]))
    if done:
        blocks.done += 1
        rf_store(&blocks.state[i], BLOCK_DONE)
        return 0
    rf_store(&blocks.partial[i], <uint32_t>now)
    if blocks.state[i] == BLOCK_DONE:
        # It was revoked: the server had sent more than it announced.
        blocks.done -= 1
        rf_store(&blocks.state[i], BLOCK_CLAIMED)
        if i < blocks.frontier:
            rf_store(&blocks.frontier, <int32_t>i)
    return size - now


cdef inline void blocks_advance_frontier(BlockMap *blocks) noexcept nogil:
    cdef int64_t i = blocks.frontier
    while i < blocks.count and blocks.state[i] == BLOCK_DONE:
        i += 1
    rf_store(&blocks.frontier, <int32_t>i)


cdef inline int64_t blocks_contiguous(BlockMap *blocks) noexcept nogil:
    """How many bytes there are from the start of the file without a gap. May be called from any thread."""
    cdef int64_t frontier = rf_load(&blocks.frontier)
    if frontier >= blocks.count:
        return blocks.size
    return frontier * blocks.block_size + rf_load(&blocks.partial[frontier])
