"""How large a file may be. The numbers that servers send are checked once, here, as they are parsed.

No size above ``LARGEST_FILE_BYTES`` gets past this, so adding two sizes, or rounding one up to blocks, cannot overflow
64 bits.
"""

from libc.stdint cimport int64_t

from rangefetch.libcurl cimport CURL, header_at, header_value


cdef extern from "platform.h" nogil:
    # 65,536 blocks of the largest size, at which the partial bytes of a block fit 32 bits. Not an enum, because Cython
    # would truncate its values to an int.
    const int64_t LARGEST_FILE_BYTES "RF_LARGEST_FILE_BYTES"
    const int64_t LARGEST_BLOCK_BYTES "RF_LARGEST_BLOCK_BYTES"


cdef inline const char *read_number(const char *text, int64_t *number) noexcept nogil:
    """Parse the digits at the start of ``text``. Returns what follows them; NULL: no digits, or too large a number."""
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
    """Whether the response has no Content-Length, or one that a file can have; it may be repeated.

    Different lengths mean that something on the way splits the stream elsewhere (RFC 9112, section 6.3). With a
    transfer coding the length is ignored, as in libcurl.
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
