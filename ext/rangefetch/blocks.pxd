"""The block map of one file: which blocks are missing, claimed or done, and how far a block has been written.

Only its loop's thread changes it, so there are no locks; where several loops carry a file, each of them has a map of
its own (see ``lease.pxd``). Python reads ``state`` and ``partial`` at any time: a block is marked only after its bytes
were written, and marks are released, so whoever sees the mark finds the bytes in the file; the same holds of
``frontier``. ``bytes_done`` is a number alone, which promises nothing of others. All intervals are half-open bytes
``[start, end)``.
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
    MOST_SAVED_BLOCKS = 1 << 28    # of a state, whose blocks may be smaller

cdef enum:
    MOST_FAILURES = 255            # that are counted

cdef struct BlockMap:
    uint8_t *state       # owned: freed in blocks_free
    uint32_t *partial    # owned: freed in blocks_free; bytes written of a block that is not done, below 4 GiB
    uint8_t *failed      # owned: freed in blocks_free; how many transfers in a row did not begin to bring it
    uint8_t *source      # owned: freed in blocks_free; which source has brought any of it, the highest number of them
    int64_t size         # of the file, in bytes
    int64_t block_size   # in bytes; the last block may be shorter
    int32_t count        # of blocks
    int32_t done         # blocks that are done
    int32_t frontier     # the first block that is not done
    int32_t hint         # no block before it is missing
    int64_t bytes_done   # of all blocks, parts of unfinished ones included
    int64_t unclaimed    # bytes that are neither written nor claimed


cdef inline bint blocks_fit(int64_t size, int64_t block_size) noexcept nogil:
    """Whether there can be a map: a size and blocks that have been bounded, and a number of them that fits."""
    return (
        0 <= size <= LARGEST_FILE_BYTES and 1 <= block_size <= LARGEST_BLOCK_BYTES
        and (size + block_size - 1) // block_size <= MOST_SAVED_BLOCKS
    )


cdef inline int64_t block_size_for(int64_t size) noexcept nogil:
    """1 MiB, aria2's piece length, doubled until the file has at most 65,536 blocks; ``size`` has been bounded."""
    cdef int64_t block_size = SMALLEST_BLOCK_BYTES
    while (size + block_size - 1) // block_size > MOST_BLOCKS:
        block_size *= 2
    return block_size


cdef inline int blocks_init(BlockMap *blocks, int64_t size, int64_t block_size) noexcept nogil:
    """All missing. Returns 0, or -1 where there is no memory, or no map can be."""
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
    """Take over what an earlier run saved: blocks that are done, and bytes of those that are not."""
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
    """Claim the next run of missing blocks in file order, whole blocks, about ``most_bytes`` long.

    Only of those that begin before ``horizon_bytes``; those that have failed ``failures`` times come last, and without
    ``again`` not at all. Of blocks that have failed half as many are claimed as there are in a row, which finds the one
    that does not come. False: nothing to claim.
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
    # A block that was begun starts a range of its own: a range is contiguous, and its head is here already.
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
    """The transfer that was to bring the bytes ``[start, end)`` has brought none; it is not for what follows them."""
    cdef int64_t i = start // blocks.block_size
    while i < blocks.count and (i * blocks.block_size < end or blocks.failed[i]):
        if i * blocks.block_size >= end:
            blocks.failed[i] = 0
        elif blocks.failed[i] < MOST_FAILURES:
            blocks.failed[i] = <uint8_t>(blocks.failed[i] + 1)
        i += 1


cdef inline int64_t blocks_claim_head(BlockMap *blocks, int64_t end) noexcept nogil:
    """Claim all blocks that begin before ``end``, from byte 0; returns where the last of them ends."""
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
    """The bytes ``[start, end)``, which continue what their blocks have, are in the file; ``source`` sent them."""
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
    """The bytes ``[start, end)`` of a claim will not come from its transfer: they are missing again."""
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
    """The bytes ``[start, end)`` were written, and are not to be trusted: they are missing again."""
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
    """All blocks of a new map are somebody else's."""
    cdef int64_t i
    for i in range(blocks.count):
        rf_note(&blocks.state[i], BLOCK_CLAIMED)
    blocks.hint = blocks.count
    blocks.unclaimed = 0


cdef inline void blocks_borrow(BlockMap *blocks, int64_t start, int64_t end) noexcept nogil:
    """The bytes ``[start, end)`` are to be fetched here from now on. What their first block has before them is there,
    whatever was known of it; it was begun elsewhere."""
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
    """Take over how far a claimed block has got in another loop's map, which may go on meanwhile. Returns how many
    bytes of it are missing."""
    cdef int64_t size = block_end(blocks, i) - i * blocks.block_size
    cdef int64_t before = size if blocks.state[i] == BLOCK_DONE else <int64_t>blocks.partial[i]
    # Of a block that is done the mark comes last, and what is written of one that is not comes after its bytes.
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
        # It was taken back: its server had sent more than it announced.
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
    """How many bytes are there from the start of the file without a gap; from any thread."""
    cdef int64_t frontier = rf_load(&blocks.frontier)
    if frontier >= blocks.count:
        return blocks.size
    return frontier * blocks.block_size + rf_load(&blocks.partial[frontier])
