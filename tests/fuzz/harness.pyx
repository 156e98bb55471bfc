"""The engine's parsers of server responses, for a fuzzer: the engine's own .pxd files, compiled into a harness.

``rf_fuzz_run`` takes the number of a target and some bytes. It returns 0, or the number of the property that did not
hold; each ``return`` below has a number of its own. Nothing here needs Python.
"""

from libc.stdint cimport int64_t, uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport abort, calloc, free, getenv
from libc.string cimport memcmp, memcpy, memset, strcmp, strlen

from rangefetch.answer cimport (
    ContentRange,
    Same,
    examine,
    is_cut_short_unsaid,
    leads_elsewhere,
    names_another_part,
    parse_content_range,
    same_validators,
)
from rangefetch.coding cimport has_transfer_coding, is_encoded, is_real_coding, name_coding, says_coding
from rangefetch.disk cimport lane_flush, lane_write
from rangefetch.libcurl cimport CURL, header_value
from rangefetch.origin cimport is_secure, origin_number, origin_of, same_origin
from rangefetch.service cimport file_is_home
from rangefetch.sizes cimport LARGEST_FILE_BYTES, length_is_sound, read_number
from rangefetch.transfer cimport *
from rangefetch.trust cimport names_host


cdef extern from "fake_curl.h" nogil:
    void fake_begin()
    void fake_receive(long status, const uint8_t *data, size_t size)


cdef extern from *:
    """
    #define _GNU_SOURCE 1
    #include <sys/mman.h>
    #include <unistd.h>
    """
    int memfd_create(const char *name, unsigned int flags) nogil
    int close(int fd) nogil
    int ftruncate(int fd, long size) nogil
    Py_ssize_t pread(int fd, void *to, size_t size, long offset) nogil


cdef enum:
    MOST_OCTETS = 1 << 16
    STREAM_BYTES = 1 << 18

# The bytes in libcurl's receive buffer, other bytes that it kept in memory of its own, the bytes given to lane_write in
# order, and the bytes read back from the file.
cdef char[STREAM_BYTES] stream
cdef char[STREAM_BYTES] kept
cdef char[STREAM_BYTES] given
cdef char[STREAM_BYTES] back
cdef long[10] STATUSES = [200, 206, 416, 204, 203, 201, 226, 404, 302, 0]


# ---- Content-Range, and the numbers in it ------------------------------------------------------------------------

cdef inline int run_content_range(const char *text) noexcept nogil:
    cdef ContentRange found
    cdef ContentRange again
    cdef char[160] written
    if not parse_content_range(text, &found):
        return 0
    if not (-1 <= found.start <= found.end <= LARGEST_FILE_BYTES + 1 and -1 <= found.total <= LARGEST_FILE_BYTES):
        return 101
    if (found.start < 0) != (found.end < 0) or (found.start >= 0 and found.end <= found.start):
        return 102
    if found.total >= 0 and found.end > found.total:
        return 103
    if found.start < 0 and found.total < 0:
        return 104
    if found.start < 0:
        snprintf(written, 160, "bytes */%lld", <long long>found.total)
    elif found.total < 0:
        snprintf(written, 160, "bytes %lld-%lld/*", <long long>found.start, <long long>(found.end - 1))
    else:
        snprintf(
            written, 160, "bytes %lld-%lld/%lld",
            <long long>found.start, <long long>(found.end - 1), <long long>found.total
        )
    if not parse_content_range(written, &again):
        return 105
    if again.start != found.start or again.end != found.end or again.total != found.total:
        return 106
    return 0


# ---- a response --------------------------------------------------------------------------------------------------

cdef inline int run_answer(const uint8_t *data, size_t size) noexcept nogil:
    """The first six bytes give the request, what is known and the status; the rest are the header lines."""
    cdef FileCore *file
    cdef int wrong
    if size < 6:
        return 0
    file = new_file()
    if file == NULL:
        return 0
    wrong = run_answer_of(file, data, size)
    free(file)
    return wrong


cdef inline FileCore *new_file() noexcept nogil:
    """Returns NULL if out of memory."""
    cdef FileCore *file = <FileCore *>calloc(1, sizeof(FileCore))
    if file != NULL:
        file_is_home(file)
    return file


