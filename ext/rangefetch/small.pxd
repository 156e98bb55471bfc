"""A file that is taken for a small one: a single request, and no part file, state or lock.

Whether a file is small, its first answer tells. Until then its bytes go into a file without a name (``O_TMPFILE``),
which gets its name in one step when they are all there. So there is nothing to lock, to save or to clean up, whatever
happens. Where the answer says that the file is large, or anything else that concerns Python, the transfer is held
before its first byte is taken, and Python gives the file a place of its own (``File.place``). There it goes on as any
other file. What came of a transfer that fails goes there, too, so that nothing is requested twice.

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
    CRAWL_AFTER_MS = 5000     # of a small file that has been coming for so long
    CRAWL_LEFT_MS = 10_000    # ... and will for so much longer


cdef inline bint small_is_plain(const Lane *lane) noexcept nogil:
    """Whether the answer says nothing that would concern Python: the file is no larger than it may be, and has neither
    another name nor a digest to be compared with."""
    cdef const FileCore *file = lane.file
    return not (
        file.size > file.small.largest_bytes
        or lane.source.resolved_url != NULL
        # Of a size that is not known there may be more than is worth comparing.
        or (file.small.there_bytes >= 0 and file.size != file.small.there_bytes)
        or (file.small.named_by_url and header_value(lane.easy, "Content-Disposition") != NULL)
        or header_value(lane.easy, "Repr-Digest") != NULL
    )


cdef inline void small_holds(Loop *loop, FileCore *file) noexcept nogil:
    """Python is to give it a place."""
    file.small.stage = HELD
    post_bare(loop, EVENT_HELD, file)


cdef inline void small_closes(FileCore *file) noexcept nogil:
    """Its file without a name is gone, and what is in it."""
    if file.small.stage != PLACED and file.fd >= 0:
        rf_close(file.fd)
        file.fd = -1


cdef inline bint small_may_begin(FileCore *file) noexcept nogil:
    """Whether it may have its name, or what has the name may be the same file; and nothing of it is there that an
    earlier run has left."""
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
    """Nothing came of a transfer: it is as if the file had not been asked for."""
    small_closes(file)
    rf_store(&file.size, -1)
    rf_store(&file.splits, False)
    rf_store(&file.stream_bytes, 0)
    rf_store(&file.sources[0].known, False)
    file.sources[0].etag[0] = file.sources[0].last_modified[0] = 0


cdef inline int allocate(FileCore *file) noexcept nogil:
    """Give a file whose size is known its length, or its space. Returns 0 or an errno."""
    if file.size == 0 or file.probing or file.allocation == ALLOCATE_NOTHING:
        return 0
    if file.allocation == ALLOCATE_LENGTH:
        return rf_set_length(file.fd, file.size)
    return rf_reserve(file.fd, file.size)


cdef inline void small_is_placed(Loop *loop, FileCore *file, int fd) noexcept nogil:
    """It has a place of its own from now on, where it goes on: with the transfer that was held, or what came of it."""
    cdef int nameless = file.fd
    if file.small.stage != HELD:
        return
    file.small.stage = PLACED
    file.fd = fd
    loop.newest_us = loop.now_us
    if nameless >= 0:
        # What is wrong with the disk is said when it comes again. Of a stream that broke off nothing can be continued.
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
        # Where that is refused, there is still what a write says.
        allocate(file)


cdef inline bint small_publish(Lane *lane) noexcept nogil:
    """All bytes are there: set the time, and give the file its name, unless the file that has it is the same.

    False: the name is taken, or the disk refuses."""
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
    """A transfer of the file came to its end: whether that was all of it, and it has its name."""
    cdef FileCore *file = lane.file
    if not small_is_plain(lane):
        return False
    if file.size < 0:
        # Where it cannot have its name, its map is made of what has come: all of it is this lane's.
        rf_store(&file.size, lane.position)
        lane.end = lane.position
    # A server may answer less than was asked for, and then the rest is asked for in ranges.
    return lane.position == file.size and small_publish(lane)
