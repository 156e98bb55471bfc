"""Connections that libcurl keeps open after a transfer, and transfers that have to wait because of them.

A server that serves only one connection at a time, or a few, does not answer another before one of them is closed, and
an idle one may stay open for as long as the server likes. So if a transfer on a new connection gets no response, every
loop of the process closes its idle connections to that host. The same happens if a transfer waits because the host has
as many connections as it may have, or because the process has run out of descriptors.

libcurl can close idle connections only to all hosts at once. So a loop does it only if it has more sockets to that host
than transfers.
"""

from libc.stdint cimport int64_t

from rangefetch.libcurl cimport *
from rangefetch.platform cimport rf_add
from rangefetch.service cimport UNSERVED_MS, is_new_connection
from rangefetch.transfer cimport HOST_BUCKETS, UNCHECKED, HostShare, Lane, Loop


cdef inline bint waits_in_line(Loop *loop, Lane *lane) noexcept nogil:
    """Whether the lane has waited for some time for a response on a new connection, or for the connection itself."""
    return (
        lane.file != NULL and lane.check == UNCHECKED and not lane.paused
        and loop.now_ms - lane.started_ms >= UNSERVED_MS
        and (is_new_connection(lane) or info_off(lane.easy, CURLINFO_PRETRANSFER_TIME_T) == 0)
    )


cdef inline bint keeps_idle(Loop *loop, int64_t host) noexcept nogil:
    """Whether this loop has an idle connection to the host; 0: to any host."""
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
    """Close the idle connections, if some are to this host; 0: to any host."""
    if not keeps_idle(loop, host):
        return
    if multi_opt_long(loop.multi, CURLMOPT_NETWORK_CHANGED, CURLMNWC_CLEAR_CONNS) != CURLM_OK:
        sweep(loop)


cdef inline void sweep(Loop *loop) noexcept nogil:
    """Do the same with libcurl before 8.16, which checks the age of idle connections only when a request is made.

    So make one that cannot be sent, since it wants a network interface that does not exist. This closes connections
    that have been idle for at least a second; younger ones are closed when the waiting lane asks again.
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
    """Free the request of ``sweep``: it has failed, as intended, or the loop is ending."""
    if loop.sweeper == NULL:
        return
    curl_multi_remove_handle(loop.multi, loop.sweeper)
    curl_easy_cleanup(loop.sweeper)
    loop.sweeper = NULL
    rf_add(loop.handles, -1)
