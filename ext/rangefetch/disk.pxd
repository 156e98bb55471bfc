"""The write path: how the bytes of an accepted response get into the file.

There are two paths behind one interface. libcurl cuts what it receives into pieces of at most 16 KiB, so one ``pwrite``
per piece would be 65,000 calls per GiB. For plain HTTP, the debug callback (``CURLINFO_DATA_IN``) announces the whole
received span beforehand, and its first piece writes all of it at once, straight from libcurl's buffer. Everything else
(TLS, HTTP/2, chunked) goes through a small buffer of the lane, which stays in the processor's cache.

An announced span is checked, not trusted: a piece counts as written only if it comes from where the span was, in order.
Marks and positions move with the pieces, never with the span, so a wrong announcement costs a second write and no more.
No known libcurl announces a wrong span, so no test reaches that code; it is there in case one does.

Three rules keep a span from being written to the wrong place. It is announced for the next piece only. It is written
only while the lane's buffer is empty, because buffered bytes come before it. And a transfer that was paused uses no
spans from then on: libcurl delivers the pieces that it kept from its own memory, some of them after it has announced
later spans.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from rangefetch.blocks cimport blocks_advance
from rangefetch.platform cimport rf_count, rf_load, rf_now_us, rf_open_memory, rf_open_nameless, rf_pwrite_all, rf_store
from rangefetch.transfer cimport BUFFER_BYTES, FAULT_DISK, FileCore, Lane


cdef inline void lane_advance(Lane *lane, int64_t size) noexcept nogil:
    """Record that the lane's next ``size`` bytes are in the file."""
    cdef FileCore *file = lane.file
    if file.mapped:
        blocks_advance(&file.blocks, lane.position, lane.position + size, lane.source.number)
    else:
        rf_store(&file.stream_bytes, file.stream_bytes + size)
    lane.position += size


cdef inline int small_opens(FileCore *file) noexcept nogil:
    """Open the file without a name, or a memory file if an existing file is only to be compared.

    This happens at a small file's first bytes, so that a failed request leaves nothing. Returns 0 or an errno.
    """
    if file.small.there_bytes >= 0 and rf_open_memory(&file.fd) == 0:
        return 0
    return rf_open_nameless(file.small.directory_fd, &file.fd)


cdef inline bint lane_put(Lane *lane, const char *data, int64_t size, int64_t offset) noexcept nogil:
    """Write to the file. False: the write failed, which is noted as the lane's fault."""
    cdef int64_t before_us
    cdef int failed = 0
    if lane.file.fd < 0:
        failed = small_opens(lane.file)
    if failed == 0:
        before_us = rf_now_us()
        failed = rf_pwrite_all(lane.file.fd, data, <size_t>size, offset, rf_load(&lane.file.home.uncached) != 0)
        rf_count(&lane.file.counters.disk_us, rf_now_us() - before_us)
    if failed != 0:
        # Set only on failure: a later write that succeeds must not clear the errno of an earlier one.
        lane.sys_errno = failed
        lane.fault = FAULT_DISK
        return False
    rf_count(&lane.file.counters.writes, 1)
    return True


cdef inline void lane_forget_spans(Lane *lane) noexcept nogil:
    """Use the buffer for the rest of the transfer. What a span has written ahead of its pieces does not count."""
    lane.span.usable = False
    lane.span.announced_bytes = lane.span.left = 0


cdef inline bint lane_flush(Lane *lane) noexcept nogil:
    """Write the buffered bytes. The buffer is empty afterwards, even if the write failed."""
    cdef int64_t size = lane.buffered
    lane.buffered = 0
    if size == 0:
        return True
    if not lane_put(lane, lane.buffer, size, lane.position):
        return False
    lane_advance(lane, size)
    return True


cdef inline bint lane_write(Lane *lane, const char *data, int64_t size) noexcept nogil:
    """Take the next piece of the body. False: a write failed."""
    cdef int64_t announced = lane.span.announced_bytes if data == lane.span.announced else 0
    cdef int64_t room, taken
    lane.span.announced_bytes = 0
    if lane.span.left > 0 and (data != lane.span.next or size > lane.span.left):
        # Not the piece that was announced: what was written ahead does not count.
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
        # The piece completes the range, so there is no point in buffering it.
        if not lane_put(lane, data, size, lane.position):
            return False
        lane_advance(lane, size)
        return True
    while size > 0:
        # Fill up to a multiple of the buffer's size in the file, so that later writes cover whole pages.
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
