"""Checks a response before its first byte is written (RFC 9110, sections 14 and 15.3.7).

A range is accepted when the status is 206, it starts where the request did and ends no later, the total is the file's
size, the validator is the source's, and there is no content encoding. A server may send less than was asked for, but
never more, and never another range.
"""

from libc.stdint cimport int64_t
from libc.string cimport memcpy, strcmp, strcspn, strlen
from posix.strings cimport strncasecmp

from rangefetch.coding cimport has_transfer_coding, is_encoded
from rangefetch.libcurl cimport (
    CURL,
    CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
    CURLINFO_RESPONSE_CODE,
    header_said,
    header_value,
    info_long,
    info_off,
)
from rangefetch.platform cimport rf_count, rf_store
from rangefetch.sizes cimport length_is_sound, read_number
from rangefetch.transfer cimport (
    ACCEPTED,
    FAULT_ENCODED,
    FAULT_NONE,
    FAULT_RANGE_IGNORED,
    FAULT_RANGE_WRONG,
    FAULT_SIZE_CHANGED,
    FAULT_SIZE_UNSOUND,
    FAULT_UNVOUCHED,
    FAULT_STATUS,
    FAULT_TOO_LARGE,
    FAULT_VALIDATOR_CHANGED,
    FAULT_VALIDATOR_TOO_LONG,
    REFUSED,
    STATUS_CREATED,
    LAST_KNOWN_SUCCESS,
    STATUS_NON_AUTHORITATIVE,
    STATUS_NO_CONTENT,
    STATUS_OK,
    STATUS_PARTIAL_CONTENT,
    STATUS_RANGE_NOT_SATISFIABLE,
    SWALLOWED,
    VALIDATOR_BYTES,
    Fault,
    FileCore,
    Lane,
    Source,
    Check,
)

cdef struct ContentRange:
    int64_t start    # -1 in "bytes */total"
    int64_t end      # half-open
    int64_t total    # -1 in "bytes a-b/*"


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


# The same rule as in ``rangefetch.identity``, which explains it; one table of tests covers both.
cdef enum Same:
    SAME_PROVEN = 0
    SAME_LIKELY = 1
    SAME_DIFFERENT = 2


cdef inline bint is_strong(const char *etag) noexcept nogil:
    cdef size_t size
    if etag[0] != c'"':
        return False
    size = strcspn(etag + 1, b'"')
    return size > 0 and etag[1 + size] == c'"' and etag[2 + size] == 0


cdef inline Same same_validators(
    const char *etag, const char *last_modified, const char *other_etag, const char *other_last_modified
) noexcept nogil:
    """Compare the validators of two responses; an empty string means absent (RFC 9110, section 8.8)."""
    if is_strong(etag) and is_strong(other_etag):
        return SAME_PROVEN if strcmp(etag, other_etag) == 0 else SAME_DIFFERENT
    if strcmp(etag, other_etag) == 0 and strcmp(last_modified, other_last_modified) == 0:
        return SAME_LIKELY
    return SAME_DIFFERENT


cdef inline const char *validator_of(CURL *easy, const char *name) noexcept nogil:
    """The response's header of this name; empty if it is absent, or present with two values that differ.

    A cache may add a validator of its own to the server's; then neither of them proves anything.
    """
    cdef bint contradicts
    cdef const char *value = header_said(easy, name, &contradicts)
    if value == NULL or contradicts:
        return b""
    return value


cdef inline Fault check_validators(Source *source, CURL *easy, bint alone) noexcept nogil:
    """Compare a response's validators with its source's; the first response of a source sets them.

    A validator too long to store could not be compared later. That is a fault, unless the response stands ``alone``:
    then its body is not combined with any other.
    """
    cdef const char *etag = validator_of(easy, "ETag")
    cdef const char *last_modified = validator_of(easy, "Last-Modified")
    if source.known:
        if same_validators(source.etag, source.last_modified, etag, last_modified) == SAME_DIFFERENT:
            return FAULT_VALIDATOR_CHANGED
        return FAULT_NONE
    if strlen(etag) >= VALIDATOR_BYTES or strlen(last_modified) >= VALIDATOR_BYTES:
        if not alone:
            return FAULT_VALIDATOR_TOO_LONG
        etag = b""
        last_modified = b""
    memcpy(source.etag, etag, strlen(etag) + 1)
    memcpy(source.last_modified, last_modified, strlen(last_modified) + 1)
    # Python reads them once `known` is set.
    rf_store(&source.known, True)
    return FAULT_NONE


cdef inline Check refuse(Lane *lane, Fault fault) noexcept nogil:
    lane.fault = fault
    return REFUSED


cdef inline Check accept(FileCore *file) noexcept nogil:
    rf_count(&file.counters.responses, 1)
    return ACCEPTED


