"""What a source can serve: how many connections it answers, and whether it accepts duplicate requests.

Some servers accept connections that they do not answer, because they serve one client connection at a time, or only a
few. The range of such a connection is given to one that works, and no more connections are opened than were answered,
until one more is tried after a pause that doubles each time. Help for the slowest lane (see ``tail.pxd``) is withdrawn
if it receives nothing, and paused if the source refuses it. After repeated refusals the source is not asked to help
again.
"""

from libc.stdint cimport int64_t

from rangefetch.libcurl cimport CURLINFO_NUM_CONNECTS, info_long
from rangefetch.platform cimport rf_load
from rangefetch.transfer cimport SMALL, UNCHECKED, FileCore, Lane, Loop, Memory, Source

cdef enum:
    LEAST_REQUEST_MS = 20            # the assumed minimum cost of a request
    UNSERVED_MS = 1500               # a new connection is unserved if it is not answered for this long ...
    UNSERVED_REQUESTS = 4            # ... and for this many average response times
    MOST_STRIKES = 2                 # a single one may be an accident
    FIRST_PAUSE_MS = 10_000          # before one connection more than were answered is tried
    LONGEST_PAUSE_MS = 320_000
    LONGEST_REST_MS = 60_000         # of a source that answers nothing: other sources may have failed by then
    HELP_PATIENCE_MS = 500           # help is withdrawn if it has received nothing for this long ...
    HELP_REQUESTS = 3                # ... and for this many average response times
    MOST_REFUSALS = 4                # of help, in a row
    REFUSAL_PAUSE_MS = 1000          # after the first refusal; four times as long after each further one
    LONGEST_REFUSAL_S = 86_400


cdef inline void file_is_home(FileCore *file) noexcept nogil:
    """Initialise a file as its own home, without guests."""
    file.home = file
    file.bucket = &file.own_bucket
    file.spread.parts = 1


cdef inline int64_t part_of(const FileCore *file, int64_t lanes) noexcept nogil:
    """This loop's part of ``lanes``, if several loops share the file. The home gets the remainder."""
    cdef int64_t parts = rf_load(&file.home.spread.parts)
    cdef int64_t part = max(lanes // parts, 1)
    return part if file.home != file else max(lanes - (parts - 1) * part, 1)


cdef inline Memory *memory_of(FileCore *file) noexcept nogil:
    """The statistics of response times to use: a small file makes only one request, so its host's are used."""
    if file.small.stage == SMALL and file.sources[0].share != NULL:
        return &file.sources[0].share.memory
    return &file.memory


cdef inline int64_t request_cost_ms(FileCore *file) noexcept nogil:
    return max(memory_of(file).request_ms, LEAST_REQUEST_MS)


cdef inline int64_t patience_ms(Lane *lane, int64_t least_ms, int64_t requests) noexcept nogil:
    """How long to wait for a lane: ``requests`` average response times, but at least ``least_ms``."""
    cdef int64_t wait_ms = requests * request_cost_ms(lane.file)
    return wait_ms if wait_ms > least_ms else least_ms


cdef inline bint is_new_connection(Lane *lane) noexcept nogil:
    return info_long(lane.easy, CURLINFO_NUM_CONNECTS) > 0


# ---- Connections -------------------------------------------------------------------------------------------------

cdef inline bint has_room(Loop *loop, FileCore *file, const Source *source) noexcept nogil:
    """Whether the source may get one more lane."""
    cdef int64_t most = part_of(file, rf_load(&file.home.source_lanes_most))
    if source.lanes_served > 0:
        most = min(most, source.lanes_served + (1 if loop.now_ms >= source.served_again_ms else 0))
    return source.lanes < most


cdef inline bint is_unserved(Loop *loop, Lane *lane) noexcept nogil:
    """Whether the lane is still waiting for a response while others have received theirs.

    A reused connection gets twice the time: it has been served before, so the server may just be slow to respond.
    """
    cdef int64_t wait_ms
    if lane.check != UNCHECKED or lane.paused or memory_of(lane.file).moved_ms < lane.started_ms:
        return False
    wait_ms = patience_ms(lane, UNSERVED_MS, UNSERVED_REQUESTS)
    if not is_new_connection(lane):
        wait_ms *= 2
    return loop.now_ms - lane.started_ms >= wait_ms


cdef inline void note_unserved(Loop *loop, Source *source, int64_t since_ms) noexcept nogil:
    """Note that a lane which had waited for the source since ``since_ms`` was given up. For a while, use no more lanes
    than the source answers."""
    source.strikes += 1
    if source.strikes < MOST_STRIKES and source.lanes_served == 0:
        return
    if source.served_again_ms <= loop.now_ms:
        source.pause_ms = min(2 * source.pause_ms, LONGEST_PAUSE_MS) if source.pause_ms > 0 else FIRST_PAUSE_MS
        source.served_again_ms = loop.now_ms + source.pause_ms
    source.lanes_served = source.lanes if source.lanes > 0 else 1
    if source.lanes == 0 and source.moved_ms < since_ms:
        # It has answered no lane at all, while other sources did.
        source.rested_ms = max(source.rested_ms, loop.now_ms + min(source.pause_ms, LONGEST_REST_MS))


cdef inline void note_bytes(Loop *loop, Lane *lane) noexcept nogil:
    lane.source.moved_ms = memory_of(lane.file).moved_ms = loop.now_ms


cdef inline void note_served(Loop *loop, Lane *lane) noexcept nogil:
    """Note that the lane was answered. If that makes more lanes than the source's limit, the limit is lifted."""
    cdef Source *source = lane.source
    note_bytes(loop, lane)
    if is_new_connection(lane):
        source.strikes = 0
        if source.lanes > source.lanes_served:
            source.lanes_served = 0


# ---- Help --------------------------------------------------------------------------------------------------------

cdef inline bint may_help(Loop *loop, const Source *source) noexcept nogil:
    """Whether the source may be asked for bytes that another lane is already fetching."""
    return source.refusals < MOST_REFUSALS and loop.now_ms >= source.help_again_ms


cdef inline bint is_fruitless(Loop *loop, Lane *lane) noexcept nogil:
    """Whether a hedging lane has received nothing for so long that it should be withdrawn."""
    cdef int64_t wait_ms
    if lane.paused:
        return False
    wait_ms = patience_ms(lane, HELP_PATIENCE_MS, HELP_REQUESTS)
    if is_new_connection(lane):
        wait_ms *= 2
    return loop.now_ms - lane.moved_ms >= wait_ms


cdef inline void note_refusal(Loop *loop, Source *source, int64_t retry_after_s) noexcept nogil:
    """Note that help from the source failed: request no more for a while, or for as long as the server says."""
    cdef int64_t pause_ms = <int64_t>REFUSAL_PAUSE_MS << (2 * min(source.refusals, MOST_REFUSALS))
    source.refusals += 1
    source.help_again_ms = loop.now_ms + max(pause_ms, 1000 * min(max(retry_after_s, 0), LONGEST_REFUSAL_S))
