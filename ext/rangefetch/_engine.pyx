"""The engine: loops that move bytes from sockets to files without Python, and the three classes that steer them.

``Engine`` owns the loops, ``File`` is one file to be filled, ``Profile`` is how to ask for it. The classes reach into
each other's structs, so they stand in one module and one file. What a loop does is in ``loop.pxd``, the check of an
answer in ``answer.pxd``, the block map in ``blocks.pxd``. ``_engine.pyi`` is the manual: a method that has no comment
here does what it says there.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE, Py_buffer
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from rangefetch.answer cimport SAME_LIKELY, SAME_PROVEN, ContentRange, Same, parse_content_range
from rangefetch.answer cimport same_validators as compare_validators
from rangefetch.blocks cimport blocks_contiguous, blocks_fit, blocks_free, blocks_init, blocks_recall
from rangefetch.bucket cimport Bucket, bucket_fill, bucket_is_dry, bucket_limit, bucket_take
from rangefetch.checks cimport RF_CHECKED, RF_LIVE_DESCRIPTORS, RF_LIVE_MEMORY, calloc, free, rf_live_count
from rangefetch.core cimport EngineCore, core_is_ours, core_let_go, core_new, core_stop
from rangefetch.host cimport hosts_have_answered, hosts_open, hosts_rest, hosts_rest_for_ms, where_to
from rangefetch.libcurl cimport *
from rangefetch.jar cimport jar_close, jar_open
from rangefetch.mailbox cimport *
from rangefetch.origin cimport origin_number
from rangefetch.peers cimport loop_tell
from rangefetch.platform cimport (
    rf_bell_close,
    rf_bell_quiet,
    rf_bell_ring,
    rf_load,
    rf_now_us,
    rf_peek,
    rf_punch_hole,
    rf_rename_free,
    rf_store,
)
from rangefetch.report cimport copy_text
from rangefetch.sizes cimport LARGEST_BLOCK_BYTES, LARGEST_FILE_BYTES
from rangefetch.transfer cimport (
    ALLOCATE_LENGTH,
    ALLOCATE_NOTHING,
    ALLOCATE_SPACE,
    Credential,
    JarCore,
    FAULT_DISK,
    FAULT_ENCODED,
    FAULT_HEADERS,
    FAULT_RANGE_SHORT,
    FAULT_MEMORY,
    FAULT_NONE,
    FAULT_OVERFLOW,
    FAULT_PROBED,
    FAULT_RANGE_IGNORED,
    FAULT_RANGE_WRONG,
    FAULT_REDIRECT,
    FAULT_REDIRECTS,
    FAULT_SIZE_CHANGED,
    FAULT_SIZE_UNSOUND,
    FAULT_UNVOUCHED,
    FAULT_STALLED,
    FAULT_STATUS,
    FAULT_VALIDATOR_CHANGED,
    FAULT_VALIDATOR_TOO_LONG,
    Allocation,
    FileCore,
    HostTable,
    MOST_LANES,
    MOST_SOURCES,
    ProfileCore,
    SMALL,
    Setting,
    Small,
    Source,
    VALIDATOR_BYTES,
    WAIT_HOST,
    WAIT_LIMIT,
    WAIT_LOOP,
    WAIT_NOTHING,
    WAIT_PYTHON,
    WAIT_READER,
    WAIT_REST,
    WAIT_TRANSFER,
)

import atexit
import os

# The oldest libcurl that is tested (Debian 12's). What is needed of it: PROTOCOLS_STR 7.85, curl_easy_header 7.83,
# a curl_global_init that threads may share 7.84, CURL_WRITEFUNC_ERROR 7.87.
OLDEST_LIBCURL = (7, 88, 0)

EVENTS = {
    "ANSWERED": <int>EVENT_ANSWERED, "FAILED": <int>EVENT_FAILED, "DONE": <int>EVENT_DONE,
    "REMOVED": <int>EVENT_REMOVED, "MET": <int>EVENT_MET, "TRACE": <int>EVENT_TRACE, "REACHED": <int>EVENT_REACHED,
    "HELD": <int>EVENT_HELD,
}
FAULTS = {
    "NONE": <int>FAULT_NONE, "STATUS": <int>FAULT_STATUS, "RANGE_IGNORED": <int>FAULT_RANGE_IGNORED,
    "RANGE_WRONG": <int>FAULT_RANGE_WRONG, "SIZE_CHANGED": <int>FAULT_SIZE_CHANGED,
    "VALIDATOR_CHANGED": <int>FAULT_VALIDATOR_CHANGED, "ENCODED": <int>FAULT_ENCODED,
    "OVERFLOW": <int>FAULT_OVERFLOW, "DISK": <int>FAULT_DISK, "STALLED": <int>FAULT_STALLED,
    "REDIRECT": <int>FAULT_REDIRECT, "REDIRECTS": <int>FAULT_REDIRECTS, "MEMORY": <int>FAULT_MEMORY,
    "PROBED": <int>FAULT_PROBED, "VALIDATOR_TOO_LONG": <int>FAULT_VALIDATOR_TOO_LONG,
    "SIZE_UNSOUND": <int>FAULT_SIZE_UNSOUND, "UNVOUCHED": <int>FAULT_UNVOUCHED,
    "HEADERS": <int>FAULT_HEADERS, "RANGE_SHORT": <int>FAULT_RANGE_SHORT,
}

WAITS = {
    <int>WAIT_NOTHING: "nothing", <int>WAIT_LOOP: "loop", <int>WAIT_TRANSFER: "transfer", <int>WAIT_LIMIT: "limit",
    <int>WAIT_READER: "reader", <int>WAIT_REST: "rest", <int>WAIT_PYTHON: "decision",
    <int>WAIT_HOST: "host",
}

LARGEST_FILE = LARGEST_FILE_BYTES
LARGEST_BLOCK = LARGEST_BLOCK_BYTES

cdef enum:
    LONGEST_S = 365 * 24 * 3600    # of any time that Python gives

cdef bint loaded = False
cdef unsigned int version_num = 0
cdef int handles = 0             # live easy handles, over all engines
cdef int64_t last_serial = 0
cdef HostTable hosts             # of this process, for all engines


# ---- libcurl ---------------------------------------------------------------------------------------------------

def load_libcurl(str path):
    global loaded, version_num
    cdef bytes name = os.fsencode(path)
    cdef const char *missing
    cdef const char *text = name
    cdef curl_version_info_data *info
    if not loaded:
        missing = rf_curl_open(text)
        if missing != NULL:
            raise OSError(missing.decode(errors="replace"))
        info = curl_version_info(0)
        version_num = info.version_num
        if _version() < OLDEST_LIBCURL:
            raise OSError(
                f"it is libcurl {info.version.decode()}, "
                f"and {'.'.join(map(str, OLDEST_LIBCURL))} is the oldest that will do"
            )
        if curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK:
            raise OSError("curl_global_init failed")
        loaded = True
    info = curl_version_info(0)
    return {
        "path": os.fsdecode(rf_curl_path()),
        "version": info.version.decode(),
        "ssl_version": info.ssl_version.decode() if info.ssl_version != NULL else "",
        "description": curl_version().decode(),
    }


cdef tuple _version():
    return (version_num >> 16, version_num >> 8 & 255, version_num & 255)


def constants():
    cdef dict values = {}
    cdef int i = 0
    while rf_constants[i].name != NULL:
        values[rf_constants[i].name.decode()] = rf_constants[i].value
        i += 1
    return values


def option_number(str name):
    cdef bytes text = name.encode()
    cdef const curl_easyoption *option
    _must_be_loaded()
    option = curl_easy_option_by_name(text)
    return None if option == NULL else option.id


def error_text(int code):
    _must_be_loaded()
    return curl_easy_strerror(code).decode()


def live_handles():
    return <int>rf_load(&handles)


def live_resources():
    if not RF_CHECKED:
        return None
    return {
        "handles": live_handles(),
        "memory": rf_live_count(RF_LIVE_MEMORY),
        "descriptors": rf_live_count(RF_LIVE_DESCRIPTORS),
    }


def punch_hole(int fd, int64_t start, int64_t end):
    return bool(rf_punch_hole(fd, start, end - start) == 0)


def rename_free(bytes old_path not None, bytes new_path not None):
    cdef const char *old = old_path  # both borrowed while the call lasts
    cdef const char *new = new_path
    cdef int failed
    with nogil:
        failed = rf_rename_free(old, new)
    return failed


def content_range(bytes text not None):
    cdef ContentRange parsed
    if not parse_content_range(text, &parsed):
        return None
    return (parsed.start, parsed.end, parsed.total)


def same_validators(bytes etag not None, bytes last_modified not None, bytes other_etag not None, bytes other not None):
    cdef Same found = compare_validators(etag, last_modified, other_etag, other)
    if found == SAME_PROVEN:
        return "proven"
    return "likely" if found == SAME_LIKELY else "different"


# ---- hosts -----------------------------------------------------------------------------------------------------

def host_number(str url not None):
    cdef bytes text = _encoded(url)
    return origin_number(text)


def rest_host(int64_t host, double seconds, *, bint for_all=True):
    hosts_open(&hosts)
    hosts_rest(&hosts, host, rf_now_us() // 1000, _milliseconds(seconds), for_all)


def host_rests_for(int64_t host):
    hosts_open(&hosts)
    return hosts_rest_for_ms(&hosts, host, rf_now_us() // 1000) / 1000


def host_has_answered(int64_t host):
    hosts_open(&hosts)
    return bool(hosts_have_answered(&hosts, host))


def host_has_sent(int64_t host):
    hosts_open(&hosts)
    return hosts_have_answered(&hosts, host) == 2


cdef int _must_be_loaded() except -1:
    if not loaded:
        raise RuntimeError("load_libcurl() comes first")
    return 0


cdef bytes _encoded(str text):
    """The text as octets; UTF-8 where the locale of the process has no letters for it."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


