"""The parts of a URL that say where a connection goes: scheme, host and port."""

from libc.stdint cimport int64_t
from posix.strings cimport strncasecmp


cdef inline bint is_secure(const char *url) noexcept nogil:
    return strncasecmp(url, "https:", 6) == 0


cdef inline const char *origin_of(const char *url, size_t *size) noexcept nogil:
    """Find host and port in a URL, without userinfo, and without the port if it is the scheme's default."""
    cdef bint secure = strncasecmp(url, "https", 5) == 0
    cdef const char *at = url
    cdef size_t i = 0
    while at[0] != 0 and at[0] != c':':
        at += 1
    while at[0] == c':' or at[0] == c'/':
        at += 1
    while at[i] != 0 and at[i] != c'/' and at[i] != c'?' and at[i] != c'#':
        if at[i] == c'@':
            at += i + 1
            i = 0
        else:
            i += 1
    if secure and i > 4 and strncasecmp(at + i - 4, ":443", 4) == 0:
        i -= 4
    elif not secure and i > 3 and strncasecmp(at + i - 3, ":80", 3) == 0:
        i -= 3
    size[0] = i
    return at


cdef inline int64_t origin_number(const char *url) noexcept nogil:
    """A number for scheme, host and port (FNV-1a), never 0. Origins with the same number would share their limits."""
    cdef size_t size = 0
    cdef const char *at = origin_of(url, &size)
    cdef unsigned long long number = 14695981039346656037ULL ^ <unsigned long long>is_secure(url)
    cdef size_t i
    for i in range(size):
        number = (number ^ (<unsigned char>at[i] | 0x20)) * 1099511628211ULL
    return <int64_t>(number >> 2) + 1


cdef inline bint same_origin(const char *one, const char *other) noexcept nogil:
    """Whether scheme, host and port are the same (RFC 6454, section 5), so that both may be sent the user's data."""
    cdef size_t one_size = 0
    cdef size_t other_size = 0
    cdef const char *one_at = origin_of(one, &one_size)
    cdef const char *other_at = origin_of(other, &other_size)
    return (
        is_secure(one) == is_secure(other) and one_size == other_size
        and strncasecmp(one_at, other_at, one_size) == 0
    )
