"""What is over although libcurl has not said so: transfers whose bytes are all there, and files without a gap.

libcurl ends a transfer where HTTP says that the answer ends: at a last chunk, at the end of the connection, at a
Content-Length. A server may leave any of them out, or promise more than the range that it names; no file waits for
that. An end that comes a moment later is waited for, because it lets the connection live and because bytes beyond the
range are a fault that must be seen, but only once: where the moment passed, the file's other transfers get none.
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
    GRACE_MS = 100        # for an answer's end to follow its last byte
    SWALLOW_MS = 2000     # for an error's body, or a redirect's, of which nothing is wanted but its connection


cdef inline bint is_whole(const Lane *lane) noexcept nogil:
    """Whether every byte that the answer promised, or that is still wanted of it, has come."""
    return (
        lane.check == ACCEPTED and lane.fault == FAULT_NONE and not lane.is_first
        and lane.end >= 0 and lane_received_end(lane) >= lane.end
    )


cdef inline bint is_due(Loop *loop, int64_t *since_ms, int64_t grace_ms) noexcept nogil:
    """Whether the grace that began at ``since_ms`` (0: begins now) is over; if not, the loop wakes for it."""
    if since_ms[0] == 0:
        since_ms[0] = loop.now_ms
    if loop.now_ms - since_ms[0] >= grace_ms:
        return True
    if loop.due_ms == 0 or since_ms[0] + grace_ms < loop.due_ms:
        loop.due_ms = since_ms[0] + grace_ms
    return False


cdef inline void end_transfers(Loop *loop) noexcept nogil:
    """End the transfers whose bytes are all there, after their grace, and errors that take long to tell; what they
    brought counts as ever.
    """
    cdef Lane *lane = loop.lanes
    cdef Memory *memory
    while lane != NULL:
        if lane.file != NULL and is_whole(lane):
            memory = memory_of(lane.file)
            if lane.cut or memory.lingers:
                # The end of a cut answer is another lane's range away.
                finish(loop, lane, CURLE_OK)
            elif is_due(loop, &lane.whole_ms, GRACE_MS):
                if lane.paused:
                    # A limit holds back what libcurl has received beyond the last byte.
                    lane.fault = FAULT_OVERFLOW
                    finish(loop, lane, CURLE_WRITE_ERROR)
                else:
                    memory.lingers = True
                    finish(loop, lane, CURLE_OK)
        elif lane.file != NULL and lane.check == SWALLOWED and is_due(loop, &lane.whole_ms, SWALLOW_MS):
            # Its status has said it all.
            finish(loop, lane, CURLE_OK)
        lane = lane.next


cdef inline void end_files(Loop *loop) noexcept nogil:
    """End the files that have every byte, whichever lane brought the last of them and whatever became of it. Guests end
    when their homes say so, or when something has failed.
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
