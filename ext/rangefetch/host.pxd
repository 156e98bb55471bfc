"""The engine's part of the governor: how many connections each host has, and when it may be asked.

A host is where connections go: behind redirects, or the proxy if there is one. All loops of the process share what is
known of it (``Host``), whichever engine they belong to. Each loop also has its own share (``HostShare``): connections
that were granted to it, which it uses without asking anybody. So a request takes no lock. A loop takes a lock when it
first uses a host, and changes the shared numbers when a connection is opened or closed, and around a transfer.

A host is open; or it rests until some time, because it asked for that; or that time is over, and one request finds out
whether the host is back before any other is sent.
"""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport calloc as make_for_good
from libc.stdlib cimport free as unmake
from libc.string cimport memset

from rangefetch.checks cimport calloc, free
from rangefetch.mailbox cimport COMMAND_MAKE_ROOM, COMMAND_ROOM
from rangefetch.origin cimport is_secure, origin_number, origin_of
from rangefetch.pace cimport host_slot, slot_returns
from rangefetch.peers cimport ask_for_room, make_room_soon, note_room, tell_loops
from rangefetch.platform cimport (
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
    rf_add,
    rf_ends_with,
    rf_load,
    rf_process_id,
    rf_store,
    rf_swap_if,
)
from rangefetch.transfer cimport (
    ACCEPTED,
    HOST_BUCKETS,
    FileCore,
    Host,
    HostShare,
    HostTable,
    Lane,
    Loop,
    ProfileCore,
    Source,
)

cdef enum:
    MOST_FORGETTABLE = 1024   # how many hosts may be added, beyond twice as many, before unused ones are forgotten
    LONGEST_TRYING_MS = 5000  # for one request to find out whether a host is back; then others follow
    ASK_FOR_ROOM_MS = 100     # how often a loop that waits for a host asks the others to close idle connections
    STARVING_PAUSE_MS = 100   # between attempts to open a connection when there are no descriptors
    OUTSIDE_FIRST_MS = 500    # a caller outside the engine that has waited this long precedes files not begun
    OUTSIDE_GONE_MS = 1000    # ... but not if it has not asked again for this long


# ---- The table ---------------------------------------------------------------------------------------------------

cdef inline void hosts_open(HostTable *table) noexcept nogil:
    """Make the table this process's: a forked child starts with an empty one, since the connections are its parent's.

    Call it before other threads use the table.
    """
    if table.process_id == rf_process_id():
        return
    memset(table, 0, sizeof(HostTable))
    pthread_mutex_init(&table.lock, NULL)
    table.process_id = rf_process_id()


cdef inline Host **host_link(HostTable *table, int64_t number) noexcept nogil:
    cdef Host **link = &table.buckets[<size_t>number % HOST_BUCKETS]
    while link[0] != NULL and link[0].number != number:
        link = &link[0].next
    return link


cdef inline void hosts_forget(HostTable *table, int64_t now_ms) noexcept nogil:
    """Forget the hosts that nobody uses and that may be asked now; call it with the lock held."""
    cdef Host **link
    cdef Host *host
    cdef int i
    for i in range(HOST_BUCKETS):
        link = &table.buckets[i]
        while link[0] != NULL:
            host = link[0]
            if (
                host.shares == 0 and host.taken == 0 and host.rested_ms <= now_ms
                and rf_load(&host.slots_us) <= 1000 * now_ms
            ):
                link[0] = host.next
                unmake(host)
                table.count -= 1
            else:
                link = &host.next
    table.forget_at = 2 * table.count + MOST_FORGETTABLE


cdef inline Host *host_find(HostTable *table, int64_t number, int64_t now_ms) noexcept nogil:
    """The host of that number, created if it is not there; call it with the lock held. NULL: out of memory."""
    cdef Host **link = host_link(table, number)
    if link[0] != NULL:
        return link[0]
    if table.count > table.forget_at:
        hosts_forget(table, now_ms)
        link = host_link(table, number)
    # Not counted with an engine's allocations: it belongs to the process.
    link[0] = <Host *>make_for_good(1, sizeof(Host))
    if link[0] != NULL:
        link[0].number = number
        table.count += 1
    return link[0]


