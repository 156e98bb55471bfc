"""How many requests a second a host gets: where a file wants that bounded, each of its requests has a slot.

A slot is a time from which on one request may be sent. Slots are given out in order and without a lock, each so long
after the one before as the file that takes it says, whichever loop or engine of the process it is in. What waits for
its slot has it already, so nobody is overtaken, and how far ahead they are given out tells how many requests wait.
"""

from libc.stdint cimport int64_t

from rangefetch.platform cimport rf_load, rf_swap_if
from rangefetch.transfer cimport FileCore, Host, Loop, Source

cdef extern from "platform.h" nogil:
    const int64_t LONGEST_EVERY_US "RF_LONGEST_EVERY_US"

cdef enum:
    LAPSE_US = 2_000_000    # a slot of which no use was made for so long is as good as none


cdef inline int64_t host_slot(Host *host, int64_t every_us, int64_t now_us) noexcept nogil:
    """Take the first slot that nobody has."""
    cdef int64_t taken_us = rf_load(&host.slots_us)
    cdef int64_t slot_us = max(taken_us, now_us)
    while not rf_swap_if(&host.slots_us, taken_us, slot_us + every_us):
        taken_us = rf_load(&host.slots_us)
        slot_us = max(taken_us, now_us)
    return slot_us


cdef inline bint slot_is_due(Loop *loop, FileCore *file, Source *source) noexcept nogil:
    """Whether a request for the file may be sent to the source's host by its slot, which it is given if it has none.
    Where that is still to come, the loop looks again then.
    """
    cdef int64_t every_us = rf_load(&file.home.request_every_us)
    if every_us == 0 or source.share == NULL:
        return True
    if source.slot_us == 0 or loop.now_us - source.slot_us > LAPSE_US:
        source.slot_us = host_slot(source.share.host, every_us, loop.now_us)
    if source.slot_us <= loop.now_us:
        return True
    if loop.next_slot_us == 0 or source.slot_us < loop.next_slot_us:
        loop.next_slot_us = source.slot_us
    return False


cdef inline void slot_is_used(Source *source) noexcept nogil:
    """The request is sent."""
    source.slot_us = 0


cdef inline void slot_returns(const FileCore *file, Source *source) noexcept nogil:
    """The source is not asked after all. A slot that was the last one is for whoever comes next; another one stays
    unused."""
    cdef int64_t every_us = rf_load(&file.home.request_every_us)
    if source.slot_us != 0 and source.share != NULL:
        rf_swap_if(&source.share.host.slots_us, source.slot_us + every_us, source.slot_us)
    source.slot_us = 0


cdef inline bint waits_for_slot(const Loop *loop, const FileCore *file) noexcept nogil:
    """Whether some source of the file has a slot that is still to come."""
    cdef int i
    for i in range(file.source_count):
        if not file.sources[i].banned and file.sources[i].slot_us > loop.now_us:
            return True
    return False
