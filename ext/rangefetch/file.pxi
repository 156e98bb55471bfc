# File: a file to be downloaded, with its sources and its block map, and the commands that Python sends to its loop.

@cython.final
cdef class File:
    cdef FileCore core
    cdef list profiles         # keeps alive every Profile that a source was given; the loop borrows them
    cdef dict epochs           # by source, once its address was changed; the loop may not have seen the latest yet
    cdef public object tag
    cdef readonly int64_t host
    cdef EngineCore *engine    # a counted reference from Engine.add() on, released in __dealloc__
    cdef int loop

    def __cinit__(
        self, int fd, str url not None, Profile profile not None, *, tag=None, bint ranged=True, int lanes=16,
        int64_t first_bytes=4 << 20, int64_t least_bytes=4 << 20, int64_t window_bytes=0, int64_t limit=0,
        str allocation="falloc",
        int64_t size=-1, int64_t block_size=0, blocks=None, partial=None, str etag="", str last_modified="",
        mirrors=(), int source_lanes=1024, bint probe=False, bint traced=False, int64_t pinned_size=-1,
        str name="", bint takes_codings=False, bint seems_empty=False,
        int host_lanes=MOST_LANES, bint insists=False, int64_t most_bytes=0, int64_t part_bytes=0,
        int64_t request_every_us=0,
        int loops=0, int64_t lease_bytes=LEASE_BYTES,
    ):
        memset(&self.core, 0, sizeof(FileCore))
        self.core.owner = <void *>self
        file_is_home(&self.core)
        # A file that is to run on several loops leaves the other loops their share of lanes from the start.
        self.core.spread.parts = <int32_t>max(loops, 1)
        self.core.spread.wanted = loops
        self.core.spread.lease_bytes = lease_bytes
        self.profiles = []
        self.epochs = {}
        self.tag = tag
        self.loop = -1
        self.core.fd = fd
        self.core.source_lanes_most = _lanes(source_lanes)
        self.core.host_lanes_most = _lanes(host_lanes)
        self.core.insists = insists
        self.core.request_every_us = _every(request_every_us)
        self._add_source(url, profile, etag, last_modified)
        self.host = where_to(&profile.core, self.core.sources[0].url)
        for mirror, mirror_profile, mirror_etag, mirror_last_modified in mirrors:
            self._add_source(mirror, mirror_profile, mirror_etag, mirror_last_modified)
        self.core.size = size
        self.core.pinned_size = pinned_size
        self.core.ranged = ranged
        self.core.takes_codings = takes_codings
        self.core.seems_empty = seems_empty
        self.core.name = _owned_text(PyUnicode_EncodeFSDefault(name))
        self.core.first_bytes = first_bytes
        self.core.part_bytes = part_bytes
        self.core.most_bytes = most_bytes
        self.core.least_bytes = least_bytes
        self.core.window_bytes = window_bytes
        self.core.reader_bytes = -1
        self.core.lanes_most = _lanes(lanes)
        self.core.probing = probe
        self.core.traced = traced
        self.core.waits_for = WAIT_LOOP
        bucket_limit(&self.core.own_bucket, limit)
        self.core.allocation = _allocation(allocation)
        if not 1 <= first_bytes <= LARGEST_FILE_BYTES:
            raise ValueError("first_bytes: must be at least 1, and at most the largest file size")
        if not (0 <= least_bytes <= LARGEST_FILE_BYTES and 0 <= window_bytes <= LARGEST_FILE_BYTES):
            raise ValueError("least_bytes, window_bytes: must not be negative, and at most the largest file size")
        if not 0 <= loops <= 1 + MOST_GUESTS:
            raise ValueError(f"loops: out of range; 0 to {1 + MOST_GUESTS} is allowed")
        if not 1 <= lease_bytes <= LARGEST_FILE_BYTES:
            raise ValueError("lease_bytes: must be at least 1, and at most the largest file size")
        if limit < 0 or most_bytes < 0:
            raise ValueError("limit, most_bytes: must not be negative")
        if size > LARGEST_FILE_BYTES or pinned_size > LARGEST_FILE_BYTES:
            raise ValueError("size: must be at most the largest file size")
        if size >= 0:
            self._recall(size, block_size, blocks, partial or {})

    def be_small(
        self, int directory_fd, str name not None, part_names=(), *, bint overwrite=False,
        bint named_by_url=True, int64_t largest_bytes=1 << 20, bytes origin=None, bint compares=False,
    ):
        cdef Small *small = &self.core.small
        cdef int i
        if self.engine != NULL or small.name != NULL:
            raise ValueError("be_small() must be called only once, and before the file is added")
        if len(part_names) > 2:
            raise ValueError("part_names: at most two")
        if not 1 <= largest_bytes <= LARGEST_FILE_BYTES:
            raise ValueError("largest_bytes: must be at least 1, and at most the largest file size")
        small.name = _owned_text(PyUnicode_EncodeFSDefault(name))
        for i, part_name in enumerate(part_names):
            small.part_names[i] = _owned_text(PyUnicode_EncodeFSDefault(part_name))
        if origin is not None:
            small.origin = _owned_text(origin)
        small.directory_fd = directory_fd
        small.overwrite = overwrite
        small.named_by_url = named_by_url
        small.compares = compares
        small.there_bytes = -1
        small.largest_bytes = largest_bytes
        small.stage = SMALL
        self.core.fd = -1

    @property
    def was_there(self):
        return bool(rf_load(&self.core.small.was_there))

    def place(self, int fd):
        if fd < 0:
            raise ValueError("fd: must not be negative")
        self._tell_source(COMMAND_PLACE, -1, fd, None)

    cdef int _add_source(self, str url, Profile profile, str etag, str last_modified) except -1:
        cdef Source *source
        if self.core.source_count == MOST_SOURCES:
            raise ValueError(f"mirrors: too many; at most {MOST_SOURCES} sources are allowed, including the URL")
        source = <Source *>calloc(1, sizeof(Source))
        if source == NULL:
            raise MemoryError
        source.number = self.core.source_count
        self.core.sources[self.core.source_count] = source
        self.core.source_count += 1
        source.url = _owned_text(_encoded(url))
        source.profile = &profile.core
        source.known = bool(etag or last_modified)
        _keep(source.etag, etag)
        _keep(source.last_modified, last_modified)
        self.profiles.append(profile)
        return 0

    cdef int _recall(self, int64_t size, int64_t block_size, blocks, partial) except -1:
        """Restore the block map from a saved state."""
        cdef bytes done = bytes(blocks or b"")
        cdef bytearray begun
        cdef const uint8_t *done_at = done
        cdef char *begun_at
        if not 1 <= block_size <= LARGEST_BLOCK_BYTES:
            raise ValueError("block_size: out of range")
        if not blocks_fit(size, block_size) or len(done) != (size + block_size - 1) // block_size:
            raise ValueError("blocks: expected one for each block of the file")
        begun = bytearray(4 * len(done) + 4)
        view = memoryview(begun).cast("I")
        for index, written in partial.items():
            if not 0 <= index < len(done):
                raise ValueError("partial: there is no such block")
            if not 0 <= written < min(block_size, size - index * block_size):
                raise ValueError("partial: more than the block holds")
            view[index] = written
        view.release()
        if blocks_init(&self.core.blocks, size, block_size) != 0:
            raise MemoryError
        begun_at = begun
        blocks_recall(&self.core.blocks, done_at, <const uint32_t *>begun_at)
        self.core.mapped = True
        return 0

    def __dealloc__(self):
        cdef int i
        blocks_free(&self.core.blocks)
        free(self.core.name)
        free(self.core.small.name)
        free(self.core.small.part_names[0])
        free(self.core.small.part_names[1])
        free(self.core.small.origin)
        for i in range(self.core.source_count):
            free(self.core.sources[i].url)
            free(self.core.sources[i].resolved_url)
            free(self.core.sources[i])
        if self.engine != NULL:
            core_let_go(self.engine)

    @property
    def size(self):
        return <int64_t>rf_load(&self.core.size)

    @property
    def block_size(self):
        return self.core.blocks.block_size if rf_load(&self.core.mapped) else 0

    @property
    def blocks(self):
        cdef Py_ssize_t count = self._count()
        # Until the map is published, only the loop may read this pointer.
        return _view(self, self.core.blocks.state if count > 0 else NULL, b"B", count, 1)

    @property
    def partial(self):
        cdef Py_ssize_t count = self._count()
        # Until the map is published, only the loop may read this pointer.
        return _view(self, self.core.blocks.partial if count > 0 else NULL, b"I", count, 4)

    @property
    def brought_by(self):
        cdef Py_ssize_t count = self._count()
        return _view(self, self.core.blocks.source if count > 0 else NULL, b"B", count, 1)

    cdef Py_ssize_t _count(self):
        return self.core.blocks.count if rf_load(&self.core.mapped) else 0

    @property
    def downloaded(self):
        return rf_peek(&self.core.blocks.bytes_done) if rf_load(&self.core.mapped) else rf_load(&self.core.stream_bytes)

    @property
    def contiguous(self):
        return blocks_contiguous(&self.core.blocks) if rf_load(&self.core.mapped) else rf_load(&self.core.stream_bytes)

    @property
    def part_bytes(self):
        return rf_load(&self.core.part_bytes)

    @property
    def answered(self):
        return bool(rf_load(&self.core.answered))

    @property
    def splits(self):
        return bool(rf_load(&self.core.splits))

    @property
    def lanes_busy(self):
        return <int>(rf_peek(&self.core.lanes_busy) + rf_peek(&self.core.spread.lanes_elsewhere))

    @property
    def requests(self):
        return rf_peek(&self.core.counters.requests)

    @property
    def responses(self):
        return rf_peek(&self.core.counters.responses)

    @property
    def connections(self):
        return rf_peek(&self.core.counters.connections)

    @property
    def received_bytes(self):
        return rf_peek(&self.core.counters.received_bytes)

    @property
    def writes(self):
        return rf_peek(&self.core.counters.writes)

    @property
    def source_count(self):
        return <int>rf_load(&self.core.source_count)

    def validators(self, int source=0):
        if not 0 <= source < rf_load(&self.core.source_count):
            raise IndexError("there is no such source")
        if not rf_load(&self.core.sources[source].known):
            return ("", "")
        return (_decode(self.core.sources[source].etag), _decode(self.core.sources[source].last_modified))

    def received_from(self, int source):
        if not 0 <= source < rf_load(&self.core.source_count):
            raise IndexError("there is no such source")
        return rf_peek(&self.core.sources[source].received_bytes)

    def ban(self, int source):
        self._tell_source(COMMAND_BAN, source, 0, None)

    def rest(self, int source, double seconds):
        self._tell_source(COMMAND_REST, source, _milliseconds(seconds), None)

    def resolve_again(self, int source):
        self._begin_epoch(COMMAND_RESOLVE, source, None, None)

    def ask_plainly(self, bint plainly=True):
        self._tell_source(COMMAND_RANGED, -1, not plainly, None)

    def move(self, int source, str url not None, Profile profile not None):
        self._begin_epoch(COMMAND_MOVE, source, _encoded(url), profile)

    def epoch(self, int source):
        return self.epochs.get(source, 0)

    cdef int _begin_epoch(self, MessageType type, int source, bytes text, Profile profile) except -1:
        self._tell_source(type, source, 0, text, profile, None, self.epochs.get(source, 0) + 1)
        self.epochs[source] = self.epochs.get(source, 0) + 1
        return 0

    def ask_as(self, int source, Profile profile not None):
        self._tell_source(COMMAND_PROFILE, source, 0, None, profile)

    def add_source(self, str url not None, Profile profile not None, validators=None):
        cdef bytes lines = None
        cdef char kept[VALIDATOR_BYTES]
        if validators is not None:
            for value in validators:
                _keep(kept, value)
            lines = "{}\n{}".format(*validators).encode("utf-8", "surrogateescape")
        self._tell_source(COMMAND_SOURCE, -1, 0, _encoded(url), profile, lines)

    cdef int _tell_source(
        self, MessageType type, int source, int64_t number, bytes text, Profile profile=None, bytes lines=None,
        int epoch=0
    ) except -1:
        cdef Message command
        memset(&command, 0, sizeof(command))
        command.type = type
        command.file = &self.core
        command.source = source
        command.epoch = epoch
        command.number = number
        if profile is not None:
            # Keep it alive before the loop, which only borrows it, can see it.
            self.profiles.append(profile)
            command.extra = &profile.core
        if lines is not None:
            command.headers = _owned_text(lines)
        return _send(self.engine, self.loop, &command, text)

    @property
    def lanes(self):
        return <int>rf_load(&self.core.lanes_most)

    @lanes.setter
    def lanes(self, int most):
        rf_store(&self.core.lanes_most, _lanes(most))
        self._tell(COMMAND_FEED)

    @property
    def lanes_at_once(self):
        return <int>lanes_at_once(&self.core)

    @property
    def source_lanes(self):
        return <int>rf_load(&self.core.source_lanes_most)

    @source_lanes.setter
    def source_lanes(self, int most):
        rf_store(&self.core.source_lanes_most, _lanes(most))
        self._tell(COMMAND_FEED)

    @property
    def host_lanes(self):
        return <int>rf_load(&self.core.host_lanes_most)

    @host_lanes.setter
    def host_lanes(self, int most):
        rf_store(&self.core.host_lanes_most, _lanes(most))
        self._tell(COMMAND_FEED)

    @property
    def request_every_us(self):
        return rf_load(&self.core.request_every_us)

    @request_every_us.setter
    def request_every_us(self, int64_t every_us):
        rf_store(&self.core.request_every_us, _every(every_us))
        self._tell(COMMAND_FEED)

    @property
    def uncached(self):
        return rf_load(&self.core.uncached) != 0

    @uncached.setter
    def uncached(self, bint wanted):
        rf_store(&self.core.uncached, <int32_t>wanted)

    @property
    def limit(self):
        return rf_load(&self.core.own_bucket.bytes_per_s)

    @limit.setter
    def limit(self, int64_t bytes_per_s):
        if bytes_per_s < 0:
            raise ValueError("limit: must not be negative")
        bucket_limit(&self.core.own_bucket, bytes_per_s)
        self._tell(COMMAND_FEED)

    @property
    def lanes_aim(self):
        return <int>rf_peek(&self.core.growth.aim)

    @property
    def request_ms(self):
        return rf_peek(&self.core.memory.request_ms)

    @property
    def effort(self):
        return {
            "lasted_us": rf_peek(&self.core.counters.lasted_us), "cpu_us": rf_peek(&self.core.counters.cpu_us),
            "disk_us": rf_peek(&self.core.counters.disk_us), "paused_us": rf_peek(&self.core.counters.paused_ms) * 1000,
            "lanes_aim": <int>rf_peek(&self.core.growth.aim),
            "growth_ended": bool(rf_peek(&self.core.growth.stopped_ms) != 0),
        }

    @property
    def lasted_us(self):
        return rf_peek(&self.core.counters.lasted_us)

    @property
    def guests(self):
        return rf_peek(&self.core.spread.guests_begun)

    @property
    def leases(self):
        return rf_peek(&self.core.spread.leases)

    @property
    def steals(self):
        return rf_peek(&self.core.counters.steals)

    @property
    def hedges(self):
        return rf_peek(&self.core.counters.hedges)

    @property
    def replacements(self):
        return rf_peek(&self.core.counters.replacements)

    @property
    def waiting_for(self):
        return names_of_waits[<int>rf_load(&self.core.waits_for)]

    @property
    def resting_host(self):
        return rf_load(&self.core.resting_host)

    def release(self):
        self._tell(COMMAND_RELEASE)

    def read_to(self, int64_t offset, int64_t notify=0):
        if not (0 <= offset <= LARGEST_FILE_BYTES and 0 <= notify <= LARGEST_FILE_BYTES):
            raise ValueError("offset, notify: out of range")
        rf_store(&self.core.notify_bytes, notify)
        rf_store(&self.core.reader_bytes, offset)
        self._tell(COMMAND_FEED)

    def remove(self):
        self._tell(COMMAND_REMOVE)

    cdef int _tell(self, MessageType type) except -1:
        return self._tell_source(type, -1, 0, None)


