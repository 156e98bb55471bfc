"""The write path: how the bytes of an accepted answer get into the file.

Two ways under one interface. libcurl cuts what it received into pieces of at most 16 KiB, so one ``pwrite`` a piece
would be 65,000 calls a GiB. For plain HTTP the whole received span is announced beforehand (through the debug
callback, ``CURLINFO_DATA_IN``), and the first piece of it writes all of it at once, straight from libcurl's buffer.
Everything else (TLS, HTTP/2, chunked) goes through a small buffer of the lane, which stays in the cache.

A span is a promise that is checked: a piece counts as written only when it comes from where the span was, in order.
Marks and positions move with the pieces, never with the span, so a wrong promise costs a second write and no more. No
libcurl is known to break it, so no test gets there: that is for one that will.

Three rules keep a span from being written where it does not belong. It is announced for the piece that comes next, and
for no other. It is written only while the lane's buffer is empty, since what is in the buffer comes before it. And a
transfer that was paused does without spans from then on: libcurl hands over what it kept from memory of its own, some
of it after later spans were announced.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from rangefetch.blocks cimport blocks_advance
from rangefetch.platform cimport rf_count, rf_load, rf_now_us, rf_open_memory, rf_open_nameless, rf_pwrite_all, rf_store
from rangefetch.transfer cimport BUFFER_BYTES, FAULT_DISK, FileCore, Lane


cdef inline void lane_advance(Lane *lane, int64_t size) noexcept nogil:
    """The next ``size`` bytes are in the file: say so."""
    cdef FileCore *file = lane.file
    if file.mapped:
        blocks_advance(&file.blocks, lane.position, lane.position + size, lane.source.number)
    else:
        rf_store(&file.stream_bytes, file.stream_bytes + size)
    lane.position += size


cdef inline int small_opens(FileCore *file) noexcept nogil:
    """A small file gets its descriptor with its first bytes, so that an error leaves nothing. Where a file has the name
    already and is only to be compared, none is needed on the disk. Returns 0 or an errno."""
    if file.small.there_bytes >= 0 and rf_open_memory(&file.fd) == 0:
        return 0
    return rf_open_nameless(file.small.directory_fd, &file.fd)


cdef inline bint lane_put(Lane *lane, const char *data, int64_t size, int64_t offset) noexcept nogil:
    """Write; False: the disk refused, noted as the lane's fault."""
    cdef int64_t before_us
    cdef int failed = 0
    if lane.file.fd < 0:
        failed = small_opens(lane.file)
    if failed == 0:
        before_us = rf_now_us()
        failed = rf_pwrite_all(lane.file.fd, data, <size_t>size, offset, rf_load(&lane.file.home.uncached) != 0)
        rf_count(&lane.file.counters.disk_us, rf_now_us() - before_us)
    if failed != 0:
        # Only a failure is noted: a write that succeeds later does not undo an earlier one's errno.
        lane.sys_errno = failed
        lane.fault = FAULT_DISK
        return False
    rf_count(&lane.file.counters.writes, 1)
    return True


cdef inline void lane_forget_spans(Lane *lane) noexcept nogil:
    """From here to its end the transfer goes through the buffer. What a span wrote ahead of its pieces is void."""
    lane.span.usable = False
    lane.span.announced_bytes = lane.span.left = 0


cdef inline bint lane_flush(Lane *lane) noexcept nogil:
    """Write what the buffer holds; it is empty afterwards, well or not."""
    cdef int64_t size = lane.buffered
    lane.buffered = 0
    if size == 0:
        return True
    if not lane_put(lane, lane.buffer, size, lane.position):
        return False
    lane_advance(lane, size)
    return True


cdef inline bint lane_write(Lane *lane, const char *data, int64_t size) noexcept nogil:
    """Take one piece of the body, the next one in order. False: the disk refused."""
    cdef int64_t announced = lane.span.announced_bytes if data == lane.span.announced else 0
    cdef int64_t room, taken
    lane.span.announced_bytes = 0
    if lane.span.left > 0 and (data != lane.span.next or size > lane.span.left):
        # Not what was announced: what was written ahead of its pieces does not count.
        lane_forget_spans(lane)
    if lane.span.usable and lane.span.left == 0 and lane.buffered == 0 and announced >= size:
        taken = announced
        if lane.end >= 0 and taken > lane.end - lane.position:
            taken = lane.end - lane.position
        if not lane_put(lane, data, taken, lane.position):
            return False
        lane.span.next = data
        lane.span.left = taken
    if 0 < size <= lane.span.left:
        lane.span.next += size
        lane.span.left -= size
        lane_advance(lane, size)
        return True
    if lane.buffered == 0 and 0 < size == lane.end - lane.position:
        # All that is missing: it need not be copied first.
        if not lane_put(lane, data, size, lane.position):
            return False
        lane_advance(lane, size)
        return True
    while size > 0:
        # Up to a border of the buffer's size in the file, so that later writes are of whole pages.
        room = BUFFER_BYTES - (lane.position + lane.buffered) % BUFFER_BYTES
        if room > BUFFER_BYTES - lane.buffered:
            room = BUFFER_BYTES - lane.buffered
        taken = size if size < room else room
        memcpy(lane.buffer + lane.buffered, data, <size_t>taken)
        lane.buffered += taken
        data += taken
        size -= taken
        if taken == room and not lane_flush(lane):
            return False
    return True