cdef str _octets(const char *text):
    """Header octets as they are (RFC 9110, section 5.5): whoever knows their encoding decodes them."""
    return text.decode("latin-1") if text != NULL else ""


cdef str _decode(const char *text):
    return text.decode("utf-8", "surrogateescape") if text != NULL else ""


# ---- limits ----------------------------------------------------------------------------------------------------

@cython.final
cdef class TokenBucket:
    cdef Bucket core

    def __cinit__(self, int64_t bytes_per_s):
        bucket_limit(&self.core, bytes_per_s)

    def fill(self, int64_t now_us):
        bucket_fill(&self.core, now_us)

    def take(self, int64_t size):
        bucket_take(&self.core, size)

    @property
    def is_dry(self):
        return bool(bucket_is_dry(&self.core))


# ---- how to ask ------------------------------------------------------------------------------------------------

@cython.final
cdef class Jar:
    cdef JarCore core

    def __cinit__(self):
        _must_be_loaded()
        if not jar_open(&self.core):
            raise MemoryError

    def __dealloc__(self):
        jar_close(&self.core)


@cython.final
cdef class Profile:
    cdef ProfileCore core
    cdef Jar jar               # held for the engine, which borrows it

    def __cinit__(
        self, settings, headers, bare_headers, *, bint allow_downgrade=False, double connect_timeout_s=30,
        double read_timeout_s=60, str http_proxy="", str https_proxy="", direct=(),
        str cookie="", Jar jar=None, credentials=(), trusted=(),
    ):
        global last_serial
        cdef int i = 0
        _must_be_loaded()
        self._keep_secrets(cookie, credentials, trusted)
        self.jar = jar
        if jar is not None:
            self.core.jar = &jar.core
        last_serial += 1
        self.core.serial = last_serial
        self.core.allow_downgrade = allow_downgrade
        self.core.connect_timeout_ms = _milliseconds(connect_timeout_s)
        self.core.read_timeout_ms = _milliseconds(read_timeout_s)
        self.core.headers = self._list(headers)
        self.core.bare_headers = self._list(bare_headers)
        settings = list(settings)
        self.core.settings = <Setting *>calloc(<size_t>len(settings) + 1, sizeof(Setting))
        if self.core.settings == NULL:
            raise MemoryError
        for option, value in settings:
            self.core.settings[i].option = option
            self.core.setting_count = i + 1
            if isinstance(value, int):
                self.core.settings[i].number = value
            else:
                self.core.settings[i].text = _owned_text(_encoded(value))
            i += 1
        self._try_settings()
        self.core.http_via = _number_of(http_proxy)
        self.core.https_via = _number_of(https_proxy)
        direct = [_encoded(each) for each in direct]
        self.core.direct = <char **>calloc(<size_t>len(direct) + 1, sizeof(char *))
        if self.core.direct == NULL:
            raise MemoryError
        for each in direct:
            self.core.direct[self.core.direct_count] = _owned_text(each)
            self.core.direct_count += 1

    cdef int _keep_secrets(self, str cookie, credentials, trusted) except -1:
        cdef Credential *credential
        if cookie:
            self.core.cookie = _owned_text(_encoded(cookie))
        credentials, trusted = list(credentials), list(trusted)
        self.core.credentials = <Credential *>calloc(<size_t>len(credentials) + 1, sizeof(Credential))
        self.core.trusted = <char **>calloc(<size_t>len(trusted) + 1, sizeof(char *))
        if self.core.credentials == NULL or self.core.trusted == NULL:
            raise MemoryError
        for host, user, password, any_scheme in credentials:
            credential = &self.core.credentials[self.core.credential_count]
            self.core.credential_count += 1
            if host:
                credential.host = _owned_text(_encoded(host))
            credential.user = _owned_text(_encoded(user))
            credential.password = _owned_text(_encoded(password))
            # Where there is a choice, libcurl asks without a password first.
            credential.schemes = CURLAUTH_BASIC | CURLAUTH_DIGEST if any_scheme else CURLAUTH_BASIC
        for host in trusted:
            self.core.trusted[self.core.trusted_count] = _owned_text(_encoded(host))
            self.core.trusted_count += 1
        return 0

    cdef int _try_settings(self) except -1:
        # A lane cannot ask what became of a setting: what this libcurl does not know is found out here.
        cdef CURL *easy = curl_easy_init()
        cdef CURLcode code = CURLE_OK
        cdef Setting *setting
        cdef int i
        if easy == NULL:
            raise MemoryError
        for i in range(self.core.setting_count):
            setting = &self.core.settings[i]
            if setting.text != NULL:
                code = opt_text(easy, setting.option, setting.text)
            else:
                code = opt_long(easy, setting.option, setting.number)
            if code != CURLE_OK:
                break
        curl_easy_cleanup(easy)
        if code != CURLE_OK:
            raise ValueError(<int>setting.option, (<bytes>curl_easy_strerror(code)).decode())
        return 0

    cdef curl_slist *_list(self, lines) except? NULL:
        cdef curl_slist *list_ = NULL
        cdef curl_slist *longer
        cdef bytes line
        for line in [_encoded(text) for text in lines]:
            longer = curl_slist_append(list_, line)
            if longer == NULL:
                curl_slist_free_all(list_)
                raise MemoryError
            list_ = longer
        return list_

    def __dealloc__(self):
        cdef int i
        if self.core.headers != NULL:
            curl_slist_free_all(self.core.headers)
        if self.core.bare_headers != NULL:
            curl_slist_free_all(self.core.bare_headers)
        for i in range(self.core.setting_count):
            free(self.core.settings[i].text)
        free(self.core.settings)
        for i in range(self.core.direct_count):
            free(self.core.direct[i])
        free(self.core.direct)
        for i in range(self.core.credential_count):
            free(self.core.credentials[i].host)
            free(self.core.credentials[i].user)
            free(self.core.credentials[i].password)
        free(self.core.credentials)
        for i in range(self.core.trusted_count):
            free(self.core.trusted[i])
        free(self.core.trusted)
        free(self.core.cookie)


