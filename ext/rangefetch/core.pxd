"""What an Engine is made of, apart from Python: its loops, its outbox and its limit.

The core outlives the Python object while Files still point to it, and it can be stopped without one: at the end of
the interpreter no thread may be left in libcurl, whose libraries take themselves apart then.
"""

from libc.errno cimport ENOMEM
from libc.string cimport memset

from rangefetch.bucket cimport Bucket
from rangefetch.checks cimport calloc, free
from rangefetch.libcurl cimport (
    CURLMOPT_MAXCONNECTS,
    CURLMOPT_PIPELINING,
    CURLMOPT_QUICK_EXIT,
    CURLPIPE_MULTIPLEX,
    CURLPIPE_NOTHING,
    curl_multi_cleanup,
    curl_multi_init,
    multi_opt_long,
)
from rangefetch.host cimport shares_sweep
from rangefetch.loop cimport loop_run
from rangefetch.mailbox cimport COMMAND_QUIT, COMMAND_ROOM, Mailbox, Message, mailbox_close, mailbox_open
from rangefetch.peers cimport loop_joins, loop_leaves, loop_tell, tell_peers
from rangefetch.platform cimport (
    pthread_join,
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_t,
    pthread_mutex_unlock,
    RF_NO_SOCKET,
    rf_bell,
    rf_bell_close,
    rf_bell_open,
    rf_most_descriptors,
    rf_process_id,
    rf_store,
    rf_thread_start,
)
from rangefetch.transfer cimport MOST_LANES, HostTable, Loop

cdef enum:
    POOLED_CONNECTIONS = 256    # of a loop; pinned: libcurl's default follows the transfers and drops warm ones
    POOLED_SHARE = 4            # ... and no more of the process's descriptors than one in so many, by all loops

cdef struct EngineCore:
    Loop *loops           # owned: freed in core_let_go
    int loop_count        # whose threads run
    Mailbox outbox
    Bucket bucket         # the limit on everything
    rf_bell bell
    bint closed           # takes no more commands; set and asked under the GIL
    pthread_mutex_t stopping  # held while the threads are being ended, so that who closes it second waits for the first
    bint stopped          # they have been; set with `stopping` held
    int references        # the Engine, and every File that was added; counted under the GIL
    int live_files        # added, and not yet told of as done or removed
    int process_id        # of the process that started the threads (for fork safety)
    EngineCore *next      # borrowed: the list of all cores


cdef inline bint core_is_ours(const EngineCore *core) noexcept nogil:
    """Whether this is the process that made it: a forked child has the memory, but neither threads nor sockets."""
    return core.process_id == rf_process_id()


cdef inline int core_start(
    EngineCore *core, Loop *loop, int loops, int *handles, HostTable *hosts, long buffer_bytes, bint multiplexes
) noexcept nogil:
    """Start one loop. Returns 0 or an errno."""
    cdef int failed
    memset(loop, 0, sizeof(Loop))
    loop.multi = curl_multi_init()
    if loop.multi == NULL:
        return ENOMEM
    # Not curl_multi_wakeup, which may fail, and then nobody would hear of a command before the loop wakes by itself.
    failed = rf_bell_open(&loop.wake)
    if failed != 0:
        curl_multi_cleanup(loop.multi)
        return failed
    failed = mailbox_open(&loop.inbox)
    if failed == 0:
        multi_opt_long(
            loop.multi, CURLMOPT_MAXCONNECTS,
            min(POOLED_CONNECTIONS, max(rf_most_descriptors() // (POOLED_SHARE * loops), 1)),
        )
        multi_opt_long(loop.multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX if multiplexes else CURLPIPE_NOTHING)
        # Since 8.20 look-ups are the multi's: without this its end waits for those that hang. Before, it is not known.
        multi_opt_long(loop.multi, CURLMOPT_QUICK_EXIT, 1)
        loop.siblings = core.loops
        loop.sibling_count = loops
        loop.outbox = &core.outbox
        loop.bucket = &core.bucket
        loop.bell = &core.bell
        loop.handles = handles
        loop.buffer_bytes = buffer_bytes
        loop.hosts = hosts
        loop_joins(loop)
        failed = rf_thread_start(&loop.thread, loop_run, loop)
        if failed != 0:
            loop_leaves(loop)
            mailbox_close(&loop.inbox)
    if failed != 0:
        rf_bell_close(&loop.wake)
        curl_multi_cleanup(loop.multi)
        return failed
    core.loop_count += 1
    return 0


cdef inline EngineCore *core_new(
    int loops, int *handles, HostTable *hosts, long buffer_bytes, bint multiplexes, int *failed
) noexcept nogil:
    """A core with so many loops, held once; NULL: ``failed`` is the errno."""
    cdef EngineCore *core = <EngineCore *>calloc(1, sizeof(EngineCore))
    cdef int i
    failed[0] = ENOMEM
    if core == NULL:
        return NULL
    core.references = 1
    core.process_id = rf_process_id()
    core.bell.read_fd = core.bell.write_fd = RF_NO_SOCKET
    core.loops = <Loop *>calloc(<size_t>loops, sizeof(Loop))
    if core.loops == NULL or pthread_mutex_init(&core.stopping, NULL) != 0:
        free(core.loops)
        free(core)
        return NULL
    if mailbox_open(&core.outbox) != 0:
        pthread_mutex_destroy(&core.stopping)
        free(core.loops)
        free(core)
        return NULL
    failed[0] = rf_bell_open(&core.bell)
    for i in range(loops):
        if failed[0] == 0:
            failed[0] = core_start(core, &core.loops[i], loops, handles, hosts, buffer_bytes, multiplexes)
    if failed[0] != 0:
        core_stop(core)
        core_let_go(core)
        return NULL
    return core


cdef inline void core_stop(EngineCore *core) noexcept nogil:
    """End the threads, and free what only they used; when it returns they have ended, whoever did it.

    ``closed`` is set before, so that no command comes any more. In a forked child everything is left where it is,
    even the lock, which a thread may have held that the child does not have.
    """
    if not core_is_ours(core):
        return
    pthread_mutex_lock(&core.stopping)
    if not core.stopped:
        core_join(core)
        rf_store(&core.stopped, True)
    pthread_mutex_unlock(&core.stopping)


cdef inline void core_join(EngineCore *core) noexcept nogil:
    cdef Message quit_
    cdef Loop *loop
    cdef int i
    memset(&quit_, 0, sizeof(quit_))
    quit_.type = COMMAND_QUIT
    for i in range(core.loop_count):
        loop_tell(&core.loops[i], &quit_)
    for i in range(core.loop_count):
        pthread_join(core.loops[i].thread, NULL)
    # Only now, for they write to each other.
    for i in range(core.loop_count):
        loop = &core.loops[i]
        # Its connections are closed by this, which counts at their hosts.
        curl_multi_cleanup(loop.multi)
        shares_sweep(loop)
        if loop.tells_of_room:
            tell_peers(loop, COMMAND_ROOM, 0)
        loop_leaves(loop)
        mailbox_close(&loop.inbox)
        rf_bell_close(&loop.wake)
    core.loop_count = 0


cdef inline void core_let_go(EngineCore *core) noexcept nogil:
    """One holder less; the last one frees a core that was stopped."""
    core.references -= 1
    if core.references == 0 and core_is_ours(core):
        mailbox_close(&core.outbox)
        rf_bell_close(&core.bell)
        pthread_mutex_destroy(&core.stopping)
        free(core.loops)
        free(core)
