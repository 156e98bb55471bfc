"""Decides how many lanes a file has: more while that pays."""

from libc.stdint cimport int32_t, int64_t

from rangefetch.claims cimport DISTANT_MS, feed
from rangefetch.platform cimport rf_load, rf_note
from rangefetch.service cimport part_of, request_cost_ms
from rangefetch.transfer cimport FileCore, Growth, Loop

cdef enum:
    FIRST_LANES = 4                  # how many a file starts with when its server supports ranges
    DISTANT_LANES = 16               # ... and if its first response was so slow that growing in steps takes seconds
    GROWTH_PAYS_PERCENT = 120        # of the goodput before: what growth should bring ...
    GROWTH_PAYS_FULLY_PERCENT = 170  # ... and what makes the next step quadruple the lanes
    STILL_SHARE = 4                  # growth also pays if one lane in so many stalls
    PATIENCE_MS = 750                # before growth counts as not having paid
    LOOK_AGAIN_MS = 10_000           # after growth that did not pay
    BUSY_PERCENT = 85                # of a processor: this thread cannot do more


cdef inline bint growth_pays(FileCore *file) noexcept nogil:
    """Whether the lanes added last brought more goodput, or there is plainly room for more.

    A server that paces each connection often sends in bursts. Lanes then stall for whole ticks while nothing is
    saturated, and goodput means little.
    """
    return (
        file.growth.goodput * 100 >= file.growth.goodput_before * GROWTH_PAYS_PERCENT
        or file.lanes_still * STILL_SHARE >= file.lanes_busy
    )


cdef inline void begin_growth(Loop *loop, FileCore *file, int64_t answered_in_ms) noexcept nogil:
    """Start with several lanes; the first response has just come."""
    file.growth.aim_before = DISTANT_LANES if answered_in_ms >= DISTANT_MS else FIRST_LANES
    rf_note(&file.growth.aim, file.growth.aim_before)
    file.growth.bytes_done = file.blocks.bytes_done
    file.growth.changed_ms = loop.now_ms


cdef inline void steer(Loop *loop, FileCore *file, int64_t elapsed_ms) noexcept nogil:
    """Double the lanes while that brings more, otherwise go back, and try again after a while.

    If doubling nearly doubled the goodput, the only limit is that of each connection, and the next step is a factor of
    four.
    """
    cdef int32_t most = <int32_t>part_of(file, rf_load(&file.home.lanes_most))
    cdef int32_t factor = 2
    cdef Growth *growth = &file.growth
    growth.goodput = (file.blocks.bytes_done - growth.bytes_done) * 1000 // elapsed_ms
    growth.bytes_done = file.blocks.bytes_done
    if file.blocks.unclaimed == 0 or file.lanes_busy < growth.aim or growth.goodput == 0:
        # Some lanes have not started yet, or this is the end of the file: nothing can be learnt from it.
        return
    if loop.now_ms - growth.changed_ms < 2 * request_cost_ms(file):
        return
    if growth.stopped_ms != 0:
        if loop.now_ms - growth.stopped_ms < LOOK_AGAIN_MS:
            return
        rf_note(&growth.stopped_ms, 0)
    elif growth.aim_before < growth.aim and not growth_pays(file):
        if loop.now_ms - growth.changed_ms >= PATIENCE_MS:
            if growth.goodput * 20 < growth.goodput_before * 21:
                rf_note(&growth.aim, growth.aim_before)
            growth.aim_before = growth.aim
            rf_note(&growth.stopped_ms, loop.now_ms)
        return
    if growth.aim >= most or loop.cpu_percent >= BUSY_PERCENT:
        # If this thread is the limit, more lanes only mean more work.
        return
    if growth.aim_before < growth.aim and growth.goodput * 100 >= growth.goodput_before * GROWTH_PAYS_FULLY_PERCENT:
        factor = 4
    growth.goodput_before = growth.goodput
    growth.aim_before = growth.aim
    rf_note(&growth.aim, factor * growth.aim if factor * growth.aim < most else most)
    growth.changed_ms = loop.now_ms
    feed(loop, file)
