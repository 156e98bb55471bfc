"""On how many loops a file is: more while that pays.

A loop is one thread, and TLS keeps one core busy at something like a GB/s. Where the home of a large file is out of
processor time while another loop has little to do, that one gets a guest (see ``lease.pxd``). Whether it pays, only
trying tells: the processor may be wanted by others, by the server above all if it is on the same machine, and then the
bytes come no faster. The guest that brought nothing leaves, and the next one is tried a good while later.
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
    BUSY_MS = 200                # how long a loop is out of processor time before another one helps
    TRIAL_MS = 1000              # for a guest to show that it pays
    IDLE_PERCENT = 50            # a loop with less to do may have a guest
    ANY_PERCENT = 1000
    WORTH_S = 5                  # with less to come than in so long, at the rate of now, none begins


cdef inline Loop *idle_loop(Loop *loop, const FileCore *file, int percent) noexcept nogil:
    """The loop that has the least to do, and less than so much of a processor; NULL: there is none without a guest."""
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
    """Bytes per second since the look that `busy_ms` tells of."""
    return (file.blocks.bytes_done - file.spread.busy_bytes) * 1000 // max(loop.now_ms - file.spread.busy_ms, 1)


cdef inline void begin_looking(Loop *loop, FileCore *file) noexcept nogil:
    file.spread.busy_ms = loop.now_ms
    file.spread.busy_bytes = file.blocks.bytes_done


cdef inline void judge(Loop *loop, FileCore *file) noexcept nogil:
    """A guest is on trial: has it brought more?"""
    cdef Spread *spread = &file.spread
    if file.blocks.unclaimed > 0 and loop.now_ms - spread.busy_ms < TRIAL_MS:
        return
    # Towards the end goodput says nothing of it any more.
    if (
        file.blocks.unclaimed > 0 and spread.guests != NULL
        and goodput_since(loop, file) * 100 < spread.goodput_before * GROWTH_PAYS_PERCENT
    ):
        send_home(spread.guests)
        spread.stopped_ms = loop.now_ms
    spread.goodput_before = 0
    spread.busy_ms = 0


cdef inline bint wants_guest(Loop *loop, FileCore *file) noexcept nogil:
    """Whether one more loop would bring more: this one has been out of processor time for a while, and what is left to
    fetch is worth the trouble."""
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
    """Once no loop has more lanes than its part, it begins. That all of them have few enough together is not enough:
    one may have too many, and another take the rest of its own later."""
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
    """The loop that should have a guest of the file, too; NULL: none."""
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
    """A few times a second: look after the file's guests, and see whether there should be one more or one less."""
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
    # Where one more is to begin, no loop begins a lane beyond its part from here on.
    rf_store(&spread.parts, max(parts + 1, spread.wanted) if other != NULL else parts)
    # What the others counted is right only once they know of it.
    if other != NULL and announced:
        begin_guest(loop, file, other)
