"""Where a transfer may connect to, judged by address: a host name says nothing about that.

Whoever fetches URLs from strangers must not be led to machines that only they can reach. The address is checked when a
socket is opened, after the name was resolved, so that DNS rebinding (a name that resolves to something else the second
time) does not help an attacker. It is checked again before each request, since another download may have opened the
connection.

Through a proxy the address is the proxy's, and the proxy resolves the name. Nothing can be promised then, so the
transfer is refused.
"""

from libc.stdio cimport snprintf

from rangefetch.host cimport where_to
from rangefetch.libcurl cimport CURL_PREREQFUNC_ABORT, CURL_PREREQFUNC_OK, curl_sockaddr
from rangefetch.origin cimport origin_number
from rangefetch.transfer cimport ADDRESS_TEXT_BYTES, REACH_ALL, REACH_NAMED, Lane
from rangefetch.trust cimport is_for_the_users


cdef extern from "address.h" nogil:
    ctypedef struct sockaddr "struct sockaddr":
        pass
    bint rf_is_private(const sockaddr *address, unsigned int size)
    bint rf_text_is_private(const char *text)
    void rf_address_text(const sockaddr *address, char *text, unsigned int size)


cdef inline bint is_confined(const Lane *lane) noexcept nogil:
    """Whether the lane's transfer may connect only to public addresses."""
    cdef int reach = lane.source.profile.reach
    return reach != REACH_ALL and not (reach == REACH_NAMED and is_for_the_users(lane.source))


cdef inline bint goes_by_proxy(const Lane *lane) noexcept nogil:
    cdef const char *url = lane.source.resolved_url if lane.source.resolved_url != NULL else lane.source.url
    return where_to(lane.source.profile, url) != origin_number(url)


cdef inline bint may_open(Lane *lane, const curl_sockaddr *address) noexcept nogil:
    """Whether the lane may open a socket to this address; if not, note the address."""
    if not is_confined(lane):
        return True
    if goes_by_proxy(lane):
        snprintf(lane.refused_address, ADDRESS_TEXT_BYTES, "proxy")
        return False
    if rf_is_private(<const sockaddr *>&address.addr, address.addrlen):
        rf_address_text(<const sockaddr *>&address.addr, lane.refused_address, ADDRESS_TEXT_BYTES)
        return False
    return True


cdef inline int on_request(void *arg, char *address, char *local, int port, int local_port) noexcept nogil:
    """libcurl is about to send a request on a connection, new or reused, to this address: check it."""
    cdef Lane *lane = <Lane *>arg
    if not is_confined(lane):
        return CURL_PREREQFUNC_OK
    if goes_by_proxy(lane):
        snprintf(lane.refused_address, ADDRESS_TEXT_BYTES, "proxy")
    elif address == NULL or rf_text_is_private(address):
        snprintf(lane.refused_address, ADDRESS_TEXT_BYTES, "%s", <const char *>b"?" if address == NULL else address)
    else:
        return CURL_PREREQFUNC_OK
    return CURL_PREREQFUNC_ABORT
