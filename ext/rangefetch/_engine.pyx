"""The engine's Python interface. The loops move bytes from sockets to files without calling any of it.

    here           loading libcurl, the table of hosts, and conversions between Python and C values
    profile.pxi    Jar, Profile: how requests are made
    file.pxi       File: one file to download
    engine.pxi     Engine: the loops, the commands sent to them and the events they post

The classes access each other's C structs, so they are compiled as one module. The event loop is in ``loop.pxd``, the
checks on responses in ``answer.pxd``, the block map in ``blocks.pxd``, the structs in ``transfer.pxd``. The functions
and classes that Python sees are documented in ``_engine.pyi`` and have no docstrings here.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBUF_STRIDES, PyBUF_WRITABLE, Py_buffer
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from rangefetch.answer cimport SAME_LIKELY, SAME_PROVEN, ContentRange, Same, parse_content_range
from rangefetch.answer cimport same_validators as compare_validators
from rangefetch.blocks cimport blocks_contiguous, blocks_fit, blocks_free, blocks_init, blocks_recall
from rangefetch.bucket cimport Bucket, bucket_fill, bucket_is_dry, bucket_limit, bucket_take
from rangefetch.checks cimport RF_CHECKED, RF_LIVE_DESCRIPTORS, RF_LIVE_MEMORY, calloc, free, rf_live_count
from rangefetch.claims cimport lanes_at_once
from rangefetch.core cimport EngineCore, core_is_ours, core_let_go, core_new, core_stop
from rangefetch.host cimport (
    hosts_give_back,
    hosts_have_answered,
    hosts_next_slot,
    hosts_open,
    hosts_rest,
    hosts_rest_for_ms,
    hosts_slot,
    hosts_take,
    where_to,
)
from rangefetch.jar cimport jar_close, jar_open
from rangefetch.lease cimport LEASE_BYTES, MOST_GUESTS
from rangefetch.libcurl cimport *
from rangefetch.mailbox cimport *
from rangefetch.origin cimport origin_number
from rangefetch.pace cimport LONGEST_EVERY_US
from rangefetch.peers cimport loop_tell
from rangefetch.platform cimport (
    rf_bell_close,
    rf_bell_is_open,
    rf_bell_quiet,
    rf_bell_ring,
    rf_load,
    rf_now_us,
    rf_peek,
    rf_punch_hole,
    rf_receive_bytes,
    rf_rename_free,
    rf_store,
)
from rangefetch.reach cimport rf_text_is_private
from rangefetch.report cimport copy_text
from rangefetch.service cimport file_is_home
from rangefetch.sizes cimport LARGEST_BLOCK_BYTES, LARGEST_FILE_BYTES
from rangefetch.transfer cimport *

import atexit
import os

cdef extern from "Python.h":
    bytes PyUnicode_EncodeFSDefault(object)    # os.fsencode() as a C call; each file needs several

# The oldest libcurl that is tested (Debian 12's). The engine needs CURLOPT_PROTOCOLS_STR (7.85), curl_easy_header()
# (7.83), a thread-safe curl_global_init() (7.84) and CURL_WRITEFUNC_ERROR (7.87).
OLDEST_LIBCURL = (7, 88, 0)

EVENTS = frozenset(event_names().values())
FAULTS = {name: number for number, name in fault_names().items()}
REACHES = {"allow": <int>REACH_ALL, "named": <int>REACH_NAMED, "refuse": <int>REACH_PUBLIC}

LARGEST_FILE = LARGEST_FILE_BYTES
LARGEST_BLOCK = LARGEST_BLOCK_BYTES

cdef enum:
    LONGEST_S = 365 * 24 * 3600    # longer durations from Python are shortened to this

cdef dict names_of_events = event_names()
cdef dict names_of_waits = wait_names()
cdef bint loaded = False
cdef unsigned int version_num = 0
cdef int handles = 0             # live easy handles of all engines
cdef HostTable hosts             # shared by all engines of the process


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
                f"it is libcurl {info.version.decode()}; "
                f"{'.'.join(map(str, OLDEST_LIBCURL))} or later is needed"
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
    cdef const char *old = old_path  # both borrowed from the caller's objects
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


def is_private(str address not None):
    return bool(rf_text_is_private(_encoded(address)))


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
    return hosts_rest_for_ms(&hosts, host, rf_now_us() // 1000) / 1000.0  # a float, since cdivision truncates integers


def take_slot(int64_t host, int64_t every_us):
    hosts_open(&hosts)
    return hosts_slot(&hosts, host, rf_now_us(), _every(every_us)) / 1e6


def next_slot(int64_t host):
    hosts_open(&hosts)
    return hosts_next_slot(&hosts, host, rf_now_us()) / 1e6


cdef int64_t _every(int64_t every_us) except -1:
    if not 0 <= every_us <= LONGEST_EVERY_US:
        raise ValueError("every_us: out of range; 0 to one day is allowed")
    return every_us


def host_has_answered(int64_t host):
    hosts_open(&hosts)
    return bool(hosts_have_answered(&hosts, host))


def host_has_sent(int64_t host):
    hosts_open(&hosts)
    return hosts_have_answered(&hosts, host) == 2


def take_connections(int64_t host, int64_t wanted, int64_t most):
    hosts_open(&hosts)
    return hosts_take(&hosts, host, rf_now_us() // 1000, wanted, most)


def give_back_connections(int64_t host, int64_t count):
    hosts_open(&hosts)
    hosts_give_back(&hosts, host, count)


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


# ---- conversions -----------------------------------------------------------------------------------------------

cdef int _must_be_loaded() except -1:
    if not loaded:
        raise RuntimeError("call load_libcurl() first")
    return 0


cdef bytes _encoded(str text):
    """Encode in the file system encoding or, if that cannot represent the text, in UTF-8."""
    try:
        return PyUnicode_EncodeFSDefault(text)
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


cdef str _octets(const char *text):
    """Map header octets to characters one to one (RFC 9110, section 5.5); only the caller can know their encoding."""
    return text.decode("latin-1") if text != NULL else ""


cdef str _decode(const char *text):
    return text.decode("utf-8", "surrogateescape") if text != NULL else ""


cdef int64_t _milliseconds(double seconds) except? -1:
    """Convert to milliseconds, at most a year's worth, so that sums cannot overflow. Infinity is allowed."""
    if not seconds >= 0:
        raise ValueError(f"{seconds} s: must not be negative")
    return <int64_t>(min(seconds, LONGEST_S) * 1000)


cdef char *_owned_text(bytes text) except NULL:
    cdef char *copy = copy_text(text)
    if copy == NULL:
        raise MemoryError
    return copy


# ---- the classes -----------------------------------------------------------------------------------------------

include "profile.pxi"
include "file.pxi"
include "engine.pxi"
