"""Many small files: one request each, no probe, no part file, no Python in between.

A batch is a list of URLs and names in one directory. Each item is fetched by one ranged request that is large enough
for a small file; its bytes go into a file without a name (``O_TMPFILE``), which gets its name in one step when they
are all there. So there is nothing to lock, to save or to clean up, whatever happens. An item for which anything is
out of the ordinary (a large file, an error, a name that is taken) is returned to Python, which fetches it as any other
download. Runs on its loop's thread; Python reads states and sizes.

The hosts of a batch take turns. One that rests, or has as many connections as it may have, is passed over, and an item
that it refused for now goes back among those that wait.
"""

from libc.stdint cimport int64_t
from libc.stdio cimport snprintf
from libc.string cimport memset, strlen

from rangefetch.checks cimport free, malloc
from rangefetch.claims cimport is_limited
from rangefetch.host cimport (
    host_rest,
    share_admits,
    share_of,
    share_settle,
    share_waits,
    source_leaves,
    where_to,
)
from rangefetch.lane cimport lane_detach, lane_release, lane_rest, lane_send, lane_take
from rangefetch.libcurl cimport curl_getdate, header_value
from rangefetch.platform cimport (
    rf_close,
    rf_count,
    rf_is_there,
    rf_load,
    rf_open_nameless,
    rf_publish_nameless,
    rf_set_time,
    rf_store,
)
from rangefetch.service cimport is_new_connection, is_unserved
from rangefetch.tail cimport left_ms
from rangefetch.transfer cimport (
    ACCEPTED,
    ITEM_DONE,
    ITEM_LATE,
    ITEM_RETURNED,
    ITEM_RUNNING,
    ITEM_WAITING,
    UNCHECKED,
    BatchCore,
    BatchHost,
    FileCore,
    ItemState,
    Lane,
    Loop,
    Source,
)


cdef enum:
    CRAWL_AFTER_MS = 5000     # of an item that has been coming for so long
    CRAWL_LEFT_MS = 10_000    # ... and will for so much longer
    HURRY_MS = 2000           # for a host that has not answered yet, while others wait
    MOST_TRIES = 4            # of an item that its host refuses for now


cdef inline BatchHost *host_of_item(FileCore *slot) noexcept nogil:
    return &slot.batch.hosts[slot.batch.host_of[slot.item]]


cdef inline void item_waits(BatchCore *batch, int item) noexcept nogil:
    """The item is the next one of its host."""
    cdef BatchHost *host = &batch.hosts[batch.host_of[item]]
    batch.next_of[item] = host.first
    host.first = item
    batch.waiting += 1
    rf_store(&batch.states[item], ITEM_WAITING)


cdef inline char *validators_told(const Source *source) noexcept nogil:
    """Its ETag and its Last-Modified, a line each, for free(); NULL: it has said nothing, or there is no memory."""
    cdef size_t size = strlen(source.etag) + strlen(source.last_modified) + 2
    cdef char *lines = <char *>malloc(size) if source.known else NULL
    if lines != NULL:
        snprintf(lines, size, "%s\n%s", source.etag, source.last_modified)
    return lines


cdef inline void item_ends(FileCore *slot, ItemState state) noexcept nogil:
    """An item is done, or for Python or another lane to do; the slot is free."""
    cdef BatchCore *batch = slot.batch
    cdef int item = slot.item
    if slot.fd >= 0:
        rf_close(slot.fd)
        slot.fd = -1
    source_leaves(slot.sources[0])
    if slot.size >= 0:
        batch.sizes[item] = slot.size
    if state == ITEM_RETURNED and batch.validators[item] == NULL:
        # Whoever fetches it now must not be told less.
        batch.validators[item] = validators_told(slot.sources[0])
    rf_count(&batch.head.received_bytes, slot.received_bytes)
    rf_count(&batch.head.requests, slot.requests)
    rf_count(&batch.head.connections, slot.connections)
    rf_count(&batch.head.writes, slot.writes)
    batch.running -= 1
    rf_count(&batch.loop.items_running, -1)
    slot.item = -1
    if state == ITEM_WAITING:
        item_waits(batch, item)
    else:
        rf_store(&batch.states[item], state)


