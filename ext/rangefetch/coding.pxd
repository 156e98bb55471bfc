"""Content codings: whether a response's body is the file, or an encoding of it that nobody asked for.

The file is what the server stores. Servers that store ``x.tar.gz`` often send ``Content-Encoding: x-gzip`` with it,
which describes the file, not the response (Apache's ``AddEncoding``). Words that name no coding are ignored.
"""

from libc.stdio cimport snprintf
from libc.string cimport strcspn, strlen, strspn
from posix.strings cimport strncasecmp

from rangefetch.libcurl cimport CURL, header_at, header_value
from rangefetch.transfer cimport ERROR_TEXT_BYTES, FileCore, Source


cdef inline bint is_word(const char *text, size_t size, const char *word) noexcept nogil:
    return size == strlen(word) and strncasecmp(text, word, size) == 0


cdef inline bint ends_in(const char *text, size_t size, const char *suffix) noexcept nogil:
    cdef size_t length = strlen(suffix)
    return size > length and strncasecmp(text + size - length, suffix, length) == 0


cdef inline bint says_gzip(const char *name, size_t size) noexcept nogil:
    return (
        ends_in(name, size, ".gz") or ends_in(name, size, ".tgz") or ends_in(name, size, ".svgz")
        or ends_in(name, size, ".taz") or ends_in(name, size, ".emz") or ends_in(name, size, ".wmz")
        or ends_in(name, size, ".bgz") or ends_in(name, size, ".cpgz") or ends_in(name, size, ".crate")
    )


cdef inline bint says_coding(const char *name, size_t size, const char *coding, size_t length) noexcept nogil:
    """Whether the name of a file indicates that the file itself has this coding."""
    if is_word(coding, length, "gzip") or is_word(coding, length, "x-gzip"):
        return says_gzip(name, size)
    if is_word(coding, length, "compress") or is_word(coding, length, "x-compress"):
        return ends_in(name, size, ".z") or ends_in(name, size, ".taz") or says_gzip(name, size)
    if is_word(coding, length, "br"):
        return ends_in(name, size, ".br")
    if is_word(coding, length, "zstd"):
        return ends_in(name, size, ".zst") or ends_in(name, size, ".tzst") or ends_in(name, size, ".zstd")
    if is_word(coding, length, "bzip2") or is_word(coding, length, "x-bzip2"):
        return ends_in(name, size, ".bz2") or ends_in(name, size, ".tbz") or ends_in(name, size, ".tbz2")
    if is_word(coding, length, "xz") or is_word(coding, length, "x-xz"):
        return ends_in(name, size, ".xz") or ends_in(name, size, ".txz")
    return False


cdef inline bint is_real_coding(const char *word, size_t size) noexcept nogil:
    """Whether a word names a coding: those in IANA's registry, and others that servers use."""
    return (
        is_word(word, size, "gzip") or is_word(word, size, "x-gzip") or is_word(word, size, "deflate")
        or is_word(word, size, "compress") or is_word(word, size, "x-compress") or is_word(word, size, "br")
        or is_word(word, size, "zstd") or is_word(word, size, "dcb") or is_word(word, size, "dcz")
        or is_word(word, size, "exi") or is_word(word, size, "aes128gcm") or is_word(word, size, "pack200-gzip")
        or is_word(word, size, "bzip2") or is_word(word, size, "x-bzip2") or is_word(word, size, "xz")
        or is_word(word, size, "x-xz") or is_word(word, size, "lzma")
    )


cdef inline bint url_says_coding(const char *url, const char *coding, size_t length) noexcept nogil:
    """The same for the path of a URL, which may be NULL."""
    return url != NULL and says_coding(url, strcspn(url, "?#"), coding, length)


cdef inline bint is_the_files_own(
    const FileCore *file, const Source *source, CURL *easy, const char *coding, size_t length
) noexcept nogil:
    """Whether the file itself has this coding, going by its name: in the URL before or after redirects, or as given by
    the server or the user."""
    cdef const char *disposition = header_value(easy, "Content-Disposition")
    cdef size_t size
    if (
        url_says_coding(source.url, coding, length) or url_says_coding(source.resolved_url, coding, length)
        or url_says_coding(file.name, coding, length)
    ):
        return True
    if disposition == NULL:
        return False
    size = strlen(disposition)
    while size > 0 and disposition[size - 1] in (c'"', c' ', c'\t', c';', c"'"):
        size -= 1
    return says_coding(disposition, size, coding, length)


cdef struct Words:
    CURL *easy           # borrowed
    const char *field    # borrowed: the name of a list header, which may occur several times
    size_t number        # which occurrence
    const char *text     # borrowed from libcurl: the word; NULL: before the first one
    size_t length


cdef inline bint next_word(Words *at) noexcept nogil:
    """Move to the next word of a list header (RFC 9110, section 5.6.1). False: there is none."""
    if at.text == NULL:
        at.text = header_value(at.easy, at.field)
    else:
        at.text += at.length
    while at.text != NULL:
        at.text += strspn(at.text, " \t,")
        at.length = strcspn(at.text, " \t,")
        if at.length > 0:
            return True
        at.number += 1
        at.text = header_at(at.easy, at.field, at.number)
    return False


cdef inline bint is_encoded(const FileCore *file, const Source *source, CURL *easy) noexcept nogil:
    """Whether the body is an encoding of the file instead of its bytes (RFC 9110, section 8.4)."""
    cdef Words at = Words(easy=easy, field="Content-Encoding", number=0, text=NULL, length=0)
    while next_word(&at):
        if is_real_coding(at.text, at.length) and not (
            file.takes_codings or is_the_files_own(file, source, easy, at.text, at.length)
        ):
            return True
    return False


cdef inline bint has_transfer_coding(CURL *easy) noexcept nogil:
    """Whether there is a transfer coding besides "chunked" (RFC 9112, section 7.4), which nobody asked for.

    Newer versions of libcurl refuse it; 7.88 delivers the encoded bytes.
    """
    cdef Words at = Words(easy=easy, field="Transfer-Encoding", number=0, text=NULL, length=0)
    while next_word(&at):
        if not is_word(at.text, at.length, "chunked") and not is_word(at.text, at.length, "identity"):
            return True
    return False


cdef inline void name_coding(CURL *easy, char *words) noexcept nogil:
    """Write down the coding for which a response was refused; ``words`` has room for ``ERROR_TEXT_BYTES``."""
    cdef const char *coding = header_value(easy, "Transfer-Encoding")
    if coding != NULL and has_transfer_coding(easy):
        snprintf(words, ERROR_TEXT_BYTES, "Transfer-Encoding: %s", coding)
        return
    coding = header_value(easy, "Content-Encoding")
    if coding != NULL:
        snprintf(words, ERROR_TEXT_BYTES, "Content-Encoding: %s", coding)