cdef inline bint read_content_range(CURL *easy, ContentRange *range_) noexcept nogil:
    """Read the part that the response says it is. False: it does not say. If that makes no sense, ``start`` is -1."""
    cdef bint contradicts
    cdef const char *text = header_said(easy, "Content-Range", &contradicts)
    if text == NULL:
        return False
    if contradicts or not parse_content_range(text, range_):
        range_.start = range_.end = range_.total = -1
    return True


cdef inline bint is_what_was_asked(const Lane *lane, const ContentRange *part) noexcept nogil:
    """Whether the part starts where the request does, ends no later, and states the file's size."""
    return lane.ranged and part.total >= 0 and part.start == lane.start and part.end <= lane.asked_end


cdef inline bint names_another_part(Lane *lane, long status) noexcept nogil:
    """Whether a response whose body never began is for another part than was asked for, so that a retry is useless."""
    cdef ContentRange part
    return (
        status == STATUS_PARTIAL_CONTENT and read_content_range(lane.easy, &part)
        and not is_what_was_asked(lane, &part)
    )


cdef inline bint is_too_large(const FileCore *file, int64_t size) noexcept nogil:
    """Whether a file of this size is larger than the user allows."""
    return 0 < file.most_bytes < size


cdef inline Check examine_part(FileCore *file, Lane *lane, const ContentRange *part) noexcept nogil:
    cdef Fault fault
    if not is_what_was_asked(lane, part):
        return refuse(lane, FAULT_RANGE_WRONG)
    if is_encoded(file, lane.source, lane.easy) or has_transfer_coding(lane.easy):
        return refuse(lane, FAULT_ENCODED)
    if (file.size >= 0 and part.total != file.size) or (file.pinned_size >= 0 and part.total != file.pinned_size):
        return refuse(lane, FAULT_SIZE_CHANGED)
    if is_too_large(file, part.total):
        return refuse(lane, FAULT_TOO_LARGE)
    fault = check_validators(lane.source, lane.easy, False)
    if fault != FAULT_NONE:
        return refuse(lane, fault)
    rf_store(&file.size, part.total)
    rf_store(&file.splits, True)
    # The server may send less than was asked for. Never raise the end: another lane may have taken the later part.
    if part.end < lane.end:
        lane.end = part.end
    return accept(file)


cdef inline bint has_lost_validators(const Source *source, CURL *easy) noexcept nogil:
    """Whether the source had a validator and this response has none; a new version of the file would have one too."""
    return (
        source.known and (source.etag[0] != 0 or source.last_modified[0] != 0)
        and validator_of(easy, "ETag")[0] == 0 and validator_of(easy, "Last-Modified")[0] == 0
    )


cdef inline bint may_be_empty(const FileCore *file, const Lane *lane) noexcept nogil:
    """Whether an empty response to a range may mean an empty file: nothing is known of the file yet."""
    return lane.ranged and lane.is_first and file.size < 0 and file.pinned_size <= 0


cdef inline Check examine_whole(FileCore *file, Lane *lane) noexcept nogil:
    """Check a response whose status means the whole file; some caches and hubs send a part, and may not say so."""
    cdef int64_t length = info_off(lane.easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T)
    cdef bint unvouched
    cdef Fault fault
    cdef ContentRange part
    # No part is empty. Without a body, a header that gives neither a part nor a size ("bytes 0--1/0") can only mean
    # that the file is empty.
    if read_content_range(lane.easy, &part) and not (length == 0 and part.start < 0 and part.total <= 0):
        if is_what_was_asked(lane, &part) and length == part.end - part.start:
            # It should have been a 206.
            return examine_part(file, lane, &part)
        if part.start != 0 or part.end != part.total or (length >= 0 and length != part.total):
            return refuse(lane, FAULT_RANGE_WRONG)
    elif lane.ranged and length == lane.asked_end - lane.start and length != file.size:
        # Exactly the length of the range: a whole file, or a part of one? A request without a range will tell.
        return refuse(lane, FAULT_RANGE_WRONG)
    elif length == 0 and may_be_empty(file, lane):
        # An empty file, or one whose ranges are answered with nothing? A request without a range will tell.
        file.seems_empty = True
        return refuse(lane, FAULT_RANGE_WRONG)
    if is_encoded(file, lane.source, lane.easy) or has_transfer_coding(lane.easy):
        return refuse(lane, FAULT_ENCODED)
    unvouched = has_lost_validators(lane.source, lane.easy)
    if (file.size >= 0 and length >= 0 and length != file.size) or (
        file.pinned_size >= 0 and length != file.pinned_size
    ):
        return refuse(lane, FAULT_UNVOUCHED if unvouched else FAULT_SIZE_CHANGED)
    if file.size >= 0 and length < 0 and unvouched:
        # Error pages are usually generated, so their length is rarely announced.
        return refuse(lane, FAULT_UNVOUCHED)
    if is_too_large(file, length):
        return refuse(lane, FAULT_TOO_LARGE)
    fault = check_validators(lane.source, lane.easy, True)
    if fault != FAULT_NONE:
        return refuse(lane, fault)
    if file.size >= 0 or not lane.is_first:
        return refuse(lane, FAULT_RANGE_IGNORED)
    # If the request had a range, the server does not support ranges. Either way this response is the whole file.
    rf_store(&file.size, length)
    lane.start = lane.position = 0
    lane.end = length
    return accept(file)