cdef int64_t _number_of(str proxy) except? -1:
    cdef bytes text = _encoded(proxy)
    return origin_number(text) if text else 0


cdef int64_t _milliseconds(double seconds) except? -1:
    """A time that is bounded by a year, so that no sum of them overflows; infinity is a year, too."""
    if not seconds >= 0:
        raise ValueError(f"{seconds} s: not below 0")
    return <int64_t>(min(seconds, LONGEST_S) * 1000)


cdef char *_owned_text(bytes text) except NULL:
    cdef char *copy = copy_text(text)
    if copy == NULL:
        raise MemoryError
    return copy


# ---- a file ----------------------------------------------------------------------------------------------------

@cython.final
cdef class File:
    cdef FileCore core
    cdef list profiles         # of the sources
    cdef dict epochs           # of the sources that got another address; the loop may not have heard of the last one
    cdef public object tag
    cdef readonly int64_t host
    cdef EngineCore *engine    # held once it was added: let go of in __dealloc__
    cdef int loop

    def __cinit__(
        self, int fd, str url not None, Profile profile not None, *, tag=None, bint ranged=True, int lanes=16,
        int64_t first_bytes=4 << 20, int64_t least_bytes=4 << 20, int64_t window_bytes=0, int64_t limit=0,
        str allocation="falloc",
        int64_t size=-1, int64_t block_size=0, blocks=None, partial=None, str etag="", str last_modified="",
        mirrors=(), int source_lanes=1024, bint probe=False, bint traced=False, int64_t pinned_size=-1,
        str name="", bint takes_codings=False, bint seems_empty=False,
        int host_lanes=MOST_LANES, bint insists=False,
    ):
        memset(&self.core, 0, sizeof(FileCore))
        self.core.owner = <void *>self
        self.profiles = []
        self.epochs = {}
        self.tag = tag
        self.loop = -1
        self.core.fd = fd
        self.core.source_lanes_most = source_lanes
        self.core.host_lanes_most = host_lanes
        self.core.insists = insists
        self._add_source(url, profile, etag, last_modified)
        self.host = where_to(&profile.core, self.core.sources[0].url)
        for mirror, mirror_profile, mirror_etag, mirror_last_modified in mirrors:
            self._add_source(mirror, mirror_profile, mirror_etag, mirror_last_modified)
        self.core.size = size
        self.core.pinned_size = pinned_size
        self.core.ranged = ranged
        self.core.takes_codings = takes_codings
        self.core.seems_empty = seems_empty
        self.core.name = _owned_text(os.fsencode(name))
        self.core.first_bytes = first_bytes
        self.core.least_bytes = least_bytes
        self.core.window_bytes = window_bytes
        self.core.reader_bytes = -1
        self.core.lanes_most = lanes
        self.core.probing = probe
        self.core.traced = traced
        self.core.waits_for = WAIT_LOOP
        bucket_limit(&self.core.bucket, limit)
        self.core.allocation = _allocation(allocation)
        if not (1 <= lanes <= MOST_LANES and 1 <= source_lanes <= MOST_LANES and 1 <= host_lanes <= MOST_LANES):
            raise ValueError(f"lanes, source_lanes, host_lanes: 1 to {MOST_LANES}")
        if not 1 <= first_bytes <= LARGEST_FILE_BYTES:
            raise ValueError("first_bytes: 1 at least, and no more than a file can have")
        if not (0 <= least_bytes <= LARGEST_FILE_BYTES and 0 <= window_bytes <= LARGEST_FILE_BYTES):
            raise ValueError("least_bytes, window_bytes: not below 0, and no more than a file can have")
        if limit < 0:
            raise ValueError("limit: not below 0")
        if size > LARGEST_FILE_BYTES or pinned_size > LARGEST_FILE_BYTES:
            raise ValueError("size: more than a file can have")
        if size >= 0:
            self._recall(size, block_size, blocks, partial or {})

    def be_small(
        self, int directory_fd, str name not None, part_names=(), *, bint overwrite=False,
        bint named_by_url=True, int64_t largest_bytes=1 << 20, bytes origin=None,
    ):
        cdef Small *small = &self.core.small
        cdef int i
        if self.engine != NULL or small.name != NULL:
            raise ValueError("said once, and before the file is added")
        if len(part_names) > 2:
            raise ValueError("part_names: two at most")
        if not 1 <= largest_bytes <= LARGEST_FILE_BYTES:
            raise ValueError("largest_bytes: 1 at least, and no more than a file can have")
        small.name = _owned_text(os.fsencode(name))
        for i, part_name in enumerate(part_names):
            small.part_names[i] = _owned_text(os.fsencode(part_name))
        if origin is not None:
            small.origin = _owned_text(origin)
        small.directory_fd = directory_fd
        small.overwrite = overwrite
        small.named_by_url = named_by_url
        small.largest_bytes = largest_bytes
        small.stage = SMALL
        self.core.fd = -1

    def place(self, int fd):
        if fd < 0:
            raise ValueError("fd: a descriptor is not below 0")
        self._tell_source(COMMAND_PLACE, -1, fd, None)

    cdef int _add_source(self, str url, Profile profile, str etag, str last_modified) except -1:
        cdef Source *source
        if self.core.source_count == MOST_SOURCES:
            raise ValueError(f"mirrors: {MOST_SOURCES} sources at most")
        source = <Source *>calloc(1, sizeof(Source))
        if source == NULL:
            raise MemoryError
        source.number = self.core.source_count
        self.core.sources[self.core.source_count] = source
        self.core.source_count += 1
        source.url = _owned_text(_encoded(url))
        source.profile = &profile.core
        source.known = bool(etag or last_modified)
        _keep(source.etag, etag)
        _keep(source.last_modified, last_modified)
        self.profiles.append(profile)
        return 0

    cdef int _recall(self, int64_t size, int64_t block_size, blocks, partial) except -1:
        """Set the block map to what was saved."""
        cdef bytes done = bytes(blocks or b"")
        cdef bytearray begun
        cdef const uint8_t *done_at = done
        cdef char *begun_at
        if not 1 <= block_size <= LARGEST_BLOCK_BYTES:
            raise ValueError("block_size: out of range")
        if not blocks_fit(size, block_size) or len(done) != (size + block_size - 1) // block_size:
            raise ValueError("blocks: not one for each block of the file")
        begun = bytearray(4 * len(done) + 4)
        view = memoryview(begun).cast("I")
        for index, written in partial.items():
            if not 0 <= index < len(done):
                raise ValueError("partial: there is no such block")
            if not 0 <= written < min(block_size, size - index * block_size):
                raise ValueError("partial: more than the block holds")
            view[index] = written
        view.release()
        if blocks_init(&self.core.blocks, size, block_size) != 0:
            raise MemoryError
        begun_at = begun
        blocks_recall(&self.core.blocks, done_at, <const uint32_t *>begun_at)
        self.core.mapped = True
        return 0

    def __dealloc__(self):
        cdef int i
        blocks_free(&self.core.blocks)
        free(self.core.name)
        free(self.core.small.name)
        free(self.core.small.part_names[0])
        free(self.core.small.part_names[1])
        free(self.core.small.origin)
        for i in range(self.core.source_count):
            free(self.core.sources[i].url)
            free(self.core.sources[i].resolved_url)
            free(self.core.sources[i])
        if self.engine != NULL:
            core_let_go(self.engine)

    @property
    def size(self):
        return <int64_t>rf_load(&self.core.size)

    @property
    def block_size(self):
        return self.core.blocks.block_size if rf_load(&self.core.mapped) else 0

    @property
    def blocks(self):
        cdef Py_ssize_t count = self._count()
        # Only once the map is there: until then the pointer is the loop's alone.
        return _view(self, self.core.blocks.state if count > 0 else NULL, b"B", count, 1)

    @property
    def partial(self):
        cdef Py_ssize_t count = self._count()
        # Only once the map is there: until then the pointer is the loop's alone.
        return _view(self, self.core.blocks.partial if count > 0 else NULL, b"I", count, 4)

    @property
    def brought_by(self):
        cdef Py_ssize_t count = self._count()
        return _view(self, self.core.blocks.source if count > 0 else NULL, b"B", count, 1)

    cdef Py_ssize_t _count(self):
        return self.core.blocks.count if rf_load(&self.core.mapped) else 0

    @property
    def downloaded(self):
        return rf_peek(&self.core.blocks.bytes_done) if rf_load(&self.core.mapped) else rf_load(&self.core.stream_bytes)

    @property
    def contiguous(self):
        return blocks_contiguous(&self.core.blocks) if rf_load(&self.core.mapped) else rf_load(&self.core.stream_bytes)

    @property
    def answered(self):
        return bool(rf_load(&self.core.answered))

    @property
    def splits(self):
        return bool(rf_load(&self.core.splits))

    @property
    def lanes_busy(self):
        return <int>rf_peek(&self.core.lanes_busy)

    @property
    def requests(self):
        return rf_peek(&self.core.requests)

    @property
    def responses(self):
        return rf_peek(&self.core.responses)

    @property
    def connections(self):
        return rf_peek(&self.core.connections)

    @property
    def received_bytes(self):
        return rf_peek(&self.core.received_bytes)

    @property
    def writes(self):
        return rf_peek(&self.core.writes)

    @property
    def source_count(self):
        return <int>rf_load(&self.core.source_count)

    def validators(self, int source=0):
        if not 0 <= source < rf_load(&self.core.source_count):
            raise IndexError("there is no such source")
        if not rf_load(&self.core.sources[source].known):
            return ("", "")
        return (_decode(self.core.sources[source].etag), _decode(self.core.sources[source].last_modified))

    def received_from(self, int source):
        if not 0 <= source < rf_load(&self.core.source_count):
            raise IndexError("there is no such source")
        return rf_peek(&self.core.sources[source].received_bytes)

    def ban(self, int source):
        self._tell_source(COMMAND_BAN, source, 0, None)

    def rest(self, int source, double seconds):
        self._tell_source(COMMAND_REST, source, _milliseconds(seconds), None)

    def resolve_again(self, int source):
        self._begin_epoch(COMMAND_RESOLVE, source, None, None)

    def ask_plainly(self, bint plainly=True):
        self._tell_source(COMMAND_RANGED, -1, not plainly, None)

    def move(self, int source, str url not None, Profile profile not None):
        self._begin_epoch(COMMAND_MOVE, source, _encoded(url), profile)

    def epoch(self, int source):
        return self.epochs.get(source, 0)

    cdef int _begin_epoch(self, MessageKind kind, int source, bytes text, Profile profile) except -1:
        self._tell_source(kind, source, 0, text, profile, None, self.epochs.get(source, 0) + 1)
        self.epochs[source] = self.epochs.get(source, 0) + 1
        return 0

    def ask_as(self, int source, Profile profile not None):
        self._tell_source(COMMAND_PROFILE, source, 0, None, profile)

    def add_source(self, str url not None, Profile profile not None, validators=None):
        cdef bytes lines = None
        cdef char kept[VALIDATOR_BYTES]
        if validators is not None:
            for value in validators:
                _keep(kept, value)
            lines = "{}\n{}".format(*validators).encode("utf-8", "surrogateescape")
        self._tell_source(COMMAND_SOURCE, -1, 0, _encoded(url), profile, lines)

    cdef int _tell_source(
        self, MessageKind kind, int source, int64_t number, bytes text, Profile profile=None, bytes lines=None,
        int epoch=0
    ) except -1:
        cdef Message command
        memset(&command, 0, sizeof(command))
        command.kind = kind
        command.file = &self.core
        command.source = source
        command.epoch = epoch
        command.number = number
        if profile is not None:
            # Held before the loop hears of it, which borrows it.
            self.profiles.append(profile)
            command.extra = &profile.core
        if lines is not None:
            command.headers = _owned_text(lines)
        return _send(self.engine, self.loop, &command, text)

    @property
    def lanes(self):
        return <int>rf_load(&self.core.lanes_most)

    @lanes.setter
    def lanes(self, int most):
        if not 1 <= most <= MOST_LANES:
            raise ValueError(f"lanes: 1 to {MOST_LANES}")
        rf_store(&self.core.lanes_most, most)
        self._tell(COMMAND_FEED)

    @property
    def source_lanes(self):
        return <int>rf_load(&self.core.source_lanes_most)

    @source_lanes.setter
    def source_lanes(self, int most):
        if not 1 <= most <= MOST_LANES:
            raise ValueError(f"source_lanes: 1 to {MOST_LANES}")
        rf_store(&self.core.source_lanes_most, most)
        self._tell(COMMAND_FEED)

    @property
    def host_lanes(self):
        return <int>rf_load(&self.core.host_lanes_most)

    @host_lanes.setter
    def host_lanes(self, int most):
        if not 1 <= most <= MOST_LANES:
            raise ValueError(f"host_lanes: 1 to {MOST_LANES}")
        rf_store(&self.core.host_lanes_most, most)
        self._tell(COMMAND_FEED)

    @property
    def limit(self):
        return rf_load(&self.core.bucket.bytes_per_s)

    @limit.setter
    def limit(self, int64_t bytes_per_s):
        if bytes_per_s < 0:
            raise ValueError("limit: not below 0")
        bucket_limit(&self.core.bucket, bytes_per_s)
        self._tell(COMMAND_FEED)

    @property
    def lanes_aim(self):
        return <int>rf_peek(&self.core.growth.aim)

    @property
    def request_ms(self):
        return rf_peek(&self.core.memory.request_ms)

    @property
    def effort(self):
        return {
            "lasted_us": rf_peek(&self.core.lasted_us), "cpu_us": rf_peek(&self.core.cpu_us),
            "disk_us": rf_peek(&self.core.disk_us), "paused_us": rf_peek(&self.core.paused_ms) * 1000,
            "lanes_aim": <int>rf_peek(&self.core.growth.aim),
            "growth_ended": bool(rf_peek(&self.core.growth.stopped_ms) != 0),
        }

    @property
    def steals(self):
        return rf_peek(&self.core.steals)

    @property
    def hedges(self):
        return rf_peek(&self.core.hedges)

    @property
    def replacements(self):
        return rf_peek(&self.core.replacements)

    @property
    def waiting_for(self):
        return WAITS[<int>rf_load(&self.core.waits_for)]

    def release(self):
        self._tell(COMMAND_RELEASE)

    def read_to(self, int64_t offset, int64_t notify=0):
        if not (0 <= offset <= LARGEST_FILE_BYTES and 0 <= notify <= LARGEST_FILE_BYTES):
            raise ValueError("offset, notify: out of range")
        rf_store(&self.core.notify_bytes, notify)
        rf_store(&self.core.reader_bytes, offset)
        self._tell(COMMAND_FEED)

    def remove(self):
        self._tell(COMMAND_REMOVE)

    cdef int _tell(self, MessageKind kind) except -1:
        return self._tell_source(kind, -1, 0, None)


