"""How large a file may be, and the numbers in which servers say so: bounded here, once, where they are read.

No size above ``LARGEST_FILE_BYTES`` comes any further, so that sums of two and rounding up to blocks fit 64 bits.
"""

from libc.stdint cimport int64_t

from rangefetch.libcurl cimport CURL, header_at, header_value


cdef extern from "platform.h" nogil:
    # 65,536 blocks of the largest block, of which a part fits 32 bits. Constants beyond an int, which an enum of
    # Cython's would cut down to one.
    const int64_t LARGEST_FILE_BYTES "RF_LARGEST_FILE_BYTES"
    const int64_t LARGEST_BLOCK_BYTES "RF_LARGEST_BLOCK_BYTES"


cdef inline const char *read_number(const char *text, int64_t *number) noexcept nogil:
    """The digits at the head of ``text``; what follows them, or NULL where there are none or too large a number."""
    if not c'0' <= text[0] <= c'9':
        return NULL
    number[0] = 0
    while c'0' <= text[0] <= c'9':
        number[0] = number[0] * 10 + (text[0] - c'0')
        if number[0] > LARGEST_FILE_BYTES:
            return NULL
        text += 1
    return text


cdef inline bint length_is_sound(CURL *easy) noexcept nogil:
    """Whether the response states no length, or one that a file can have, as often as it likes.

    A length that is stated twice and differs says that somebody on the way cuts the stream elsewhere (RFC 9112,
    section 6.3). With a transfer coding it counts for nothing, as in libcurl.
    """
    cdef const char *text = header_value(easy, "Content-Length")
    cdef int64_t length = 0
    cdef int64_t again = 0
    cdef size_t number = 0
    if text == NULL or header_value(easy, "Transfer-Encoding") != NULL:
        return True
    while text != NULL:
        text = read_number(text, &again)
        if text == NULL or text[0] != 0 or (number > 0 and again != length):
            return False
        length = again
        number += 1
        text = header_at(easy, "Content-Length", number)
    return True