cdef inline void slot_prepare(BatchCore *batch, FileCore *slot, int item) noexcept nogil:
    """Make a slot ready for an item: as a file of which nothing is known."""
    cdef Source *source = slot.sources[0]
    free(source.resolved_url)
    memset(source, 0, sizeof(Source))
    source.url = batch.urls[item]
    source.profile = batch.profile
    source.share = batch.hosts[batch.host_of[item]].share
    source.share.sources += 1
    memset(slot, 0, sizeof(FileCore))
    slot.batch = batch
    slot.item = item
    slot.owner = batch.head.owner
    slot.fd = -1
    slot.size = slot.pinned_size = -1
    slot.ranged = True
    slot.first_bytes = batch.first_bytes
    slot.host_lanes_most = batch.head.host_lanes_most
    slot.sources[0] = source
    slot.source_count = 1


cdef inline bint host_may_be_asked(Loop *loop, BatchCore *batch, BatchHost *host) noexcept nogil:
    """Whether the host may get one more transfer, for which it has granted what it needs then."""
    cdef int64_t most = batch.head.host_lanes_most
    if host.share == NULL:
        return False
    if host.served > 0 and host.share.lanes >= host.served:
        return False
    return share_admits(loop, host.share, most, False)


cdef inline int next_item(Loop *loop, BatchCore *batch) noexcept nogil:
    """The next item whose name is free, of the next host that may be asked, which has granted what it needs; -1: there
    is none now. Those whose names are taken are returned."""
    cdef BatchHost *host
    cdef int passed_over = 0
    cdef int item
    while batch.waiting > 0 and passed_over < batch.host_count:
        batch.turn += 1
        if batch.turn >= batch.host_count:
            batch.turn = 0
        host = &batch.hosts[batch.turn]
        if host.first < 0 or not host_may_be_asked(loop, batch, host):
            passed_over += 1
            continue
        passed_over = 0
        item = host.first
        host.first = batch.next_of[item]
        batch.waiting -= 1
        if batch.overwrite or not rf_is_there(batch.directory_fd, batch.names[item]):
            return item
        rf_store(&batch.states[item], ITEM_RETURNED)
        share_settle(host.share)
    return -1


cdef inline bint batch_go_on(Loop *loop, Lane *lane, FileCore *slot) noexcept nogil:
    """Give a lane the batch's next item. False: there is none now."""
    cdef BatchCore *batch = slot.batch
    cdef int item
    if loop.items_running >= loop.places:
        return False
    item = next_item(loop, batch)
    if item < 0:
        # Another batch may have something for its place.
        loop.has_room = loop.has_room or loop.batches.next != NULL
        return False
    slot_prepare(batch, slot, item)
    rf_store(&batch.states[item], ITEM_RUNNING)
    batch.running += 1
    rf_count(&loop.items_running, 1)
    lane.file = slot
    lane.source = slot.sources[0]
    lane.is_first = True
    lane.ranged = True
    lane.redirects = 0
    lane.start = lane.position = lane.claim_end = 0
    lane.end = batch.first_bytes
    slot.lanes_busy = 1
    lane_send(loop, lane)
    return True


cdef inline void batch_feed(Loop *loop, BatchCore *batch) noexcept nogil:
    """Put idle lanes to work on the batch, as many as it may have."""
    cdef Lane *lane
    cdef int i
    for i in range(batch.lanes_most):
        if batch.waiting == 0 or loop.items_running >= loop.places:
            return
        if batch.slots[i].item >= 0:
            continue
        lane = lane_take(loop)
        if lane == NULL:
            return
        if not batch_go_on(loop, lane, &batch.slots[i]):
            lane_rest(loop, lane)
            return


