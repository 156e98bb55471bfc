"""Cookies that servers set during downloads, such as those of login hosts and warning pages; kept in memory.

libcurl implements the rules (RFC 6265 and the public suffix list); this is the store that transfers share, with its
locks. A handle is attached to it only during a transfer, so that the store can be freed when nothing uses it any more.
"""

from rangefetch.libcurl cimport CURL, curl_share_cleanup, curl_share_init, share_cookies
from rangefetch.platform cimport (
    pthread_mutex_destroy,
    pthread_mutex_init,
    pthread_mutex_lock,
    pthread_mutex_unlock,
)
from rangefetch.transfer cimport MOST_LOCKS, JarCore


cdef inline void on_lock(CURL *easy, int data, int access, void *arg) noexcept nogil:
    if 0 <= data < MOST_LOCKS:
        pthread_mutex_lock(&(<JarCore *>arg).locks[data])


cdef inline void on_unlock(CURL *easy, int data, void *arg) noexcept nogil:
    if 0 <= data < MOST_LOCKS:
        pthread_mutex_unlock(&(<JarCore *>arg).locks[data])


cdef inline bint jar_open(JarCore *jar) noexcept nogil:
    """Create the store. False: out of memory, or libcurl was built without cookies."""
    cdef int i
    for i in range(MOST_LOCKS):
        pthread_mutex_init(&jar.locks[i], NULL)
    jar.share = curl_share_init()
    return jar.share != NULL and share_cookies(jar.share, on_lock, on_unlock, jar) == 0


cdef inline void jar_close(JarCore *jar) noexcept nogil:
    cdef int i
    if jar.share != NULL:
        curl_share_cleanup(jar.share)
    for i in range(MOST_LOCKS):
        pthread_mutex_destroy(&jar.locks[i])
