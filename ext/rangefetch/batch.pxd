"""Many small files: one request each, no probe, no part file, no Python in between.

A batch is a list of URLs and names in one directory. Each item is fetched by one ranged request that is large enough
for a small file; its bytes go into a file without a name (``O_TMPFILE``), which gets its name in one step when they
are all there. So there is nothing to lock, to save or to clean up, whatever happens. An item for which anything is
out of the ordinary (a large file, an error, a name that is taken) is returned to Python, which fetches it as any other
download. Runs on its loop's thread; Python reads states and sizes.
"""

from libc.stdint cimport int64_t
from libc.string cimport memset

from rangefetch.checks cimport free
from rangefetch.claims cimport is_limited
from rangefetch.lane cimport lane_detach, lane_release, lane_rest, lane_send, lane_take
from rangefetch.libcurl cimport curl_getdate, header_value
from rangefetch.platform cimport (
    rf_close,
    rf_count,
    rf_is_there,
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
    ITEM_RETURNED,
    ITEM_RUNNING,
    ITEM_WAITING,
    BatchCore,
    FileCore,
    ItemState,
    Lane,
    Loop,
    Source,
)


cdef enum:
    CRAWL_AFTER_MS = 5000     # of an item that has been coming for so long
    CRAWL_LEFT_MS = 10_000    # ... and will for so much longer


cdef inline void item_ends(FileCore *slot, ItemState state) noexcept nogil:
    """An item is done, or for Python or another lane to do; the slot is free."""
    cdef BatchCore *batch = slot.batch
    if slot.fd >= 0:
        rf_close(slot.fd)
        slot.fd = -1
    batch.sizes[slot.item] = slot.size if state == ITEM_DONE else 0
    rf_count(&batch.head.received_bytes, slot.received_bytes)
    rf_count(&batch.head.requests, slot.requests)
    rf_count(&batch.head.connections, slot.connections)
    rf_count(&batch.head.writes, slot.writes)
    rf_store(&batch.states[slot.item], state)
    batch.running -= 1
    slot.item = -1


cdef inline void slot_prepare(BatchCore *batch, FileCore *slot, int item) noexcept nogil:
    """Make a slot ready for an item: as a file of which nothing is known."""
    cdef Source *source = slot.sources[0]
    free(source.resolved_url)
    memset(source, 0, sizeof(Source))
    source.url = batch.urls[item]
    source.profile = batch.profile
    memset(slot, 0, sizeof(FileCore))
    slot.batch = batch
    slot.item = item
    slot.owner = batch.head.owner
    slot.fd = -1
    slot.size = slot.pinned_size = -1
    slot.ranged = True
    slot.first_bytes = batch.first_bytes
    slot.sources[0] = source
    slot.source_count = 1


cdef inline int next_item(BatchCore *batch) noexcept nogil:
    """The next item whose name is free; -1: none is left. Those whose names are taken are returned."""
    cdef int item
    if batch.again_count > 0:
        batch.again_count -= 1
        return batch.again[batch.again_count]
    while batch.next_item < batch.count:
        item = batch.next_item
        batch.next_item += 1
        if batch.overwrite or not rf_is_there(batch.directory_fd, batch.names[item]):
            return item
        rf_store(&batch.states[item], ITEM_RETURNED)
    return -1


cdef inline bint batch_go_on(Loop *loop, Lane *lane, FileCore *slot) noexcept nogil:
    """Give a lane the batch's next item. False: there is none."""
    cdef BatchCore *batch = slot.batch
    cdef int item = next_item(batch)
    if item < 0:
        return False
    slot_prepare(batch, slot, item)
    rf_store(&batch.states[item], ITEM_RUNNING)
    batch.running += 1
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
        if batch.running >= batch.lanes_left:
            return
        if batch.slots[i].item >= 0:
            continue
        lane = lane_take(loop)
        if lane == NULL:
            return
        if not batch_go_on(loop, lane, &batch.slots[i]):
            lane_rest(loop, lane)
            return