cdef int _send(EngineCore *engine, int loop, Message *command, bytes text) except -1:
    """Send a command to a file's loop. Does nothing before the file is added or after the engine is closed.

    Takes ownership of ``command.headers``, even when it fails.
    """
    if engine == NULL or engine.closed:
        free(command.headers)
        return 0
    if not core_is_ours(engine):
        free(command.headers)
        raise RuntimeError("it was created before the fork")
    if text is not None:
        command.text = copy_text(text)
    if (text is not None and command.text == NULL) or not loop_tell(&engine.loops[loop], command):
        free(command.text)
        free(command.headers)
        raise MemoryError
    return 0


cdef object _view(object owner, void *data, bytes format, Py_ssize_t count, Py_ssize_t width):
    cdef _SharedArray array = _SharedArray.__new__(_SharedArray)
    array.owner = owner
    array.data = data
    array.format = format
    array.shape = count
    array.width = width
    return memoryview(array)


@cython.final
cdef class _SharedArray:
    """Exports memory of the engine as a read-only buffer, and keeps the owner alive while any view of it exists."""
    cdef object owner
    cdef void *data      # borrowed from the owner
    cdef bytes format
    cdef Py_ssize_t shape
    cdef Py_ssize_t width

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("the block map belongs to the engine")
        buffer.buf = self.data
        buffer.len = self.shape * self.width
        buffer.itemsize = self.width
        buffer.readonly = 1
        buffer.ndim = 1
        buffer.format = <char *>self.format if flags & PyBUF_FORMAT else NULL
        buffer.shape = &self.shape if flags & PyBUF_ND else NULL
        buffer.strides = &self.width if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL
        buffer.obj = self

    def __releasebuffer__(self, Py_buffer *buffer):
        pass


cdef int _lanes(int most) except -1:
    if not 1 <= most <= MOST_LANES:
        raise ValueError(f"{most} lanes: out of range; 1 to {MOST_LANES} is allowed")
    return most


cdef Allocation _allocation(str name) except *:
    if name == "falloc":
        return ALLOCATE_SPACE
    if name == "trunc":
        return ALLOCATE_LENGTH
    if name == "none":
        return ALLOCATE_NOTHING
    raise ValueError(f"allocation: {name!r} is not one of falloc, trunc, none")


cdef int _keep(char *kept, str value) except -1:
    cdef bytes text = value.encode("utf-8", "surrogateescape")
    cdef const char *at = text
    if len(text) >= VALIDATOR_BYTES:
        raise ValueError("a validator is too long")
    memcpy(kept, at, <size_t>len(text) + 1)
    return 0
