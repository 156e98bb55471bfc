"""Spaces the requests to a host: for a file with such a limit, each request needs a slot.

A slot is a time from which one request may be sent. Slots are taken in order and without a lock. The file that takes
one says how long after it the next may be, whichever loop or engine of the process the file is in. A request that waits
for its slot already has it, so none is overtaken, and the last slot taken tells how many requests wait.
"""

from libc.stdint cimport int64_t

from rangefetch.platform cimport rf_load, rf_swap_if
from rangefetch.transfer cimport FileCore, Host, Loop, Source

cdef extern from "platform.h" nogil:
    const int64_t LONGEST_EVERY_US "RF_LONGEST_EVERY_US"

cdef enum:
    LAPSE_US = 2_000_000    # a slot that was not used for this long has lapsed


cdef inline int64_t host_slot(Host *host, int64_t every_us, int64_t now_us) noexcept nogil:
    """Take the first free slot."""
    cdef int64_t taken_us = rf_load(&host.slots_us)
    cdef int64_t slot_us = max(taken_us, now_us)
    while not rf_swap_if(&host.slots_us, taken_us, slot_us + every_us):
        taken_us = rf_load(&host.slots_us)
        slot_us = max(taken_us, now_us)
    return slot_us


cdef inline bint slot_is_due(Loop *loop, FileCore *file, Source *source) noexcept nogil:
    """Whether the file's next request to the source's host is due. The source takes a slot if it has none.

    If the slot is still to come, the loop will look again at that time.
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
    """Clear the source's slot, since its request is sent."""
    source.slot_us = 0


cdef inline void slot_returns(const FileCore *file, Source *source) noexcept nogil:
    """Return the source's slot, since it is not asked after all. Only the last slot can be reused; others are lost."""
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
