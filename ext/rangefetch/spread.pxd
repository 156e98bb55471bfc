"""How many loops share a file: more for as long as that makes it faster.

A loop is one thread, and TLS saturates a core at roughly 1 GB/s. When the home of a large file runs out of processor
time while another loop is mostly idle, that loop gets a guest (see ``lease.pxd``). Only a trial can tell whether it
helps: other processes may be using the processor, in particular a server on the same machine, and then the download
gets no faster. A guest that did not help leaves, and the next one is tried only after a while.
"""

from libc.stdint cimport int32_t, int64_t

from rangefetch.claims cimport is_limited
from rangefetch.growth cimport BUSY_PERCENT, GROWTH_PAYS_PERCENT, LOOK_AGAIN_MS
from rangefetch.lease cimport (
    guest_begins,
    guest_count,
    least_lease_bytes,
    look_after_guests,
    may_have_guests,
    next_lease_bytes,
    send_all_home,
    send_home,
)
from rangefetch.platform cimport rf_load, rf_peek, rf_store
from rangefetch.service cimport part_of
from rangefetch.transfer cimport PLACED, FileCore, Guest, Loop, Spread

cdef enum:
    BUSY_MS = 200                # how long a loop must be out of processor time before another one helps
    TRIAL_MS = 1000              # how long a guest has to show that it helps
    IDLE_PERCENT = 50            # a loop that uses less of its processor may get a guest
    ANY_PERCENT = 1000
    WORTH_S = 5                  # no guest is started if the rest takes less than this at the current rate


cdef inline Loop *idle_loop(Loop *loop, const FileCore *file, int percent) noexcept nogil:
    """The least busy loop without a guest of this file that uses less than ``percent`` of a processor; NULL: none."""
    cdef Loop *best = NULL
    cdef Loop *each
    cdef const Guest *guest
    cdef int i
    for i in range(loop.sibling_count):
        each = &loop.siblings[i]
        guest = file.spread.guests
        while guest != NULL and guest.loop != each:
            guest = guest.next
        if each == loop or guest != NULL or rf_peek(&each.cpu_percent) >= percent:
            continue
        if best == NULL or rf_peek(&each.cpu_percent) < rf_peek(&best.cpu_percent):
            best = each
    return best


cdef inline int64_t goodput_since(Loop *loop, const FileCore *file) noexcept nogil:
    """Bytes per second since ``busy_ms``."""
    return (file.blocks.bytes_done - file.spread.busy_bytes) * 1000 // max(loop.now_ms - file.spread.busy_ms, 1)


cdef inline void begin_looking(Loop *loop, FileCore *file) noexcept nogil:
    file.spread.busy_ms = loop.now_ms
    file.spread.busy_bytes = file.blocks.bytes_done


cdef inline void judge(Loop *loop, FileCore *file) noexcept nogil:
    """End the trial of the last guest when its time is over, and send it home if it has not made the file faster."""
    cdef Spread *spread = &file.spread
    if file.blocks.unclaimed > 0 and loop.now_ms - spread.busy_ms < TRIAL_MS:
        return
    # Once everything is claimed, goodput no longer shows whether the guest helps.
    if (
        file.blocks.unclaimed > 0 and spread.guests != NULL
        and goodput_since(loop, file) * 100 < spread.goodput_before * GROWTH_PAYS_PERCENT
    ):
        send_home(spread.guests)
        spread.stopped_ms = loop.now_ms
    spread.goodput_before = 0
    spread.busy_ms = 0


cdef inline bint wants_guest(Loop *loop, FileCore *file) noexcept nogil:
    """Whether one more loop may help: this one has been out of processor time for a while, and enough is left to
    fetch."""
    cdef Spread *spread = &file.spread
    if loop.cpu_percent < BUSY_PERCENT:
        spread.busy_ms = 0
        return False
    if spread.busy_ms == 0:
        begin_looking(loop, file)
    if loop.now_ms - spread.busy_ms < BUSY_MS:
        return False
    return file.blocks.unclaimed >= max(WORTH_S * goodput_since(loop, file), spread.lease_bytes)


cdef inline void begin_guest(Loop *loop, FileCore *file, Loop *other) noexcept nogil:
    """Start the guest once no loop has more lanes than its part. Checking only their sum would not do: one loop could
    have too many, and another open the rest of its part later."""
    cdef Spread *spread = &file.spread
    cdef const Guest *guest = spread.guests
    cdef int64_t lanes = rf_load(&file.lanes_most)
    if file.lanes_busy > part_of(file, lanes):
        return
    while guest != NULL:
        if rf_peek(&guest.file.lanes_busy) > part_of(&guest.file, lanes):
            return
        guest = guest.next
    if not guest_begins(loop, file, other):
        rf_store(&spread.parts, 1 + guest_count(file))
        spread.stopped_ms = loop.now_ms
        return
    if spread.wanted == 0:
        spread.goodput_before = max(goodput_since(loop, file), 1)
    begin_looking(loop, file)


cdef inline Loop *next_loop(Loop *loop, FileCore *file, int32_t parts) noexcept nogil:
    """The loop that should get a guest of the file next; NULL: none."""
    if (
        not may_have_guests(file) or file.small.stage != PLACED or is_limited(loop, file)
        or rf_load(&file.reader_bytes) >= 0 or rf_load(&file.lanes_most) <= parts
        or next_lease_bytes(file) < least_lease_bytes(file)
        or (file.spread.stopped_ms != 0 and loop.now_ms - file.spread.stopped_ms < LOOK_AGAIN_MS)
    ):
        return NULL
    if file.spread.wanted > parts:
        return idle_loop(loop, file, ANY_PERCENT)
    if file.spread.wanted == 0 and wants_guest(loop, file):
        return idle_loop(loop, file, IDLE_PERCENT)
    return NULL


cdef inline void spread_out(Loop *loop, FileCore *file) noexcept nogil:
    """Run a few times a second: look after the file's guests, and decide whether to add or remove one."""
    cdef Spread *spread = &file.spread
    cdef int32_t parts = 1 + guest_count(file)
    cdef bint announced = spread.parts > parts
    cdef Loop *other = NULL
    if parts > 1:
        look_after_guests(file)
    if file.removing or rf_load(&file.lanes_most) < parts:
        send_all_home(file)
    if spread.goodput_before > 0:
        judge(loop, file)
    else:
        other = next_loop(loop, file, parts)
    # If a guest is to be added, no loop opens a lane beyond its smaller part from here on.
    rf_store(&spread.parts, max(parts + 1, spread.wanted) if other != NULL else parts)
    # Not before the tick after that: the other loops' lane counts are reliable only once they have seen the new parts.
    if other != NULL and announced:
        begin_guest(loop, file, other)