cdef inline void batch_begin(Loop *loop, BatchCore *batch) noexcept nogil:
    """The loop takes it on: find out where its hosts are."""
    cdef BatchHost *host
    cdef int i
    batch.loop = loop
    for i in range(batch.host_count):
        host = &batch.hosts[i]
        host.share = share_of(loop, where_to(batch.profile, batch.urls[host.first]))
        if host.share != NULL:
            host.share.sources += 1
        else:
            host_is_given_up(batch, host, ITEM_RETURNED)
    batch_feed(loop, batch)


cdef inline void batch_leaves(BatchCore *batch) noexcept nogil:
    """The loop lets go of it."""
    cdef int i
    for i in range(batch.host_count):
        if batch.hosts[i].share != NULL:
            share_waits(batch.hosts[i].share, False)
            batch.hosts[i].share.sources -= 1
            batch.hosts[i].share = NULL


cdef inline bint batch_is_over(const BatchCore *batch) noexcept nogil:
    return batch.running == 0 and batch.waiting == 0


cdef inline void host_is_given_up(BatchCore *batch, BatchHost *host, ItemState state) noexcept nogil:
    """What waits for the host is for Python to do."""
    while host.first >= 0:
        rf_store(&batch.states[host.first], state)
        host.first = batch.next_of[host.first]
        batch.waiting -= 1


cdef inline bint slot_open(FileCore *slot) noexcept nogil:
    """The first bytes of an item have come: open its nameless file. False: this filesystem has none such."""
    return rf_open_nameless(slot.batch.directory_fd, &slot.fd) == 0


cdef inline bint slot_publish(Lane *lane, FileCore *slot) noexcept nogil:
    """All bytes are there: set the time, and give the file its name. False: the name is taken, or the disk refuses."""
    cdef const char *date = lane.source.last_modified
    if slot.fd < 0 and not slot_open(slot):
        return False
    if date[0] != 0:
        rf_set_time(slot.fd, <int64_t>curl_getdate(date, NULL))
    return rf_publish_nameless(
        slot.fd, slot.batch.directory_fd, slot.batch.names[slot.item], slot.batch.overwrite
    ) == 0


cdef inline void slot_goes_on(Loop *loop, Lane *lane, FileCore *slot, ItemState state) noexcept nogil:
    """The slot's item ends so, and the lane takes the next. The transfer is detached and released."""
    item_ends(slot, state)
    if not batch_go_on(loop, lane, slot):
        lane_rest(loop, lane)


cdef inline void batch_return(Loop *loop, Lane *lane) noexcept nogil:
    """The lane's item is for Python to do."""
    slot_goes_on(loop, lane, lane.file, ITEM_RETURNED)


cdef inline void batch_put_back(Loop *loop, Lane *lane) noexcept nogil:
    """The lane's item waits again, as if it had not been asked for. The lane is at rest, so that this is no circle."""
    item_ends(lane.file, ITEM_WAITING)
    lane_rest(loop, lane)


cdef inline void batch_deliver(Loop *loop, Lane *lane) noexcept nogil:
    """The lane's item is whole."""
    cdef FileCore *slot = lane.file
    if slot.size < 0:
        slot.size = lane.position
    # A server may answer less than was asked for, and then the rest is Python's to ask for, too.
    slot_goes_on(
        loop, lane, slot,
        ITEM_DONE if lane.position == slot.size and slot_publish(lane, slot) else ITEM_RETURNED,
    )


cdef inline int64_t rest_ms_after(Loop *loop, FileCore *slot, int64_t retry_after_s) noexcept nogil:
    """How long a host is left alone that has refused an item: as long as it says, else a back-off with jitter."""
    cdef BatchCore *batch = slot.batch
    cdef int64_t bound_ms = batch.retry_wait_ms << min(<int>batch.tries[slot.item], 6)
    cdef int64_t wait_ms = bound_ms // 2 + (loop.now_us % (bound_ms // 2 + 1))
    return min(max(wait_ms, 1000 * max(retry_after_s, 0)), batch.longest_rest_ms)


