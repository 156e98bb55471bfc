"""The part of an Engine that does not depend on Python: its loops, its outbox and its speed limit.

The core is reference-counted, because Files may outlive their Engine. It can also be stopped on its own: at interpreter
exit no thread may be left inside libcurl, whose libraries run their own cleanup then.
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
from rangefetch.host cimport shares_end
from rangefetch.loop cimport loop_run
from rangefetch.mailbox cimport (
    COMMAND_QUIT,
    COMMAND_ROOM,
    Mailbox,
    Message,
    mailbox_close,
    mailbox_open,
    messages_free,
)
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
    POOLED_CONNECTIONS = 256    # kept open per loop; libcurl's default shrinks with the transfers and drops warm ones
    POOLED_SHARE = 4            # ... but an engine's loops together keep at most one in this many descriptors

cdef struct EngineCore:
    Loop *loops           # owned: freed in core_let_go
    int loop_count        # loops whose threads run
    Mailbox outbox
    Message *untold       # owned: taken from the outbox, but Python was out of memory; NULL: none
    size_t untold_count
    Bucket bucket         # the limit for all files together
    rf_bell bell
    bint closed           # no more commands are accepted; protected by the GIL
    pthread_mutex_t stopping  # held while the threads are being stopped, so that a second caller waits for the first
    bint stopped          # the threads have ended; set with `stopping` held
    int references        # one for the Engine and one for each File that was added; protected by the GIL
    int live_files        # files that were added and whose last event was not returned yet
    int process_id        # the process that started the threads (for fork safety)
    EngineCore *next      # borrowed: the list of all cores


cdef inline bint core_is_ours(const EngineCore *core) noexcept nogil:
    """Whether this process created the core. A forked child has a copy of the memory, but no threads."""
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
    # Not curl_multi_wakeup(): it may fail, and then a command would wait until the loop wakes by itself.
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
        # Since 8.20 name look-ups belong to the multi handle, and without this, cleaning it up waits for those that
        # hang. Older versions do not know the option.
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
    """Create a core with ``loops`` loops and one reference. NULL: ``failed`` is the errno."""
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
    """Stop the threads, and free what only they used. On return they have ended, whichever caller stopped them.

    ``closed`` must be set before, so that no more commands are sent. In a forked child this does nothing and does not
    touch the lock, which a thread of the parent may have held at the fork.
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
    # Only after all have ended, since loops send messages to each other.
    for i in range(core.loop_count):
        loop = &core.loops[i]
        # This closes the loop's connections, which updates the counts of their hosts.
        curl_multi_cleanup(loop.multi)
        shares_end(loop)
        if loop.tells_of_room:
            tell_peers(loop, COMMAND_ROOM, 0)
        loop_leaves(loop)
        mailbox_close(&loop.inbox)
        rf_bell_close(&loop.wake)
    core.loop_count = 0


cdef inline void core_let_go(EngineCore *core) noexcept nogil:
    """Drop a reference. The last one frees the core, which must have been stopped."""
    core.references -= 1
    if core.references == 0 and core_is_ours(core):
        messages_free(core.untold, core.untold_count)
        mailbox_close(&core.outbox)
        rf_bell_close(&core.bell)
        pthread_mutex_destroy(&core.stopping)
        free(core.loops)
        free(core)