cdef inline int run_answer_of(FileCore *file, const uint8_t *data, size_t size) noexcept nogil:
    cdef Source source
    cdef ProfileCore profile
    cdef Lane lane
    cdef Check check
    cdef int64_t size_before, part
    cdef bint known_before
    cdef Same same
    cdef char[ERROR_TEXT_BYTES + 8] words
    cdef char[VALIDATOR_BYTES] etag_before
    memset(&source, 0, sizeof(source))
    memset(&profile, 0, sizeof(profile))
    memset(&lane, 0, sizeof(lane))
    source.url = "http://h/x.tar.gz" if data[0] & 1 else "http://h/x"
    source.profile = &profile
    lane.file = file
    lane.source = &source
    lane.easy = <CURL *>&lane
    lane.ranged = (data[0] & 2) != 0
    lane.is_first = (data[0] & 4) != 0
    file.takes_codings = (data[0] & 8) != 0
    file.seems_empty = (data[0] & 16) != 0
    part = <int64_t>1 << (data[1] % 40)
    lane.start = lane.position = part * (data[2] & 3) if lane.ranged and not lane.is_first else 0
    lane.end = lane.asked_end = lane.start + part if lane.ranged else -1
    file.size = -1 if lane.is_first else lane.start + part * (1 + (data[2] >> 4 & 3))
    file.pinned_size = part if data[2] & 64 else -1
    file.most_bytes = part if data[2] & 128 else 0
    if data[3] & 1 and not lane.is_first:
        source.known = True
        memcpy(source.etag, b'"a"', 4)
    size_before = file.size
    known_before = source.known
    memcpy(etag_before, source.etag, VALIDATOR_BYTES)
    fake_receive(STATUSES[data[4] % 10], data + 6, size - 6)
    check = examine(file, &lane)
    if check == UNCHECKED or (check == REFUSED and lane.fault == FAULT_NONE):
        return 201
    if source.etag[VALIDATOR_BYTES - 1] != 0 or source.last_modified[VALIDATOR_BYTES - 1] != 0:
        return 202
    if check == REFUSED and file.size != size_before:
        return 203
    if known_before and memcmp(etag_before, source.etag, VALIDATOR_BYTES) != 0:
        return 204
    memset(words, 7, sizeof(words))
    words[0] = 0
    name_coding(lane.easy, words)
    if words[ERROR_TEXT_BYTES] != 7:
        return 205
    if check != ACCEPTED:
        return 0
    if lane.fault != FAULT_NONE:
        return 206
    if not length_is_sound(lane.easy):
        return 207
    if has_transfer_coding(lane.easy) or is_encoded(file, &source, lane.easy):
        return 208
    if not -1 <= file.size <= LARGEST_FILE_BYTES or not -1 <= lane.end <= LARGEST_FILE_BYTES:
        return 209
    if lane.start != lane.position or lane.start < 0 or (lane.end >= 0 and lane.end < lane.start):
        return 210
    if file.splits and (file.size < 0 or lane.end < 0 or lane.end > file.size or lane.end > lane.asked_end):
        return 211
    if not file.splits and lane.start != 0:
        return 212
    if file.pinned_size >= 0 and file.size != file.pinned_size:
        return 213
    if 0 < file.most_bytes < file.size:
        return 214
    if size_before >= 0 and file.size != size_before:
        return 215
    if known_before:
        same = same_validators(etag_before, b"", source.etag, source.last_modified)
        if <int>same == 2:
            return 216
    return 0


# ---- origins -----------------------------------------------------------------------------------------------------

cdef inline int run_origin(const char *one, const char *other) noexcept nogil:
    cdef size_t size = 0
    cdef const char *at = origin_of(one, &size)
    if at < one or at + size > one + strlen(one):
        return 301
    if not same_origin(one, one):
        return 302
    if same_origin(one, other) != same_origin(other, one):
        return 303
    if same_origin(one, other) and origin_number(one) != origin_number(other):
        return 304
    if origin_number(one) <= 0:
        return 305
    if is_secure(one) != is_secure(other) and same_origin(one, other):
        return 306
    if other[0] != 0:
        names_host(other, one)
    return 0


# ---- the write path ----------------------------------------------------------------------------------------------

cdef inline int run_write(const uint8_t *data, size_t size) noexcept nogil:
    """Pieces of a stream, announced correctly, wrongly or not at all: the file gets exactly these bytes, in order."""
    cdef FileCore *file = new_file()
    cdef Lane *lane = <Lane *>calloc(1, sizeof(Lane))
    cdef Source source
    cdef int wrong = 0
    memset(&source, 0, sizeof(source))
    if file != NULL and lane != NULL:
        lane.buffer = <char *>calloc(1, BUFFER_BYTES)
        lane.file = file
        lane.source = &source
        file.size = lane.end = -1
        file.fd = memfd_create("fuzz", 0)
        wrong = write_pieces(file, lane, data, size)
        close(file.fd)
        free(lane.buffer)
    free(lane)
    free(file)
    return wrong


cdef inline int write_pieces(
    FileCore *file, Lane *lane, const uint8_t *data, size_t size
) noexcept nogil:
    cdef int64_t most = STREAM_BYTES
    cdef int64_t at = 0
    cdef int64_t count, announced
    cdef char *piece
    cdef size_t i = 0
    if stream[1] == 0:
        for at in range(most):
            stream[at] = <char>(at * 131 + (at >> 8) + 1)
            kept[at] = <char>~stream[at]
        at = 0
    if lane.buffer == NULL or file.fd < 0:
        return 0
    lane.span.usable = True
    while i + 2 < size:
        count = 1 + (<int64_t>data[i + 1] << (data[i] & 7))
        announced = count + (data[i + 2] << (data[i] >> 3 & 7)) if data[i] & 64 else data[i + 2]
        if at + count > most:
            break
        if at + announced > most:
            announced = most - at
        if data[i] & 128:
            lane.span.announced = stream + at
            lane.span.announced_bytes = announced
        piece = stream + at
        if data[i + 2] % 7 == 5:
            # A piece outside the span, with other bytes.
            piece = kept + at
        memcpy(given + at, piece, <size_t>count)
        if not lane_write(lane, piece, count):
            return 0  # the write failed, for example because the disk is full
        at += count
        if lane.position + lane.buffered != at:
            return 401
        if not 0 <= lane.buffered < BUFFER_BYTES or lane.span.left < 0:
            return 402
        i += 3
    if not lane_flush(lane):
        return 0
    if lane.position != at:
        return 403
    if pread(file.fd, back, <size_t>at, 0) < at or memcmp(back, given, <size_t>at) != 0:
        return 404
    return 0