cdef inline bint batch_is_over(const BatchCore *batch) noexcept nogil:
    return batch.running == 0 and batch.again_count == 0 and batch.next_item >= batch.count


cdef inline bint slot_open(FileCore *slot) noexcept nogil:
    """The first bytes of an item have come: open its nameless file. False: this filesystem has none such."""
    return rf_open_nameless(slot.batch.directory_fd, &slot.fd) == 0


cdef inline bint slot_publish(Lane *lane, FileCore *slot) noexcept nogil:
    """All bytes are there: set the time, and give the file its name. False: the name is taken, or the disk refuses."""
    cdef const char *date = header_value(lane.easy, "Last-Modified")
    if slot.fd < 0 and not slot_open(slot):
        return False
    if date != NULL:
        rf_set_time(slot.fd, <int64_t>curl_getdate(date, NULL))
    return rf_publish_nameless(
        slot.fd, slot.batch.directory_fd, slot.batch.names[slot.item], slot.batch.overwrite
    ) == 0


cdef inline void batch_return(Loop *loop, Lane *lane) noexcept nogil:
    """The lane's item is for Python to do; the lane takes the next. The transfer is detached and released."""
    cdef FileCore *slot = lane.file
    item_ends(slot, ITEM_RETURNED)
    if not batch_go_on(loop, lane, slot):
        lane_rest(loop, lane)


cdef inline void batch_deliver(Loop *loop, Lane *lane) noexcept nogil:
    """The lane's item is whole; the lane takes the next. The transfer is detached and released."""
    cdef FileCore *slot = lane.file
    if slot.size < 0:
        slot.size = lane.position
    # A server may answer less than was asked for, and then the rest is Python's to ask for, too.
    item_ends(slot, ITEM_DONE if lane.position == slot.size and slot_publish(lane, slot) else ITEM_RETURNED)
    if not batch_go_on(loop, lane, slot):
        lane_rest(loop, lane)


cdef inline bint item_crawls(Loop *loop, const Lane *lane) noexcept nogil:
    """Whether an item comes so slowly that it is better fetched as any other download, whose slow ranges get help."""
    return (
        lane.verdict == ACCEPTED and loop.now_ms - lane.started_ms >= CRAWL_AFTER_MS
        and left_ms(loop, lane) > CRAWL_LEFT_MS and not is_limited(loop, lane.file)
    )


cdef inline void batch_withdraw(Loop *loop, BatchCore *batch) noexcept nogil:
    """From time to time: give up new connections that nobody answers while others are answered. Their items go to the
    lanes that work, and the batch does without theirs.
    """
    cdef Lane *lane = loop.lanes
    cdef FileCore *slot
    while lane != NULL:
        slot = lane.file
        if slot != NULL and slot.batch == batch and is_new_connection(lane) and is_unserved(loop, lane):
            lane_detach(loop, lane)
            lane_release(lane)
            batch.again[batch.again_count] = slot.item
            batch.again_count += 1
            item_ends(slot, ITEM_WAITING)
            lane_rest(loop, lane)
            if batch.lanes_left > 1:
                batch.lanes_left -= 1
        elif slot != NULL and slot.batch == batch and item_crawls(loop, lane):
            lane_detach(loop, lane)
            lane_release(lane)
            batch_return(loop, lane)
        lane = lane.next
    if batch.again_count > 0:
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
    cdef int item
    batch.next_item = batch.count
    batch.again_count = 0
    while lane != NULL:
        if lane.file != NULL and lane.file.batch == batch:
            lane_detach(loop, lane)
            lane_release(lane)
            item_ends(lane.file, ITEM_RETURNED)
            lane_rest(loop, lane)
        lane = lane.next
    for item in range(batch.count):
        if batch.states[item] != ITEM_DONE:
            rf_store(&batch.states[item], ITEM_RETURNED)
