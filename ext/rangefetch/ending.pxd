"""Ending what libcurl has not reported as ended: transfers that have received all of their bytes, and complete files.

libcurl ends a transfer where HTTP says that the response ends: at the last chunk, at the end of the connection, or
after Content-Length bytes. A server may omit any of these, or announce more bytes than the range that it names, and no
file waits for that. There is a grace period, because a proper end allows the connection to be reused, and because bytes
beyond the range are a fault that must be detected. Once it has expired in vain, the file's other transfers get none.
"""

from libc.stdint cimport int64_t

from rangefetch.lane cimport lane_received_end
from rangefetch.lease cimport guest_asks, guest_leaves, is_guest
from rangefetch.libcurl cimport CURLE_OK, CURLE_WRITE_ERROR
from rangefetch.mailbox cimport EVENT_DONE, EVENT_REMOVED
from rangefetch.outcome cimport end_file, finish, is_complete
from rangefetch.service cimport memory_of
from rangefetch.transfer cimport ACCEPTED, FAULT_NONE, FAULT_OVERFLOW, SWALLOWED, FileCore, Lane, Loop, Memory

cdef enum:
    GRACE_MS = 100        # how long the end of a response may follow its last byte
    SWALLOW_MS = 2000     # how long the body of an error or redirect is read, just to reuse the connection


cdef inline bint is_whole(const Lane *lane) noexcept nogil:
    """Whether all bytes that the response announced, or all that are still wanted of it, have arrived."""
    return (
        lane.check == ACCEPTED and lane.fault == FAULT_NONE and not lane.is_first
        and lane.end >= 0 and lane_received_end(lane) >= lane.end
    )


cdef inline bint is_due(Loop *loop, int64_t *since_ms, int64_t grace_ms) noexcept nogil:
    """Whether the grace period that began at ``since_ms`` (0: begins now) is over. If not, the loop wakes up then."""
    if since_ms[0] == 0:
        since_ms[0] = loop.now_ms
    if loop.now_ms - since_ms[0] >= grace_ms:
        return True
    if loop.due_ms == 0 or since_ms[0] + grace_ms < loop.due_ms:
        loop.due_ms = since_ms[0] + grace_ms
    return False


cdef inline void end_transfers(Loop *loop) noexcept nogil:
    """End transfers that have received all of their bytes, and error responses that take too long, after their grace
    period. They are finished in the same way as those that libcurl ends.
    """
    cdef Lane *lane = loop.lanes
    cdef Memory *memory
    while lane != NULL:
        if lane.file != NULL and is_whole(lane):
            memory = memory_of(lane.file)
            if lane.cut or memory.lingers:
                # The rest of a cut response is another lane's range, which is too much to wait for.
                finish(loop, lane, CURLE_OK)
            elif is_due(loop, &lane.whole_ms, GRACE_MS):
                if lane.paused:
                    # The lane is paused by a limit, so libcurl holds bytes beyond the last one.
                    lane.fault = FAULT_OVERFLOW
                    finish(loop, lane, CURLE_WRITE_ERROR)
                else:
                    memory.lingers = True
                    finish(loop, lane, CURLE_OK)
        elif lane.file != NULL and lane.check == SWALLOWED and is_due(loop, &lane.whole_ms, SWALLOW_MS):
            # Its status is all that matters.
            finish(loop, lane, CURLE_OK)
        lane = lane.next


cdef inline void end_files(Loop *loop) noexcept nogil:
    """End files that are complete, even if some of their transfers have not ended, and files being removed. Guests
    leave when their home says so or when something has failed.
    """
    cdef FileCore *file = loop.files
    cdef FileCore *after
    while file != NULL:
        after = file.next
        if is_guest(file):
            if file.removing:
                guest_leaves(loop, file)
            else:
                guest_asks(file)
        elif file.removing:
            end_file(loop, file, EVENT_REMOVED)
        elif (
            not file.probing and is_complete(file)
            and (file.lanes_busy == 0 or is_due(loop, &file.whole_ms, GRACE_MS))
        ):
            end_file(loop, file, EVENT_DONE)
        file = after