cdef inline bint batch_refused(Loop *loop, Lane *lane, int64_t retry_after_s) noexcept nogil:
    """The host refuses the lane's item for now: it rests. False: it has done so too often."""
    cdef FileCore *slot = lane.file
    if lane.share != NULL:
        host_rest(lane.share.host, loop.now_ms + rest_ms_after(loop, slot, retry_after_s))
    slot.batch.tries[slot.item] += 1
    return slot.batch.tries[slot.item] < MOST_TRIES


cdef inline void batch_failed(Loop *loop, Lane *lane, bint timed_out) noexcept nogil:
    """The lane's item is for Python to do. Where a host lets its first items run out of time, all others of that host
    are, too: they need not wait as long, each in its turn."""
    cdef BatchHost *host = host_of_item(lane.file)
    if timed_out and host.memory.moved_ms == 0:
        host_is_given_up(lane.file.batch, host, ITEM_RETURNED)
    batch_return(loop, lane)


cdef inline bint item_crawls(Loop *loop, const Lane *lane) noexcept nogil:
    """Whether an item comes so slowly that it is better fetched as any other download, whose slow ranges get help."""
    return (
        lane.check == ACCEPTED and loop.now_ms - lane.started_ms >= CRAWL_AFTER_MS
        and left_ms(loop, lane) > CRAWL_LEFT_MS and not is_limited(loop, lane.file)
    )


cdef inline bint is_hopeless(Loop *loop, const Lane *lane) noexcept nogil:
    """Whether others have waited long enough for a host that has not answered yet."""
    return (
        lane.file.batch.hurries and lane.check == UNCHECKED and not lane.paused
        and loop.now_ms - lane.started_ms >= HURRY_MS
        and lane.share != NULL and rf_load(&lane.share.host.answered) == 0
    )


cdef inline void batch_withdraw(Loop *loop, BatchCore *batch) noexcept nogil:
    """From time to time: give up new connections that nobody answers while the host answers others, and hosts that
    answer nobody while others wait; and ask again those that were resting."""
    cdef Lane *lane = loop.lanes
    cdef BatchHost *host
    while lane != NULL:
        if lane.file != NULL and lane.file.batch == batch:
            host = host_of_item(lane.file)
            if is_new_connection(lane) and is_unserved(loop, lane):
                # Its item goes to the lanes that work, and the host gets no more than those.
                lane_detach(loop, lane)
                lane_release(lane)
                batch_put_back(loop, lane)
                host.served = host.share.lanes if host.share.lanes > 1 else 1
            elif is_hopeless(loop, lane):
                lane_detach(loop, lane)
                lane_release(lane)
                host_is_given_up(batch, host, ITEM_LATE)
                slot_goes_on(loop, lane, lane.file, ITEM_LATE)
            elif item_crawls(loop, lane):
                lane_detach(loop, lane)
                lane_release(lane)
                batch_return(loop, lane)
        lane = lane.next
    batch_feed(loop, batch)


cdef inline bint batch_is_special(const Lane *lane) noexcept nogil:
    """The answer says that the item is no small file, has another name, or can be proved."""
    if lane.file.size > lane.file.first_bytes:
        return True
    if lane.file.batch.named_by_url and (
        lane.source.resolved_url != NULL or header_value(lane.easy, "Content-Disposition") != NULL
    ):
        return True
    return header_value(lane.easy, "Repr-Digest") != NULL


cdef inline void batch_stop(Loop *loop, BatchCore *batch) noexcept nogil:
    """End the batch's transfers; what was not done is returned."""
    cdef Lane *lane = loop.lanes
    cdef int i
    for i in range(batch.host_count):
        host_is_given_up(batch, &batch.hosts[i], ITEM_RETURNED)
    while lane != NULL:
        if lane.file != NULL and lane.file.batch == batch:
            lane_detach(loop, lane)
            lane_release(lane)
            item_ends(lane.file, ITEM_RETURNED)
            lane_rest(loop, lane)
        lane = lane.next
