"""Connections that libcurl keeps open after a transfer, and transfers that wait because of them.

A server that serves one connection at a time, or a few, answers no other before one of them is closed, and one that is
idle may stay open for as long as the server likes. So a transfer that is not answered on a new connection has every
loop of the process close what it keeps idle for that host. So does one that waits because the host has as many
connections as it may have, or because descriptors have run out.

libcurl closes idle connections of all hosts or of none. A loop therefore does it only where it has more sockets to that
host than transfers.
"""

from libc.stdint cimport int64_t

from rangefetch.libcurl cimport *
from rangefetch.platform cimport rf_add
from rangefetch.service cimport UNSERVED_MS, is_new_connection
from rangefetch.transfer cimport HOST_BUCKETS, UNCHECKED, HostShare, Lane, Loop


cdef inline bint waits_in_line(Loop *loop, Lane *lane) noexcept nogil:
    """Whether the lane has a new connection, or waits for one, that has not been served yet."""
    return (
        lane.file != NULL and lane.check == UNCHECKED and not lane.paused
        and loop.now_ms - lane.started_ms >= UNSERVED_MS
        and (is_new_connection(lane) or info_off(lane.easy, CURLINFO_PRETRANSFER_TIME_T) == 0)
    )


cdef inline bint keeps_idle(Loop *loop, int64_t host) noexcept nogil:
    """Whether a connection to the host is idle here; 0: to any."""
    cdef int first = <int>(<size_t>host % HOST_BUCKETS) if host != 0 else 0
    cdef int end = <int>(first + 1) if host != 0 else HOST_BUCKETS
    cdef HostShare *share
    cdef int i
    for i in range(first, end):
        share = loop.shares[i]
        while share != NULL:
            if share.sockets > share.lanes and (host == 0 or share.host.number == host):
                return True
            share = share.next
    return False


cdef inline void make_room(Loop *loop, int64_t host) noexcept nogil:
    """Close what is kept idle, if some of that is for the host; 0: for any."""
    if not keeps_idle(loop, host):
        return
    if multi_opt_long(loop.multi, CURLMOPT_NETWORK_CHANGED, CURLMNWC_CLEAR_CONNS) != CURLM_OK:
        sweep(loop)


cdef inline void sweep(Loop *loop) noexcept nogil:
    """The same under a libcurl before 8.16, which looks at the age of its connections when a request is made.

    So one is made that cannot be sent: it wants an interface that does not exist. It closes what has been idle for a
    second at least; what is younger is closed when the waiting lane asks again.
    """
    cdef CURL *easy
    if loop.sweeper != NULL:
        return
    easy = curl_easy_init()
    if easy == NULL:
        return
    rf_add(loop.handles, 1)
    loop.sweeper = easy
    if (
        opt_no_signal(easy, 1)
        or opt_url(easy, "http://127.0.0.1/")
        or opt_text(easy, CURLOPT_PROXY, "")
        or opt_text(easy, CURLOPT_INTERFACE, "if!none")
        or opt_long(easy, CURLOPT_FRESH_CONNECT, 1)
        or opt_long(easy, CURLOPT_MAXAGE_CONN, 0)
        or curl_multi_add_handle(loop.multi, easy)
    ):
        sweep_ends(loop)


cdef inline void sweep_ends(Loop *loop) noexcept nogil:
    """The request has failed, as it was to, or the loop ends."""
    if loop.sweeper == NULL:
        return
    curl_multi_remove_handle(loop.multi, loop.sweeper)
    curl_easy_cleanup(loop.sweeper)
    loop.sweeper = NULL
    rf_add(loop.handles, -1)