cdef int _send(EngineCore *engine, int loop, Message *command, bytes text) except -1:
    """Send a command to the loop that has a file; none has it before it was added and after the end. It
    owns what the command has."""
    if engine == NULL or engine.closed:
        free(command.headers)
        return 0
    if not core_is_ours(engine):
        free(command.headers)
        raise RuntimeError("it belongs to the process before the fork")
    if text is not None:
        command.text = copy_text(text)
    if (text is not None and command.text == NULL) or not loop_tell(&engine.loops[loop], command):
        free(command.text)
        free(command.headers)
        raise MemoryError
    return 0


cdef object _view(object owner, void *data, bytes format, Py_ssize_t count, Py_ssize_t width):
    cdef _SharedArray array = _SharedArray.__new__(_SharedArray)
    array.owner = owner
    array.data = data
    array.format = format
    array.shape = count
    array.width = width
    return memoryview(array)


@cython.final
cdef class _SharedArray:
    """The engine's own memory as a buffer; its owner lives as long as anyone looks."""
    cdef object owner
    cdef void *data      # borrowed from the owner
    cdef bytes format
    cdef Py_ssize_t shape
    cdef Py_ssize_t width

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("the block map belongs to the engine")
        buffer.buf = self.data
        buffer.len = self.shape * self.width
        buffer.itemsize = self.width
        buffer.readonly = 1
        buffer.ndim = 1
        buffer.format = <char *>self.format if flags & PyBUF_FORMAT else NULL
        buffer.shape = &self.shape if flags & PyBUF_ND else NULL
        buffer.strides = &self.width if flags & PyBUF_STRIDES == PyBUF_STRIDES else NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL
        buffer.obj = self

    def __releasebuffer__(self, Py_buffer *buffer):
        pass


