"""Token buckets: how many bytes may be received now, for one file or for the whole engine.

Several loops may share a bucket: its numbers are changed atomically. It may go into debt by one piece (16 KiB), which
later time pays back, so the average holds however many lanes draw on it. The caller supplies the time.
"""

from libc.stdint cimport int64_t

from rangefetch.platform cimport rf_add, rf_load, rf_store, rf_swap_if

cdef extern from "platform.h" nogil:
    const int64_t LARGEST_BYTES_PER_S "RF_LARGEST_BYTES_PER_S"

cdef enum:
    BURST_MS = 100          # how much may accumulate, in time
    LEAST_BURST_BYTES = 16 << 10
    LEAST_FILL_US = 1000    # shorter steps would lose fractions of a byte

cdef struct Bucket:
    int64_t bytes_per_s     # 0: no limit
    int64_t level           # bytes that may be received now; below zero: debt
    int64_t filled_us       # the time up to which the bucket was filled


cdef inline void bucket_limit(Bucket *bucket, int64_t bytes_per_s) noexcept nogil:
    """Set or change the limit, and forget what had accumulated or was owed under the old one."""
    rf_store(&bucket.level, 0)
    rf_store(&bucket.bytes_per_s, min(bytes_per_s, LARGEST_BYTES_PER_S))


cdef inline void bucket_fill(Bucket *bucket, int64_t now_us) noexcept nogil:
    """Add the bytes for the time that has passed."""
    cdef int64_t bytes_per_s = rf_load(&bucket.bytes_per_s)
    cdef int64_t filled_us = rf_load(&bucket.filled_us)
    cdef int64_t most, paid, level
    if bytes_per_s == 0 or now_us < filled_us + LEAST_FILL_US:
        return
    most = bytes_per_s * BURST_MS // 1000
    if most < LEAST_BURST_BYTES:
        most = LEAST_BURST_BYTES
    paid = (now_us - filled_us) * bytes_per_s // 1_000_000 if now_us - filled_us < 1_000_000 else bytes_per_s
    if paid > 0 and now_us - filled_us < 1_000_000:
        # Use up only the time that whole bytes stand for; the rest is left for the next call.
        now_us = filled_us + (paid * 1_000_000 + bytes_per_s - 1) // bytes_per_s
    if paid <= 0 or not rf_swap_if(&bucket.filled_us, filled_us, now_us):
        # Not enough for one byte yet, or another loop has just filled the bucket.
        return
    level = rf_add(&bucket.level, paid)
    if level > most:
        rf_add(&bucket.level, most - level)


cdef inline void bucket_take(Bucket *bucket, int64_t size) noexcept nogil:
    """Deduct bytes that were received."""
    if rf_load(&bucket.bytes_per_s) > 0:
        rf_add(&bucket.level, -size)


cdef inline bint bucket_is_dry(Bucket *bucket) noexcept nogil:
    return rf_load(&bucket.bytes_per_s) > 0 and rf_load(&bucket.level) <= 0


cdef inline bint bucket_is_limited(Bucket *bucket) noexcept nogil:
    return rf_load(&bucket.bytes_per_s) > 0