cdef inline Check examine_empty(FileCore *file, Lane *lane) noexcept nogil:
    """Accept that the file is empty."""
    lane.fault = check_validators(lane.source, lane.easy, True)
    if lane.fault != FAULT_NONE:
        return REFUSED
    rf_store(&file.size, 0)
    rf_store(&file.splits, True)
    lane.start = lane.position = lane.end = 0
    return SWALLOWED


cdef inline bint brings_file(long status) noexcept nogil:
    """Whether a response with this status has the file, or a part of it, as its body.

    Scripts that create the file on request may send 201, and proxies that change responses send 203. A 226 results from
    instance manipulations, which nobody asked for, so its body is the whole file. Unknown successes (Apache's 218) are
    treated as 200 (RFC 9110, section 15).
    """
    return status in (
        STATUS_OK, STATUS_CREATED, STATUS_NON_AUTHORITATIVE, STATUS_PARTIAL_CONTENT
    ) or LAST_KNOWN_SUCCESS < status < 300


cdef inline bint leads_elsewhere(CURL *easy) noexcept nogil:
    """Whether the response is a redirect with a Location header."""
    return 300 <= info_long(easy, CURLINFO_RESPONSE_CODE) < 400 and header_value(easy, "Location") != NULL


cdef inline bint says_empty(const Lane *lane, long status) noexcept nogil:
    """Whether a response without the file may mean that the file is empty, so that no range can be satisfied."""
    cdef ContentRange part
    if status == STATUS_RANGE_NOT_SATISFIABLE:
        return read_content_range(lane.easy, &part) and part.start < 0 and part.total == 0
    return status == STATUS_NO_CONTENT


cdef inline bint is_whole_unsaid(FileCore *file, const Lane *lane) noexcept nogil:
    """Whether a 206 without Content-Range can be the whole file: the request had no range, and it is not multipart.

    A cache may repeat the response to an earlier range, so the length of such a response is noted.
    """
    cdef int64_t length = info_off(lane.easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T)
    cdef const char *media_type = header_value(lane.easy, "Content-Type")
    if lane.ranged:
        if length == lane.asked_end - lane.start:
            rf_store(&file.part_bytes, length)
        return False
    return (
        length != file.first_bytes and length != file.part_bytes
        and (media_type == NULL or strncasecmp(media_type, "multipart/", 10) != 0)
    )


cdef inline Check examine(FileCore *file, Lane *lane) noexcept nogil:
    """Decide on the response whose headers the lane has just received; if it is refused, note the fault."""
    cdef long status = info_long(lane.easy, CURLINFO_RESPONSE_CODE)
    cdef ContentRange part
    if brings_file(status) and not length_is_sound(lane.easy):
        return refuse(lane, FAULT_SIZE_UNSOUND)
    if status == STATUS_PARTIAL_CONTENT:
        if not read_content_range(lane.easy, &part):
            return examine_whole(file, lane) if is_whole_unsaid(file, lane) else refuse(lane, FAULT_RANGE_WRONG)
        # Some servers and caches send 206 with the whole file, too, when no range was asked for.
        return examine_part(file, lane, &part) if lane.ranged else examine_whole(file, lane)
    if brings_file(status):
        return examine_whole(file, lane)
    lane.fault = FAULT_STATUS
    if says_empty(lane, status) and lane.is_first and file.size < 0 and file.pinned_size <= 0:
        # This may mean an empty file, but also one that does not exist yet, or whose length is not known. If a range
        # got this answer, a plain request must confirm it. A body, if any, is the server's message, not the file's.
        if not lane.ranged and file.seems_empty:
            return examine_empty(file, lane)
        if lane.ranged:
            file.seems_empty = True
            lane.fault = FAULT_RANGE_WRONG
    elif status == STATUS_RANGE_NOT_SATISFIABLE and lane.ranged and read_content_range(lane.easy, &part):
        if part.start < 0 and part.total >= 0 and (
            (file.size >= 0 and part.total != file.size) or (file.pinned_size >= 0 and part.total != file.pinned_size)
        ):
            lane.fault = FAULT_SIZE_CHANGED
    return SWALLOWED


cdef inline bint is_cut_short_unsaid(const FileCore *file, const Lane *lane) noexcept nogil:
    """Whether a stream without announced length may be only a part: it ended where the request did, or at once.

    A request without a range will tell.
    """
    return lane.ranged and not file.splits and file.size < 0 and lane.position in (lane.asked_end, 0)