# ---- Rests -------------------------------------------------------------------------------------------------------

cdef inline void raise_to(int64_t *where, int64_t value) noexcept nogil:
    cdef int64_t before = rf_load(where)
    while before < value and not rf_swap_if(where, before, value):
        before = rf_load(where)


cdef inline void host_rest(Host *host, int64_t until_ms) noexcept nogil:
    """Have nobody ask the host before this time; a longer rest stays."""
    raise_to(&host.rested_ms, until_ms)


cdef inline void host_fill(Host *host, int64_t until_ms, int64_t refused) noexcept nogil:
    """Until this time, allow the host no more transfers than are under way now, less those that it has just refused."""
    cdef int64_t lanes = rf_load(&host.lanes) - refused
    rf_store(&host.full_lanes, max(lanes, 1))
    raise_to(&host.full_ms, until_ms)


cdef inline void hosts_rest(HostTable *table, int64_t number, int64_t now_ms, int64_t ms, bint for_all) noexcept nogil:
    """Leave the host alone, as Python has decided; without ``for_all``, transfers under way may continue. From any
    thread."""
    cdef Host *host
    pthread_mutex_lock(&table.lock)
    host = host_find(table, number, now_ms)
    if host != NULL:
        if for_all:
            host_rest(host, now_ms + ms)
        else:
            host_fill(host, now_ms + ms, 0)
    pthread_mutex_unlock(&table.lock)


cdef inline int64_t hosts_rest_for_ms(HostTable *table, int64_t number, int64_t now_ms) noexcept nogil:
    """For how much longer the host is to be left alone; from any thread."""
    cdef Host *host
    cdef int64_t until_ms = 0
    pthread_mutex_lock(&table.lock)
    host = host_link(table, number)[0]
    if host != NULL:
        until_ms = rf_load(&host.rested_ms)
        if rf_load(&host.full_ms) > until_ms:
            until_ms = rf_load(&host.full_ms)
    pthread_mutex_unlock(&table.lock)
    return max(until_ms - now_ms, 0)


