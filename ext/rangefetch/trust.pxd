"""Who may be sent what: the user's headers, cookies and passwords go only to hosts that the user has named."""

from libc.string cimport strlen
from posix.strings cimport strncasecmp

from rangefetch.origin cimport is_secure, origin_of, same_origin
from rangefetch.transfer cimport Credential, ProfileCore, Source


cdef inline bint names_host(const char *host, const char *url) noexcept nogil:
    """Whether ``host``, which may include a port, is the URL's. Without a port it stands for all ports of the host."""
    cdef size_t size = 0
    cdef const char *at = origin_of(url, &size)
    cdef size_t length = strlen(host)
    if size == length and strncasecmp(at, host, length) == 0:
        return True
    return size > length and at[length] == c':' and at[length - 1] != c':' and strncasecmp(at, host, length) == 0


cdef inline bint is_for_the_users(const Source *source) noexcept nogil:
    """Whether the user's headers and cookies may be sent to the source's current URL: it is at the origin that the user
    named, or at a host that the user trusts."""
    cdef int i
    cdef ProfileCore *profile = source.profile
    if source.resolved_url == NULL or same_origin(source.url, source.resolved_url):
        return True
    for i in range(profile.trusted_count):
        # Never send in the clear what was given for an encrypted connection.
        if names_host(profile.trusted[i], source.resolved_url) and (
            is_secure(source.resolved_url) or not is_secure(source.url)
        ):
            return True
    return False


cdef inline const Credential *credential_for(const Source *source, const char *url, bint users) noexcept nogil:
    """The user name and password for the server of ``url``; NULL: none. ``users``: those for the user's origin, too."""
    cdef int i
    cdef ProfileCore *profile = source.profile
    for i in range(profile.credential_count):
        if profile.credentials[i].host == NULL:
            if users:
                return &profile.credentials[i]
        elif names_host(profile.credentials[i].host, url):
            return &profile.credentials[i]
    return NULL