cdef Allocation _allocation(str name) except *:
    if name == "falloc":
        return ALLOCATE_SPACE
    if name == "trunc":
        return ALLOCATE_LENGTH
    if name == "none":
        return ALLOCATE_NOTHING
    raise ValueError(f"allocation: {name!r} is none of falloc, trunc, none")


cdef int _keep(char *kept, str value) except -1:
    cdef bytes text = value.encode("utf-8", "surrogateescape")
    cdef const char *at = text
    if len(text) >= VALIDATOR_BYTES:
        raise ValueError("a validator is too long")
    memcpy(kept, at, <size_t>len(text) + 1)
    return 0


# ---- the engine ------------------------------------------------------------------------------------------------

cdef EngineCore *all_cores = NULL    # of this process; changed under the GIL


cdef int _stop(EngineCore *core) except -1:
    """End an engine's threads. Before the GIL is given up it takes no more commands, and after that it has no bell."""
    core.closed = True
    with nogil:
        core_stop(core)
    if core_is_ours(core):
        rf_bell_close(&core.bell)
    return 0


@cython.final
cdef class Engine:
    cdef EngineCore *core    # held: let go of in __dealloc__

    def __cinit__(self, int loops=1):
        global all_cores
        cdef int failed = 0
        # Since 8.7 libcurl's buffer is one per multi and costs nearly nothing; before, each transfer had its own.
        cdef long buffer_bytes = 512 << 10 if version_num >= 0x080700 else 128 << 10
        # Before 8.1, which rewrote it, HTTP/2 transfers that share a connection get each other's bytes when one of them
        # cannot take its own at once.
        cdef bint multiplexes = version_num >= 0x080100
        _must_be_loaded()
        if not 1 <= loops <= 64:
            raise ValueError("loops: 1 to 64")
        hosts_open(&hosts)
        self.core = core_new(loops, &handles, &hosts, buffer_bytes, multiplexes, &failed)
        if self.core == NULL:
            raise OSError(failed, "the engine cannot start a loop")
        self.core.next = all_cores
        all_cores = self.core

    def fileno(self):
        self._must_be_open()
        return self.core.bell.read_fd

    def ring(self):
        self._must_be_ours()
        if not self.core.closed:
            rf_bell_ring(&self.core.bell)

    def add(self, File file not None, int loop=0):
        if file.engine != NULL:
            raise ValueError("a File is added once")
        self._hand_over(COMMAND_ADD, &file.core, loop)
        file.engine = self.core
        file.loop = loop

    cdef int _hand_over(self, MessageKind kind, FileCore *file, int loop) except -1:
        """Give a loop something to fetch, and keep its owner until the event that it is over."""
        cdef Message command
        self._must_be_open()
        if not 0 <= loop < self.core.loop_count:
            raise ValueError("loop: there is no such loop")
        memset(&command, 0, sizeof(command))
        command.kind = kind
        command.file = file
        if not mailbox_reserve(&self.core.outbox):
            raise MemoryError
        if not loop_tell(&self.core.loops[loop], &command):
            mailbox_unreserve(&self.core.outbox)
            raise MemoryError
        self.core.references += 1
        self.core.live_files += 1
        # In a way that the garbage collector cannot see, and so cannot undo while the loop has it.
        Py_INCREF(<object>file.owner)
        return 0

    def events(self):
        cdef size_t count = 0
        cdef size_t i
        cdef Message *items
        cdef list events = []
        self._must_be_ours()
        if self.core.bell.read_fd >= 0:
            rf_bell_quiet(&self.core.bell)
        items = mailbox_take(&self.core.outbox, &count)
        if items == NULL and count > 0:
            if self.core.bell.read_fd >= 0:
                rf_bell_ring(&self.core.bell)
            raise MemoryError
        try:
            for i in range(count):
                file = <object>(<FileCore *>items[i].file).owner
                if items[i].kind == EVENT_DONE or items[i].kind == EVENT_REMOVED:
                    self.core.live_files -= 1
                    Py_DECREF(file)
                events.append((
                    <int>items[i].kind, file, items[i].code, items[i].status, items[i].fault, items[i].sys_errno,
                    items[i].retry_after_s, items[i].offset, items[i].received, _decode(items[i].text),
                    _octets(items[i].headers), items[i].source, items[i].epoch, items[i].request,
                    _decode(items[i].address), items[i].host,
                ))
        finally:
            messages_free(items, count)
        return events

    @property
    def limit(self):
        return rf_load(&self.core.bucket.bytes_per_s)

    @limit.setter
    def limit(self, int64_t bytes_per_s):
        self._must_be_ours()
        if bytes_per_s < 0:
            raise ValueError("limit: not below 0")
        bucket_limit(&self.core.bucket, bytes_per_s)

    @property
    def live_files(self):
        return self.core.live_files

    @property
    def closed(self):
        return bool(self.core.closed)

    def close(self):
        _stop(self.core)

    cdef int _must_be_open(self) except -1:
        if self.core.closed:
            raise RuntimeError("the engine is closed")
        return self._must_be_ours()

    cdef int _must_be_ours(self) except -1:
        if not core_is_ours(self.core):
            raise RuntimeError("the engine belongs to the process before the fork; make a new one")
        return 0

    def __dealloc__(self):
        global all_cores
        cdef EngineCore **link = &all_cores
        cdef Message *items
        cdef size_t count = 0
        cdef size_t i
        if self.core == NULL:
            return
        _stop(self.core)
        while link[0] != self.core:
            link = &link[0].next
        link[0] = self.core.next
        if core_is_ours(self.core):
            # Every file that was live has its last event here.
            items = mailbox_take(&self.core.outbox, &count)
            for i in range(count if items != NULL else 0):
                if items[i].kind == EVENT_DONE or items[i].kind == EVENT_REMOVED:
                    Py_DECREF(<object>(<FileCore *>items[i].file).owner)
            messages_free(items, count if items != NULL else 0)
        core_let_go(self.core)


def _stop_all():
    """At the end of the interpreter: no thread may be left in libcurl."""
    cdef EngineCore *core = all_cores
    while core != NULL:
        if rf_load(&core.stopped) or not core_is_ours(core):
            core = core.next
            continue
        core.references += 1
        _stop(core)
        core_let_go(core)
        # Another thread may have changed the list meanwhile.
        core = all_cores


atexit.register(_stop_all)