cdef inline int64_t hosts_slot(
    HostTable *table, int64_t number, int64_t now_us, int64_t every_us
) noexcept nogil:
    """Take a slot for a request sent outside the engine, and return in how many microseconds it is; from any thread."""
    cdef Host *host
    cdef int64_t slot_us = now_us
    pthread_mutex_lock(&table.lock)
    host = host_find(table, number, now_us // 1000)
    if host != NULL:
        slot_us = host_slot(host, every_us, now_us)
    pthread_mutex_unlock(&table.lock)
    return slot_us - now_us


cdef inline int64_t hosts_next_slot(HostTable *table, int64_t number, int64_t now_us) noexcept nogil:
    """In how many microseconds the next free slot is; from any thread."""
    cdef Host *host
    cdef int64_t slot_us = now_us
    pthread_mutex_lock(&table.lock)
    host = host_link(table, number)[0]
    if host != NULL:
        slot_us = max(rf_load(&host.slots_us), now_us)
    pthread_mutex_unlock(&table.lock)
    return slot_us - now_us


cdef inline int64_t hosts_have_answered(HostTable *table, int64_t number) noexcept nogil:
    """Whether the host has sent any response (1), or data of a file (2); from any thread."""
    cdef Host *host
    cdef int64_t answered
    pthread_mutex_lock(&table.lock)
    host = host_link(table, number)[0]
    answered = rf_load(&host.answered) if host != NULL else 0
    pthread_mutex_unlock(&table.lock)
    return answered


# ---- A loop's share ----------------------------------------------------------------------------------------------

cdef inline int64_t where_to(const ProfileCore *profile, const char *url) noexcept nogil:
    """The number of the host to which a connection for the URL goes: the URL's own, or the proxy."""
    cdef int64_t via = profile.https_via if is_secure(url) else profile.http_via
    cdef size_t size = 0
    cdef const char *host
    cdef int i
    if via == 0:
        return origin_number(url)
    host = origin_of(url, &size)
    for i in range(profile.direct_count):
        if rf_ends_with(host, size, profile.direct[i]):
            return origin_number(url)
    return via


cdef inline HostShare *share_of(Loop *loop, int64_t number) noexcept nogil:
    """The loop's share of a host, created if it is not there. NULL: out of memory."""
    cdef HostShare **link = &loop.shares[<size_t>number % HOST_BUCKETS]
    cdef HostShare *share
    while link[0] != NULL and link[0].host.number != number:
        link = &link[0].next
    if link[0] != NULL:
        return link[0]
    share = <HostShare *>calloc(1, sizeof(HostShare))
    if share == NULL:
        return NULL
    pthread_mutex_lock(&loop.hosts.lock)
    share.host = host_find(loop.hosts, number, loop.now_ms)
    if share.host != NULL:
        share.host.shares += 1
    pthread_mutex_unlock(&loop.hosts.lock)
    if share.host == NULL:
        free(share)
        return NULL
    share.loop = loop
    link[0] = share
    loop.share_count += 1
    return share


cdef inline void share_waits(HostShare *share, bint waits) noexcept nogil:
    """Note whether something on this loop waits for a connection to the host."""
    if share.waits != waits:
        share.waits = waits
        rf_add(&share.host.waiting, 1 if waits else -1)


cdef inline void share_give_back(HostShare *share) noexcept nogil:
    """Give back the grants that neither a transfer nor an open connection uses."""
    cdef int32_t used = max(share.lanes, share.sockets)
    cdef int32_t surplus = share.granted - used
    if surplus <= 0:
        return
    share.granted = used
    if rf_add(&share.host.taken, -surplus) == 0:
        rf_store(&share.host.most, 0)
    if rf_load(&share.host.waiting) > 0:
        note_room(share.loop)


cdef inline void shares_end(Loop *loop) noexcept nogil:
    """Give back all that the loop's hosts have granted, once its connections are closed; before libcurl 8 not each of
    them is reported as closed.
    """
    cdef HostShare *share
    cdef int i
    for i in range(HOST_BUCKETS):
        share = loop.shares[i]
        while share != NULL:
            share.lanes = share.sockets = 0
            share_give_back(share)
            share = share.next
    shares_sweep(loop)


cdef inline void shares_sweep(Loop *loop) noexcept nogil:
    """Free the shares of hosts that nothing on this loop uses any more."""
    cdef HostShare **link
    cdef HostShare *share
    cdef int i
    for i in range(HOST_BUCKETS):
        link = &loop.shares[i]
        while link[0] != NULL:
            share = link[0]
            if share.sources == 0 and share.lanes == 0 and share.sockets == 0:
                share_waits(share, False)
                share_give_back(share)
                pthread_mutex_lock(&loop.hosts.lock)
                share.host.shares -= 1
                pthread_mutex_unlock(&loop.hosts.lock)
                link[0] = share.next
                free(share)
                loop.share_count -= 1
            else:
                link = &share.next


cdef inline HostShare *source_share(Loop *loop, Source *source) noexcept nogil:
    """The share of the host where the source is asked. NULL: out of memory."""
    if source.share == NULL:
        source.share = share_of(
            loop, where_to(source.profile, source.resolved_url if source.resolved_url != NULL else source.url)
        )
        if source.share != NULL:
            source.share.sources += 1
    return source.share


cdef inline void source_leaves(Source *source) noexcept nogil:
    """Detach the source from its host: it moves to another one, or is not asked any more."""
    if source.share != NULL:
        source.share.sources -= 1
        source.share = NULL
    source.slot_us = 0


cdef inline void leave_hosts(FileCore *file) noexcept nogil:
    """Detach the file's sources from their hosts; they are not asked any more."""
    cdef int i
    for i in range(file.source_count):
        if file.sources[i].share != NULL:
            share_waits(file.sources[i].share, False)
            slot_returns(file, file.sources[i])
        source_leaves(file.sources[i])


# ---- May a transfer begin? ---------------------------------------------------------------------------------------

cdef inline bint host_grants(Host *host) noexcept nogil:
    """Count one more connection, if the host may have one more."""
    cdef int64_t taken = rf_load(&host.taken)
    while taken < rf_load(&host.most):
        if rf_swap_if(&host.taken, taken, taken + 1):
            return True
        taken = rf_load(&host.taken)
    return False


cdef inline bint host_is_resting(Loop *loop, const HostShare *share) noexcept nogil:
    """Whether the host is to be left alone, or a request is just finding out whether it is back."""
    cdef int64_t rested_ms
    if share == NULL:
        return False
    rested_ms = rf_load(&share.host.rested_ms)
    return rested_ms > loop.now_ms or (
        rested_ms != 0 and loop.now_ms - rf_load(&share.host.trying_ms) < LONGEST_TRYING_MS
    )


cdef inline bint host_is_full(Loop *loop, const HostShare *share) noexcept nogil:
    """Whether the host has said that it takes no more transfers than it has."""
    return (
        share != NULL and rf_load(&share.host.full_ms) > loop.now_ms
        and rf_load(&share.host.lanes) >= rf_load(&share.host.full_lanes)
    )


cdef inline bint outside_is_next(const Loop *loop, const Host *host) noexcept nogil:
    """Whether the next connection is due to a caller outside the engine that waits for one. Files under way keep
    theirs."""
    cdef int64_t since_ms = rf_load(&host.outside_ms)
    return (
        since_ms != 0 and loop.now_ms - since_ms >= OUTSIDE_FIRST_MS
        and loop.now_ms - rf_load(&host.outside_asked_ms) < OUTSIDE_GONE_MS
    )


cdef inline bint share_may_ask(
    Loop *loop, HostShare *share, int64_t most, bint insists, bint begins
) noexcept nogil:
    """Whether one more transfer may begin at the host.

    The host may have ``most`` connections, or as many as its other users allow, if that is more; ``insists`` ignores
    this limit. If the answer is no for want of a connection, note that one is wanted. ``begins``: the file has no
    response yet.
    """
    cdef int64_t taken
    if share == NULL or host_is_resting(loop, share) or host_is_full(loop, share):
        return False
    if share.served > 0 and share.lanes >= share.served and loop.now_ms < share.served_again_ms:
        share_waits(share, True)
        return False
    if loop.now_ms < loop.starved_again_ms and share.lanes >= share.sockets:
        # It would need another connection, for which there is no descriptor.
        share_waits(share, True)
        return False
    if begins and not insists and outside_is_next(loop, share.host):
        share_waits(share, True)
        if share.sockets > share.lanes and loop.now_ms - share.asked_ms >= ASK_FOR_ROOM_MS:
            share.asked_ms = loop.now_ms
            make_room_soon(loop, share.host.number)
        return False
    raise_to(&share.host.most, most)
    taken, most = rf_load(&share.host.taken), rf_load(&share.host.most)
    # A connection granted beyond the limit, to a file that insisted, is for no other.
    if insists:
        return True  # which says nothing about the others that wait
    if taken < most or (share.lanes < share.granted and taken <= most):
        share.refused_ms = 0
        return True
    share_waits(share, True)
    if share.refused_ms == 0:
        # Not at once: connections that are idle elsewhere may be needed there in a moment.
        share.refused_ms = loop.now_ms
    elif loop.now_ms - max(share.refused_ms, share.asked_ms) >= ASK_FOR_ROOM_MS:
        share.asked_ms = loop.now_ms
        ask_for_room(loop, share.host.number)
        if share.sockets > share.lanes:
            # A connection beyond the limit, opened for a file that insisted, would stay idle here forever.
            make_room_soon(loop, share.host.number)
    return False


cdef inline bint share_admits(
    Loop *loop, HostShare *share, int64_t most, bint insists, bint begins
) noexcept nogil:
    """The same, but also grant the connection, which ``lane_send`` uses or ``share_give_back`` gives back."""
    if not share_may_ask(loop, share, most, insists, begins):
        return False
    if loop.starved_ms != 0 and share.lanes >= share.sockets:
        # One lane finds out for all whether there is a descriptor now.
        loop.starved_again_ms = loop.now_ms + STARVING_PAUSE_MS
    if share.lanes < share.granted:
        return True
    if not host_grants(share.host):
        if not insists:
            return False
        rf_add(&share.host.taken, 1)
    share.granted += 1
    return True


# ---- Connections outside the engine ------------------------------------------------------------------------------

cdef inline int64_t hosts_take(
    HostTable *table, int64_t number, int64_t now_ms, int64_t wanted, int64_t most
) noexcept nogil:
    """Grant a caller outside the engine the connections that it wants, or as many as ``most`` leaves.

    If there are none, the loops close idle connections to the host, and the next free one is for whoever asks again.
    Returns how many were granted. May be called from any thread.
    """
    cdef Host *host
    cdef int64_t granted = 0
    pthread_mutex_lock(&table.lock)
    host = host_find(table, number, now_ms)
    if host != NULL:
        raise_to(&host.most, most)
        while granted < wanted and host_grants(host):
            granted += 1
        if granted > 0:
            rf_store(&host.outside_ms, 0)
        elif wanted > 0:
            if rf_load(&host.outside_ms) == 0 or now_ms - rf_load(&host.outside_asked_ms) >= OUTSIDE_GONE_MS:
                rf_store(&host.outside_ms, now_ms)
            rf_store(&host.outside_asked_ms, now_ms)
            tell_loops(table, NULL, COMMAND_MAKE_ROOM, number)
    pthread_mutex_unlock(&table.lock)
    return granted


cdef inline void hosts_give_back(HostTable *table, int64_t number, int64_t count) noexcept nogil:
    """Give back connections that a caller outside the engine has closed; from any thread."""
    cdef Host *host
    pthread_mutex_lock(&table.lock)
    host = host_link(table, number)[0]
    if host != NULL:
        if rf_add(&host.taken, -count) == 0:
            rf_store(&host.most, 0)
        if rf_load(&host.waiting) > 0:
            tell_loops(table, NULL, COMMAND_ROOM, 0)
    pthread_mutex_unlock(&table.lock)


# ---- Transfers ---------------------------------------------------------------------------------------------------

cdef inline void share_begin(Loop *loop, Lane *lane, HostShare *share) noexcept nogil:
    """Count the lane's transfer, which begins."""
    cdef int64_t trying_ms
    lane.share = share
    lane.opened = 0
    lane.refused_socket = 0
    lane.finds_out = False
    if share == NULL:
        return
    share.lanes += 1
    rf_add(&share.host.lanes, 1)
    if rf_load(&share.host.rested_ms) != 0:
        trying_ms = rf_load(&share.host.trying_ms)
        lane.finds_out = rf_swap_if(&share.host.trying_ms, trying_ms, loop.now_ms)


cdef inline void share_answered(Loop *loop, Lane *lane) noexcept nogil:
    """Note that the host has answered and did not ask for a rest: it is open."""
    cdef Host *host
    if lane.share == NULL:
        return
    host = lane.share.host
    raise_to(&host.answered, 2 if lane.check == ACCEPTED else 1)
    if lane.finds_out:
        lane.finds_out = False
        if rf_load(&host.rested_ms) <= loop.now_ms:
            rf_store(&host.rested_ms, 0)
        rf_store(&host.trying_ms, 0)
        note_room(loop)


cdef inline void share_end(Lane *lane) noexcept nogil:
    """Count the lane's transfer as over."""
    cdef HostShare *share = lane.share
    if share == NULL:
        return
    if lane.finds_out:
        # It did not find out whether the host is back; the next one will.
        lane.finds_out = False
        rf_store(&share.host.trying_ms, 0)
    lane.share = NULL
    share.lanes -= 1
    rf_add(&share.host.lanes, -1)
    share_give_back(share)
    if share.waits:
        # The connection may be idle now. Other loops need not know.
        share.loop.has_room = True


cdef inline bint share_opens(Lane *lane, HostShare *share) noexcept nogil:
    """Count a socket that libcurl is about to open for the lane. False: it would be one connection too many.

    A transfer's second socket is an attempt at another address of the host, and only one of them will stay.
    """
    if share == NULL:
        return True
    if lane.opened == 0 and share.sockets >= share.granted:
        # An idle connection that this transfer cannot use: it goes by another proxy, or speaks another version.
        if not host_grants(share.host):
            return False
        share.granted += 1
    lane.opened += 1
    share.sockets += 1
    return True


cdef inline void share_closes(HostShare *share) noexcept nogil:
    """Count a socket that libcurl has closed."""
    share.sockets -= 1
    share_give_back(share)
