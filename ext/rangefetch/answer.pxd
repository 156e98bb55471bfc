"""The check of an answer, before its first byte is written (RFC 9110, sections 14 and 15.3.7).

A range is accepted when the status is 206, it starts where it was asked to and ends no later, the total is the
file's size, the validator is the source's, and there is no content encoding. A server may answer less than was
asked for; never more, and never something else.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy, strcmp, strlen
from posix.strings cimport strcasecmp, strncasecmp

from rangefetch.libcurl cimport (
    CURL,
    CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
    CURLINFO_RESPONSE_CODE,
    header_value,
    info_long,
    info_off,
)
from rangefetch.platform cimport rf_store
from rangefetch.transfer cimport (
    ACCEPTED,
    FAULT_ENCODED,
    FAULT_NONE,
    FAULT_RANGE_IGNORED,
    FAULT_RANGE_WRONG,
    FAULT_SIZE_CHANGED,
    FAULT_STATUS,
    FAULT_VALIDATOR_CHANGED,
    REFUSED,
    STATUS_OK,
    STATUS_PARTIAL_CONTENT,
    STATUS_RANGE_NOT_SATISFIABLE,
    SWALLOWED,
    VALIDATOR_BYTES,
    Fault,
    FileCore,
    Lane,
    Source,
    Verdict,
)

cdef struct ContentRange:
    int64_t start    # -1 in "bytes */total"
    int64_t end      # half-open
    int64_t total    # -1 in "bytes a-b/*"


cdef inline const char *read_number(const char *text, int64_t *number) noexcept nogil:
    """Digits up to 2**60 at the head of ``text``; what follows them, or NULL where there are none or too many."""
    if not c'0' <= text[0] <= c'9':
        return NULL
    number[0] = 0
    while c'0' <= text[0] <= c'9':
        if number[0] >= <int64_t>1 << 56:
            return NULL
        number[0] = number[0] * 10 + (text[0] - c'0')
        text += 1
    return text


cdef inline bint parse_content_range(const char *text, ContentRange *range_) noexcept nogil:
    """``bytes first-last/total``, where ``first-last`` or ``total`` may be ``*`` (RFC 9110, section 14.4)."""
    if strncasecmp(text, "bytes ", 6) != 0:
        return False
    text += 6
    while text[0] == c' ':
        text += 1
    range_.start = range_.end = range_.total = -1
    if text[0] == c'*':
        text += 1
    else:
        text = read_number(text, &range_.start)
        if text == NULL or text[0] != c'-':
            return False
        text = read_number(text + 1, &range_.end)
        if text == NULL or range_.end < range_.start:
            return False
        range_.end += 1
    if text[0] != c'/':
        return False
    text += 1
    if text[0] == c'*':
        text += 1
    else:
        text = read_number(text, &range_.total)
        if text == NULL or range_.end > range_.total:
            return False
    return text[0] == 0 and (range_.start >= 0 or range_.total >= 0)


cdef inline void keep_text(char *kept, const char *value) noexcept nogil:
    """Keep a validator, or nothing where it is absent or too long to be compared whole."""
    kept[0] = 0
    if value != NULL and strlen(value) < VALIDATOR_BYTES:
        memcpy(kept, value, strlen(value) + 1)


cdef inline void keep_validators(Source *source, CURL *easy) noexcept nogil:
    cdef const char *etag = header_value(easy, "ETag")
    # Python reads them once `known` is set.
    # A weak ETag does not promise the same bytes (RFC 9110, section 8.8.1).
    keep_text(source.etag, etag if etag != NULL and etag[0] == c'"' else NULL)
    keep_text(source.last_modified, header_value(easy, "Last-Modified"))
    rf_store(&source.known, True)


cdef inline bint validators_match(Source *source, CURL *easy) noexcept nogil:
    """The strong ETag where there was one, else the date. A validator that has gone proves nothing: no match.

    The first answer of a source gives what the later ones are held to.
    """
    cdef const char *value
    if not source.known:
        keep_validators(source, easy)
        return True
    if source.etag[0]:
        value = header_value(easy, "ETag")
        return value != NULL and strcmp(value, source.etag) == 0
    if source.last_modified[0]:
        value = header_value(easy, "Last-Modified")
        return value != NULL and strcmp(value, source.last_modified) == 0
    return True


cdef inline bint is_encoded(CURL *easy) noexcept nogil:
    cdef const char *encoding = header_value(easy, "Content-Encoding")
    return encoding != NULL and encoding[0] != 0 and strcasecmp(encoding, "identity") != 0


cdef inline Verdict refuse(Lane *lane, Fault fault) noexcept nogil:
    lane.fault = fault
    return REFUSED


cdef inline Verdict examine_part(FileCore *file, Lane *lane) noexcept nogil:
    cdef ContentRange answered
    cdef const char *text = header_value(lane.easy, "Content-Range")
    if text == NULL or not parse_content_range(text, &answered) or answered.total < 0:
        return refuse(lane, FAULT_RANGE_WRONG)
    if not lane.ranged or answered.start != lane.start or answered.end > lane.asked_end:
        return refuse(lane, FAULT_RANGE_WRONG)
    if is_encoded(lane.easy):
        return refuse(lane, FAULT_ENCODED)
    if file.size >= 0:
        if answered.total != file.size:
            return refuse(lane, FAULT_SIZE_CHANGED)
    else:
        file.size = answered.total
    if not validators_match(lane.source, lane.easy):
        return refuse(lane, FAULT_VALIDATOR_CHANGED)
    file.splits = True
    # Less than was asked for, or another lane has taken the later part meanwhile.
    if answered.end < lane.end:
        lane.end = answered.end
    return ACCEPTED


cdef inline Verdict examine_whole(FileCore *file, Lane *lane) noexcept nogil:
    cdef int64_t length = info_off(lane.easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T)
    if file.size >= 0 or not lane.is_first:
        if length >= 0 and length != file.size:
            return refuse(lane, FAULT_SIZE_CHANGED)
        if not validators_match(lane.source, lane.easy):
            return refuse(lane, FAULT_VALIDATOR_CHANGED)
        return refuse(lane, FAULT_RANGE_IGNORED)
    if is_encoded(lane.easy):
        return refuse(lane, FAULT_ENCODED)
    # The first request asked for a part and gets the whole: the server knows no ranges, so this is the stream.
    file.size = length
    validators_match(lane.source, lane.easy)
    lane.start = lane.position = 0
    lane.end = length
    return ACCEPTED


cdef inline Verdict examine(FileCore *file, Lane *lane) noexcept nogil:
    """Decide about the answer whose headers the lane has just received, and note the fault if it is refused."""
    cdef long status = info_long(lane.easy, CURLINFO_RESPONSE_CODE)
    cdef ContentRange answered
    cdef const char *text
    if status == STATUS_PARTIAL_CONTENT:
        return examine_part(file, lane)
    if status == STATUS_OK:
        return examine_whole(file, lane)
    lane.fault = FAULT_STATUS
    if status == STATUS_RANGE_NOT_SATISFIABLE and lane.ranged:
        text = header_value(lane.easy, "Content-Range")
        if text != NULL and parse_content_range(text, &answered) and answered.start < 0:
            if file.size >= 0 and answered.total != file.size:
                lane.fault = FAULT_SIZE_CHANGED
            elif file.size < 0 and lane.is_first and answered.total == 0:
                # No range fits into an empty file. A body, if any, is the server's words, not the file's.
                lane.fault = FAULT_NONE
                file.size = 0
                file.splits = True
                validators_match(lane.source, lane.easy)
                lane.end = 0
    return SWALLOWED
