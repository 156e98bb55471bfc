"""A loop's clocks, read once for everything that it does at about the same time."""

from libc.stdint cimport int64_t

from rangefetch.platform cimport rf_now_us, rf_thread_us
from rangefetch.transfer cimport Loop


cdef inline void look_at_clock(Loop *loop) noexcept nogil:
    loop.now_us = rf_now_us()
    loop.now_ms = loop.now_us // 1000


cdef inline int64_t busy_us(Loop *loop) noexcept nogil:
    """Processor time of this thread. Reading it takes a system call, too expensive to make for every small file."""
    if loop.busy_at_us != loop.now_us:
        loop.busy_at_us = loop.now_us
        loop.busy_us = rf_thread_us()
    return loop.busy_us