# ---- entry points ------------------------------------------------------------------------------------------------

cdef inline int run(int target, const uint8_t *data, size_t size) noexcept nogil:
    cdef char *text
    cdef size_t i
    cdef int wrong = 0
    if size > MOST_OCTETS:
        size = MOST_OCTETS
    fake_begin()
    if target == 1:
        return run_answer(data, size)
    if target == 3:
        return run_write(data, size)
    text = <char *>calloc(1, size + 2)
    if text == NULL:
        return 0
    memcpy(text, data, size)
    if target == 0:
        wrong = run_content_range(text)
    elif target == 2:
        for i in range(size):
            if text[i] == c'\n':
                text[i] = 0
                break
        wrong = run_origin(text, text + strlen(text) + 1)
    free(text)
    return wrong


cdef public int rf_fuzz_run(int target, const uint8_t *data, size_t size) noexcept nogil:
    return run(target, data, size)


cdef public int rf_fuzz_is_coding(const char *word) noexcept nogil:
    return is_real_coding(word, strlen(word))


cdef public int rf_fuzz_says_coding(const char *name, const char *word) noexcept nogil:
    return says_coding(name, strlen(name), word, strlen(word))


cdef public int rf_fuzz_is_encoded(const char *url, const uint8_t *headers, size_t size) noexcept nogil:
    """Whether the engine refuses a response with these header lines for its content coding. -1: out of memory."""
    cdef Source source
    cdef FileCore *file = new_file()
    cdef int found
    if file == NULL:
        return -1
    memset(&source, 0, sizeof(source))
    source.url = <char *>url
    fake_begin()
    fake_receive(200, headers, size)
    found = is_encoded(file, &source, <CURL *>file)
    free(file)
    return found


cdef public int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) noexcept nogil:
    cdef const char *target = getenv("RANGEFETCH_FUZZ")
    if run(target[0] - c'0' if target != NULL else 0, data, size) != 0:
        abort()
    return 0


# ---- one request and its response, for a table (test_answers.py) ---------------------------------------------------

cdef struct Told:
    int64_t ranged, is_first, start, end, asked_end          # the request
    int64_t size, pinned_size, most_bytes, first_bytes, part_bytes  # the file
    int64_t splits, seems_empty, takes_codings
    int64_t known                                            # the source
    char[1024] etag
    char[1024] last_modified
    int64_t check, fault, position, responses                # the verdict
    int64_t names_another_part, leads_elsewhere, is_cut_short_unsaid


cdef inline void take(Told *told, FileCore *file, long status, const uint8_t *headers, size_t size) noexcept nogil:
    cdef Lane lane
    cdef Source source
    memset(&lane, 0, sizeof(lane))
    memset(&source, 0, sizeof(source))
    source.url = "http://h/x"
    source.known = told.known != 0
    memcpy(source.etag, told.etag, 1024)
    memcpy(source.last_modified, told.last_modified, 1024)
    lane.file = file
    lane.source = &source
    lane.easy = <CURL *>&lane
    lane.ranged = told.ranged != 0
    lane.is_first = told.is_first != 0
    lane.start = lane.position = told.start
    lane.end = told.end
    lane.asked_end = told.asked_end
    file.size = told.size
    file.pinned_size = told.pinned_size
    file.most_bytes = told.most_bytes
    file.first_bytes = told.first_bytes
    file.part_bytes = told.part_bytes
    file.splits = told.splits != 0
    file.seems_empty = told.seems_empty != 0
    file.takes_codings = told.takes_codings != 0
    fake_begin()
    fake_receive(status, headers, size)
    told.names_another_part = names_another_part(&lane, status)
    told.leads_elsewhere = leads_elsewhere(lane.easy)
    told.check = examine(file, &lane)
    told.fault = lane.fault
    told.start = lane.start
    told.position = lane.position
    told.end = lane.end
    told.size = file.size
    told.splits = file.splits
    told.part_bytes = file.part_bytes
    told.seems_empty = file.seems_empty
    told.responses = file.counters.responses
    told.known = source.known
    memcpy(told.etag, source.etag, 1024)
    memcpy(told.last_modified, source.last_modified, 1024)
    told.is_cut_short_unsaid = is_cut_short_unsaid(file, &lane)


cdef public int rf_take(void *told, long status, const uint8_t *headers, size_t size) noexcept nogil:
    """Let the engine judge a response. False if out of memory."""
    cdef FileCore *file = new_file()
    if file == NULL:
        return False
    take(<Told *>told, file, status, headers, size)
    free(file)
    return True
