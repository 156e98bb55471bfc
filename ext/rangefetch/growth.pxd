"""How many lanes a file has: more while that pays."""

from libc.stdint cimport int32_t, int64_t

from rangefetch.claims cimport DISTANT_MS, feed
from rangefetch.platform cimport rf_load, rf_note
from rangefetch.service cimport part_of, request_cost_ms
from rangefetch.transfer cimport FileCore, Growth, Loop

cdef enum:
    FIRST_LANES = 4                  # what a file begins with when its server answers ranges
    DISTANT_LANES = 16               # ... and when the first answer took so long that growing by steps costs seconds
    GROWTH_PAYS_PERCENT = 120        # doubled lanes should bring at least so much of the goodput before
    GROWTH_PAYS_FULLY_PERCENT = 170
    STILL_SHARE = 4                  # ... or one lane in so many stands still
    PATIENCE_MS = 750                # for growth to pay
    LOOK_AGAIN_MS = 10_000           # after growth that did not pay
    BUSY_PERCENT = 85                # of a processor: this thread has no room for more


cdef inline bint growth_pays(FileCore *file) noexcept nogil:
    """Whether the lanes that were added last brought more, or there is plainly room for more.

    A server that paces each connection often does so in bursts; then lanes stand still for whole ticks while nothing
    is saturated, and goodput says little.
    """
    return (
        file.growth.goodput * 100 >= file.growth.goodput_before * GROWTH_PAYS_PERCENT
        or file.lanes_still * STILL_SHARE >= file.lanes_busy
    )


cdef inline void begin_growth(Loop *loop, FileCore *file, int64_t answered_in_ms) noexcept nogil:
    """The first answer came: several lanes may work from here on."""
    file.growth.aim_before = DISTANT_LANES if answered_in_ms >= DISTANT_MS else FIRST_LANES
    rf_note(&file.growth.aim, file.growth.aim_before)
    file.growth.bytes_done = file.blocks.bytes_done
    file.growth.changed_ms = loop.now_ms


cdef inline void steer(Loop *loop, FileCore *file, int64_t elapsed_ms) noexcept nogil:
    """Double the lanes while that brings more, else go back to what was as good; look again after a while.

    Where doubling brought nearly double, nothing but each connection is the bound: four times as many are next.
    """
    cdef int32_t most = <int32_t>part_of(file, rf_load(&file.home.lanes_most))
    cdef int32_t factor = 2
    cdef Growth *growth = &file.growth
    growth.goodput = (file.blocks.bytes_done - growth.bytes_done) * 1000 // elapsed_ms
    growth.bytes_done = file.blocks.bytes_done
    if file.blocks.unclaimed == 0 or file.lanes_busy < growth.aim or growth.goodput == 0:
        # Lanes that have not come up yet, or the tail: nothing to be learnt.
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
        # Where this thread is the limit, more lanes are more work and nothing else.
        return
    if growth.aim_before < growth.aim and growth.goodput * 100 >= growth.goodput_before * GROWTH_PAYS_FULLY_PERCENT:
        factor = 4
    growth.goodput_before = growth.goodput
    growth.aim_before = growth.aim
    rf_note(&growth.aim, factor * growth.aim if factor * growth.aim < most else most)
    growth.changed_ms = loop.now_ms
    feed(loop, file)
