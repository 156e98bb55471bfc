# Engine: a group of loops. Files are handed to them, and their events are collected here.

cdef EngineCore *all_cores = NULL    # linked list of this process's engines; protected by the GIL


cdef int _stop(EngineCore *core) except -1:
    """Stop an engine's threads and close its bell. ``closed`` is set before the GIL is released, so that no command can
    be sent from then on."""
    core.closed = True
    with nogil:
        core_stop(core)
    if core_is_ours(core):
        rf_bell_close(&core.bell)
    return 0


cdef tuple _event(const Message *item, object file):
    return (
        names_of_events[<int>item.type], file, item.code, item.status, item.fault, item.sys_errno, item.retry_after_s,
        item.offset, item.received, _decode(item.text), _octets(item.headers), item.source, item.epoch, item.request,
        _decode(item.address), item.host, item.kept, item.trace[0] if item.trace != NULL else None,
    )


cdef void _drop_last_events(const Message *items, size_t count) noexcept:
    """Release the references to the files whose last events are among these, which nobody will read."""
    cdef size_t i
    for i in range(count):
        if items[i].type == EVENT_DONE or items[i].type == EVENT_REMOVED:
            Py_DECREF(<object>(<FileCore *>items[i].file).owner)


@cython.final
cdef class Engine:
    cdef EngineCore *core    # a counted reference, released in __dealloc__

    def __cinit__(self, int loops=1):
        global all_cores
        cdef int failed = 0
        # Since libcurl 8.7 all transfers of a multi handle share one receive buffer, so a large one costs next to
        # nothing. Before, each transfer had its own.
        cdef long buffer_bytes = rf_receive_bytes() if version_num >= 0x080700 else 128 << 10
        # Before 8.1, which rewrote this code, libcurl could give one HTTP/2 transfer the bytes of another on the same
        # connection if that one was paused.
        cdef bint multiplexes = version_num >= 0x080100
        _must_be_loaded()
        if not 1 <= loops <= 64:
            raise ValueError("loops: out of range; 1 to 64 is allowed")
        hosts_open(&hosts)
        self.core = core_new(loops, &handles, &hosts, buffer_bytes, multiplexes, &failed)
        if self.core == NULL:
            raise OSError(failed, "the engine cannot start a loop")
        self.core.next = all_cores
        all_cores = self.core

    def fileno(self):
        self._must_be_open()
        return self.core.bell.read_fd

    def ring(self):
        self._must_be_ours()
        if not self.core.closed:
            rf_bell_ring(&self.core.bell)

    def add(self, File file not None, int loop=0):
        self.add_all([file], [loop])

    def add_all(self, list files not None, list loops not None):
        cdef uint64_t waiting = 0    # bit mask of the loops to wake
        cdef int i, loop
        cdef File file
        self._must_be_open()
        if len(files) != len(loops):
            raise ValueError("loops: expected one for each file")
        try:
            for i in range(<int>len(files)):
                file = files[i]
                loop = loops[i]
                if self._hand_over(file, loop):
                    waiting |= <uint64_t>1 << loop
        finally:
            for i in range(self.core.loop_count):
                if waiting >> i & 1:
                    rf_bell_ring(&self.core.loops[i].wake)

    cdef int _hand_over(self, File file, int loop) except -1:
        """Queue a file at a loop, and hold a reference to it until its last event. Returns whether the loop's inbox was
        empty, in which case it must be woken."""
        cdef Message command
        cdef bint is_first = False
        if file is None:
            raise TypeError("files: one of them is None")
        if file.engine != NULL:
            raise ValueError("this File has been added already")
        if not 0 <= loop < self.core.loop_count:
            raise ValueError("loop: there is no such loop")
        memset(&command, 0, sizeof(command))
        command.type = COMMAND_ADD
        command.file = &file.core
        if not mailbox_reserve(&self.core.outbox):
            raise MemoryError
        if not mailbox_put(&self.core.loops[loop].inbox, &command, &is_first):
            mailbox_unreserve(&self.core.outbox)
            raise MemoryError
        self.core.references += 1
        self.core.live_files += 1
        # The loop's reference. The garbage collector cannot see it, and so cannot free a file that the loop is using.
        Py_INCREF(file)
        file.engine = self.core
        file.loop = loop
        return is_first

    def events(self, list whole=None):
        cdef list events = []
        cdef size_t count = 0
        cdef size_t told = 0
        cdef bint is_last
        cdef Message *items
        self._must_be_ours()
        if rf_bell_is_open(&self.core.bell):
            rf_bell_quiet(&self.core.bell)
        items = self._take(&count)
        try:
            while told < count:
                file = <object>(<FileCore *>items[told].file).owner
                is_last = items[told].type == EVENT_DONE or items[told].type == EVENT_REMOVED
                if whole is not None and items[told].type == EVENT_DONE and (<File>file).core.small.stage == SMALL:
                    whole.append(file)
                else:
                    events.append(_event(&items[told], file))
                told += 1
                if is_last:
                    self.core.live_files -= 1
                    Py_DECREF(file)
        except MemoryError:
            if told == 0:
                raise
        finally:
            self._put_back(items, told, count)
        return events

    cdef Message *_take(self, size_t *count) except? NULL:
        """The messages that are due, which the caller owns: those that a previous call had no memory for, otherwise
        the outbox."""
        cdef Message *items = self.core.untold
        if items != NULL:
            count[0] = self.core.untold_count
            self.core.untold = NULL
            self.core.untold_count = 0
            self._ring()    # for the outbox
            return items
        items = mailbox_take(&self.core.outbox, count)
        if items == NULL and count[0] > 0:
            self._ring()
            raise MemoryError
        return items

    cdef void _put_back(self, Message *items, size_t told, size_t count) noexcept:
        """Free what was told, and keep the rest for the next call."""
        messages_clear(items, told)
        if told == count:
            free(items)
            return
        memmove(items, items + told, (count - told) * sizeof(Message))
        self.core.untold = items
        self.core.untold_count = count - told
        self._ring()

    cdef void _ring(self) noexcept:
        if rf_bell_is_open(&self.core.bell):
            rf_bell_ring(&self.core.bell)

    @property
    def limit(self):
        return rf_load(&self.core.bucket.bytes_per_s)

    @limit.setter
    def limit(self, int64_t bytes_per_s):
        self._must_be_ours()
        if bytes_per_s < 0:
            raise ValueError("limit: must not be negative")
        bucket_limit(&self.core.bucket, bytes_per_s)

    @property
    def live_files(self):
        return self.core.live_files

    @property
    def closed(self):
        return bool(self.core.closed)

    def close(self):
        _stop(self.core)

    cdef int _must_be_open(self) except -1:
        if self.core.closed:
            raise RuntimeError("the engine is closed")
        return self._must_be_ours()

    cdef int _must_be_ours(self) except -1:
        if not core_is_ours(self.core):
            raise RuntimeError("the engine was created before the fork; create a new one in this process")
        return 0

    def __dealloc__(self):
        global all_cores
        cdef EngineCore **link = &all_cores
        cdef Message *items
        cdef size_t count = 0
        if self.core == NULL:
            return
        _stop(self.core)
        while link[0] != self.core:
            link = &link[0].next
        link[0] = self.core.next
        if core_is_ours(self.core):
            # The last event of every live file is now here or in the outbox.
            _drop_last_events(self.core.untold, self.core.untold_count)
            items = mailbox_take(&self.core.outbox, &count)
            if items != NULL:
                _drop_last_events(items, count)
                messages_free(items, count)
        core_let_go(self.core)


def _stop_all():
    """Stop all engines at interpreter exit, so that no thread is left inside libcurl."""
    cdef EngineCore *core = all_cores
    while core != NULL:
        if rf_load(&core.stopped) or not core_is_ours(core):
            core = core.next
            continue
        core.references += 1
        _stop(core)
        core_let_go(core)
        # Start again: another thread may have changed the list while the GIL was released.
        core = all_cores


atexit.register(_stop_all)
