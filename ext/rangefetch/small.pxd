"""A file that is taken for a small one: a single request, and no part file, state or lock.

Whether a file is small is known from its first response. Until then its bytes go into a file without a name
(``O_TMPFILE``), which is given its name in one step once it is complete. So there is nothing to lock, save or clean up,
whatever happens. If the response says that the file is large, or anything else that concerns Python, the transfer is
held before its first byte is taken, and Python gives the file a place of its own (``File.place``), where it continues
like any other file. What a failed transfer has fetched goes there too, so that nothing is requested twice.

    SMALL ---- all bytes came ----> DONE, under its name, which a file with the same bytes may have had already
      |
      +------- anything else -----> HELD ---- place ----> PLACED
"""

from libc.stdint cimport int64_t

from rangefetch.blocks cimport blocks_revoke
from rangefetch.libcurl cimport curl_getdate, header_value
from rangefetch.mailbox cimport EVENT_HELD
from rangefetch.platform cimport (
    rf_close,
    rf_copy,
    rf_is_special,
    rf_is_same_there,
    rf_is_there,
    rf_keep_origin,
    rf_open_nameless,
    rf_publish_nameless,
    rf_reserve,
    rf_set_length,
    rf_set_time,
    rf_size_there,
    rf_store,
)
from rangefetch.report cimport post_bare
from rangefetch.transfer cimport (
    ALLOCATE_LENGTH,
    ALLOCATE_NOTHING,
    HELD,
    PLACED,
    FileCore,
    Lane,
    Loop,
)

cdef enum:
    CRAWL_AFTER_MS = 5000     # a small file that has taken this long ...
    CRAWL_LEFT_MS = 10_000    # ... and needs this much longer is fetched like a large one


cdef inline bint small_is_plain(const Lane *lane) noexcept nogil:
    """Whether the response has nothing that concerns Python: the file is small, has no other name, and no digest."""
    cdef const FileCore *file = lane.file
    return not (
        file.size > file.small.largest_bytes
        or lane.source.resolved_url != NULL
        # An unknown size may be more than is worth comparing.
        or (file.small.there_bytes >= 0 and file.size != file.small.there_bytes)
        or (file.small.named_by_url and header_value(lane.easy, "Content-Disposition") != NULL)
        or header_value(lane.easy, "Repr-Digest") != NULL
    )


cdef inline void small_holds(Loop *loop, FileCore *file) noexcept nogil:
    """Ask Python to give the file a place."""
    file.small.stage = HELD
    post_bare(loop, EVENT_HELD, file)


cdef inline void small_closes(FileCore *file) noexcept nogil:
    """Close the file without a name, and so discard what is in it."""
    if file.small.stage != PLACED and file.fd >= 0:
        rf_close(file.fd)
        file.fd = -1


cdef inline bint small_may_begin(FileCore *file) noexcept nogil:
    """Whether its name is free, or the file of that name may be the same; and an earlier run has left nothing of it."""
    cdef int directory_fd = file.small.directory_fd
    cdef int i
    for i in range(2):
        if file.small.part_names[i] != NULL and rf_is_there(directory_fd, file.small.part_names[i]):
            return False
    if file.small.overwrite:
        return not rf_is_special(directory_fd, file.small.name)
    file.small.there_bytes = rf_size_there(directory_fd, file.small.name)
    return file.small.there_bytes == -1 or (
        file.small.compares and 0 <= file.small.there_bytes <= file.small.largest_bytes
    )


cdef inline void small_forgets(FileCore *file) noexcept nogil:
    """Discard what a transfer brought, as if the file had never been requested."""
    small_closes(file)
    rf_store(&file.size, -1)
    rf_store(&file.splits, False)
    rf_store(&file.stream_bytes, 0)
    rf_store(&file.sources[0].known, False)
    file.sources[0].etag[0] = file.sources[0].last_modified[0] = 0


cdef inline int allocate(FileCore *file) noexcept nogil:
    """Set the length of a file whose size is known, or reserve its space. Returns 0 or an errno."""
    if file.size == 0 or file.probing or file.allocation == ALLOCATE_NOTHING:
        return 0
    if file.allocation == ALLOCATE_LENGTH:
        return rf_set_length(file.fd, file.size)
    return rf_reserve(file.fd, file.size)


cdef inline void small_is_placed(Loop *loop, FileCore *file, int fd) noexcept nogil:
    """Move a held file to the place that it was given, to continue with the held transfer or what a failed one left."""
    cdef int nameless = file.fd
    if file.small.stage != HELD:
        return
    file.small.stage = PLACED
    file.fd = fd
    loop.newest_us = loop.now_us
    if nameless >= 0:
        # A disk error will be reported when it recurs. A stream that broke off cannot be continued.
        if not file.mapped and not file.finished:
            rf_store(&file.stream_bytes, 0)
        elif rf_copy(nameless, fd, file.small.kept_bytes) != 0:
            if file.mapped:
                blocks_revoke(&file.blocks, 0, file.small.kept_bytes)
            else:
                small_forgets(file)
                file.finished = False
                rf_store(&file.answered, False)
        rf_close(nameless)
    if file.mapped:
        # An error is ignored: if it matters, a write will fail.
        allocate(file)


cdef inline bint small_publish(Lane *lane) noexcept nogil:
    """Set the complete file's time and give it its name, unless an existing file of that name has the same bytes.

    Returns False if the name is taken, or on a disk error.
    """
    cdef FileCore *file = lane.file
    cdef const char *date = header_value(lane.easy, "Last-Modified")
    cdef int64_t modified_s = -1
    if file.small.there_bytes >= 0:
        if not rf_is_same_there(file.fd, file.small.directory_fd, file.small.name, file.size):
            return False
        rf_store(&file.small.was_there, True)
        small_closes(file)
        return True
    if file.fd < 0 and rf_open_nameless(file.small.directory_fd, &file.fd) != 0:
        return False
    if date != NULL:
        modified_s = rf_set_time(file.fd, <int64_t>curl_getdate(date, NULL))
    if file.small.origin != NULL:
        rf_keep_origin(
            file.fd, file.small.origin, lane.source.etag, lane.source.last_modified, file.size, modified_s
        )
    if rf_publish_nameless(file.fd, file.small.directory_fd, file.small.name, file.small.overwrite) != 0:
        return False
    small_closes(file)
    return True


cdef inline bint small_arrives(Lane *lane) noexcept nogil:
    """After a transfer without errors: whether the file is complete, and now has its name."""
    cdef FileCore *file = lane.file
    if not small_is_plain(lane):
        return False
    if file.size < 0:
        # If it cannot have its name, its block map is made from what has come, and this lane has claimed all of it.
        rf_store(&file.size, lane.position)
        lane.end = lane.position
    # A server may send less than was asked for; the rest is then requested in ranges.
    return lane.position == file.size and small_publish(lane)
