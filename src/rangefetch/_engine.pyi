"""The native engine, which moves bytes from sockets to files without passing them through Python.

An ``Engine`` owns loops: threads with one libcurl multi handle each, which never take the GIL. A ``File`` is one file
to be downloaded, from one or more sources; it belongs to one loop from ``Engine.add`` until its DONE or REMOVED event.
Events report what happens as plain numbers and strings, which ``transfer.retry`` interprets. All byte ranges are
half-open.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Self, final

OLDEST_LIBCURL: Final[tuple[int, int, int]]
"""The oldest libcurl that the engine accepts."""

_EventName = Literal["ANSWERED", "FAILED", "DONE", "REMOVED", "MET", "TRACE", "REACHED", "HELD"]
"""For type checkers only. MET is the first accepted response of a further source, REACHED is requested by
``File.read_to``."""
_Trace = dict[str, int] | None
_Event = tuple[_EventName, Any, int, int, int, int, int, int, int, str, str, int, int, int, str, int, int, _Trace]

EVENTS: Final[frozenset[_EventName]]
"""The names of all events."""

LARGEST_FILE: Final[int]
"""The largest file size in bytes: 256 TiB. A response that states a larger one is refused."""

LARGEST_BLOCK: Final[int]
"""The largest ``block_size`` in bytes."""

FAULTS: Final[dict[str, int]]
"""Reasons why the engine itself refused or ended a transfer, by name; NONE if libcurl's code is the only reason."""
REACHES: Final[dict[str, int]]
"""The values of ``Profile``'s ``reach``, by name."""

def load_libcurl(path: str) -> dict[str, str]:
    """Load libcurl from ``path``, or the libcurl that an extension module at ``path`` is linked with; once per process.

    Returns its ``path``, ``version``, ``ssl_version`` and ``description``; later calls return those of the first.
    Raises ``OSError`` if it cannot be loaded, lacks a function, or is older than ``OLDEST_LIBCURL``.
    """

def constants() -> dict[str, int]:
    """All constants of libcurl's ABI that the engine was compiled with, by name."""

def option_number(name: str) -> int | None:
    """The number of the option ``name`` (without ``CURLOPT_``) in the loaded libcurl, or None if it has none."""

def error_text(code: int) -> str:
    """libcurl's description of a CURLcode."""

def live_handles() -> int:
    """The number of live easy handles in this process; 0 if no engine is open."""

def live_resources() -> dict[str, int] | None:
    """Counts of resources that the engine has not released: ``handles`` (easy handles), ``memory`` (allocations) and
    ``descriptors``. None except in a debug build (``make debug``).
    """

def punch_hole(fd: int, start: int, end: int) -> bool:
    """Return the disk space of ``[start, end)`` to the file system. False if that failed or is not supported."""

def rename_free(old_path: bytes, new_path: bytes) -> int:
    """Rename atomically unless the new name exists (renameat2(2), RENAME_NOREPLACE). Returns 0 or an errno.

    ``EEXIST``: the name exists. ``EINVAL`` or ``ENOSYS``: this file system or kernel does not support the operation.
    """

def content_range(text: bytes) -> tuple[int, int, int] | None:
    """Parse a Content-Range value into ``(start, end, total)``, -1 for unknown parts. None if it is malformed."""

def is_private(address: str) -> bool:
    """Whether ``address`` is not a public IP address (RFC 6890), or not an IP address at all."""

def host_number(url: str) -> int:
    """The number by which the engine knows the host of ``url``. Proxies are not taken into account."""

def rest_host(host: int, seconds: float, *, for_all: bool = True) -> None:
    """Have all engines of the process send the host no requests for ``seconds``. Does not shorten a longer rest.

    When the rest is over, one request is sent, and the others follow once it is answered. Without ``for_all``,
    transfers continue, but no more of them may run than do now.
    """

def host_has_answered(host: int) -> bool:
    """Whether the host has answered any request of this process, whatever the status."""

def host_has_sent(host: int) -> bool:
    """Whether the host has sent this process any part of a file."""

def host_rests_for(host: int) -> float:
    """Seconds for which ``rest_host``, or a refusal that the engine saw, still restricts the host; 0 if none does."""

def take_slot(host: int, every_us: int) -> float:
    """Reserve a slot for one request that the caller sends to the host without the engine. Returns the seconds until
    the request may be sent. The next slot is at least ``every_us`` microseconds later.
    """

def next_slot(host: int) -> float:
    """Seconds until the host's first free slot, without reserving it."""

def take_connections(host: int, wanted: int, most: int) -> int:
    """Reserve up to ``wanted`` connections to the host, which the caller opens without the engine. Returns how many.

    At most ``most`` connections may exist, including those of the process's engines, idle ones too. If none is left,
    the engines close idle ones. The caller must return each with ``give_back_connections`` once it is closed.
    """

def give_back_connections(host: int, count: int) -> None:
    """Return ``count`` connections from ``take_connections``, which are closed by now."""

def same_validators(etag: bytes, last_modified: bytes, other_etag: bytes, other: bytes) -> str:
    """The engine's version of ``identity.same_validators``: ``proven``, ``likely`` or ``different``."""

@final
class TokenBucket:
    """The engine's rate limiter, driven by the caller's clock: ``fill`` adds tokens, ``take`` spends them."""

    def __new__(cls, bytes_per_s: int) -> Self: ...
    def fill(self, now_us: int) -> None:
        """Add the tokens for the time since the last call. At most 100 ms' worth is saved up, or 16 KiB if more."""
    def take(self, size: int) -> None:
        """Spend tokens for ``size`` bytes that were received. The level may go below zero."""
    @property
    def is_dry(self) -> bool:
        """Whether no more bytes may be received before the next ``fill``."""

@final
class Jar:
    """An in-memory store for cookies that servers set. Profiles may share one."""

    def __new__(cls) -> Self: ...

@final
class Profile:
    """How to make requests: libcurl options, headers and credentials. Immutable, and shared by many files.

    ``settings`` are pairs of an option number and an int or a string. ``headers`` are "Name: value" lines sent to the
    origin of a file's URL, ``bare_headers`` those sent to any other origin that a redirect leads to. ``cookie`` is the
    user's Cookie header for the URL's origin, and ``jar`` stores the cookies that servers set. ``credentials`` are
    ``(host, user, password, any_scheme)``: an empty host is the origin of a file's URL, and with ``any_scheme`` the
    server chooses between Basic and Digest. Hosts in ``trusted`` get the same headers, cookie and credentials as that
    origin.

    ``http_proxy`` and ``https_proxy`` are the proxies for each scheme, except for the hosts and domains in ``direct``.
    They tell the engine which host connections count towards; libcurl gets its proxy from ``settings`` or the
    environment.

    ``reach`` says whether to connect to private addresses: "allow", "named" (only for hosts that the user named) or
    "refuse".

    Raises ``ValueError(option, reason)`` for a setting that this libcurl rejects.
    """

    def __new__(
        cls,
        settings: Sequence[tuple[int, int | str]],
        headers: Sequence[str],
        bare_headers: Sequence[str],
        *,
        allow_downgrade: bool = False,
        connect_timeout_s: float = 30,
        read_timeout_s: float = 60,
        http_proxy: str = "",
        https_proxy: str = "",
        direct: Sequence[str] = (),
        cookie: str = "",
        jar: Jar | None = None,
        credentials: Sequence[tuple[str, str, str, bool]] = (),
        trusted: Sequence[str] = (),
        reach: str = "allow",
    ) -> Self: ...

@final
class File:
    """One file to be downloaded.

    ``fd`` must stay open until the DONE or REMOVED event. ``lanes`` is the maximum number of concurrent transfers,
    ``first_bytes`` the length of the first range, ``least_bytes`` how much must be unclaimed before another lane is
    opened, ``window_bytes`` how far ahead of the contiguous frontier a range may begin (0: no limit), ``limit`` the
    speed limit in bytes per second (0: none), ``allocation`` a value of aria2's ``file-allocation``. ``ranged=False``
    requests the whole file in one stream. ``tag`` is for the caller's own use.

    With ``size`` the file is resumed: ``blocks`` has a byte for each block (2: done), ``partial`` maps the index of an
    unfinished block to the bytes written of it, and responses must match this size and these validators (both empty:
    unknown). ``pinned_size`` is the size that a response must have although nothing is resumed (-1: any), and
    ``most_bytes`` the largest size allowed (0: any). ``mirrors`` are further sources, each as ``(url, profile, etag,
    last_modified)``, and ``source_lanes`` is the maximum number of transfers from one source.

    ``host_lanes`` is the maximum number of connections to one host, counting idle ones and those of other files and
    engines; at that number this file waits, but with ``insists`` it gets its first connection anyway.
    ``request_every_us`` is the minimum time between two requests to one host, shared with all other files and engines
    that space theirs; 0: none.
    With ``traced``, a TRACE event describes each transfer that ends.
    With ``probe``, only the headers of one response are wanted: nothing is written, and after its ANSWERED event the
    file waits for ``remove``.

    A content coding that the extension of ``name`` or of the URL's path implies (``x.tar.gz``) is part of the file.
    With ``takes_codings`` every coding is, and the bytes are stored as they are sent. ``seems_empty`` says that a range
    was answered with 204, or with 416 and ``bytes */0``, in an earlier attempt; if a request without a range is
    answered the same way, the file is empty. ``part_bytes`` is the length of an earlier 206 response that did not say
    which part it is (0: there was none); a 206 of that length to a request without a range is then not taken for the
    whole file.

    ``loops`` is the number of loops to use as soon as the first response has arrived, whether or not that helps (0: as
    many as help). ``lease_bytes`` is how much the home lends another loop at a time.

    Raises ``ValueError`` if the arguments are out of range or inconsistent.
    """

    tag: Any
    """For the caller's own use."""
    host: Final[int]
    """The number (``host_number``) of the host that connections for its URL go to: the proxy, if one is used."""

    def __new__(
        cls,
        fd: int,
        url: str,
        profile: Profile,
        *,
        tag: Any = None,
        ranged: bool = True,
        lanes: int = 16,
        first_bytes: int = ...,
        least_bytes: int = ...,
        window_bytes: int = 0,
        limit: int = 0,
        allocation: str = "falloc",
        size: int = -1,
        block_size: int = 0,
        blocks: bytes | None = None,
        partial: Mapping[int, int] | None = None,
        etag: str = "",
        last_modified: str = "",
        mirrors: Sequence[tuple[str, Profile, str, str]] = (),
        source_lanes: int = 1024,
        host_lanes: int = ...,
        insists: bool = False,
        request_every_us: int = 0,
        most_bytes: int = 0,
        probe: bool = False,
        traced: bool = False,
        pinned_size: int = -1,
        name: str = "",
        takes_codings: bool = False,
        seems_empty: bool = False,
        part_bytes: int = 0,
        loops: int = 0,
        lease_bytes: int = ...,
    ) -> Self: ...
    @property
    def size(self) -> int:
        """Size in bytes, -1 while unknown."""
    @property
    def block_size(self) -> int:
        """Bytes per block, 0 while there is no block map."""
    @property
    def blocks(self) -> memoryview:
        """A live view of the block map, a byte per block: 0 missing, 1 claimed, 2 done. Empty while there is none."""
    @property
    def partial(self) -> memoryview:
        """A live view of the bytes written of each unfinished block, as uint32."""
    @property
    def brought_by(self) -> memoryview:
        """A live view of the highest-numbered source that has sent part of each block in this run, a byte per block; 0
        if none has."""
    @property
    def downloaded(self) -> int:
        """Bytes in the file, including those of earlier runs."""
    @property
    def contiguous(self) -> int:
        """Bytes in the file from its start up to the first gap."""
    @property
    def part_bytes(self) -> int:
        """The length of a 206 response that did not say which part it is; 0 if there was none."""
    @property
    def answered(self) -> bool:
        """Whether a response has been accepted since the file was added."""
    @property
    def splits(self) -> bool:
        """Whether the server has answered a range request with a range."""
    @property
    def lanes(self) -> int:
        """The maximum number of concurrent transfers; may be set at any time."""
    @lanes.setter
    def lanes(self, most: int) -> None: ...
    @property
    def lanes_at_once(self) -> int:
        """How many transfers the engine allows at this moment, those that wait for ``release`` included: at most
        ``lanes``, and fewer where more were no faster, or where other loops have a share of them.
        """
    @property
    def lanes_busy(self) -> int:
        """Transfers in flight."""
    @property
    def requests(self) -> int:
        """Requests sent, including redirected and failed ones."""
    @property
    def responses(self) -> int:
        """Responses whose body was accepted."""
    @property
    def connections(self) -> int:
        """Connections opened, counted when a transfer ends."""
    @property
    def received_bytes(self) -> int:
        """Body bytes of all transfers that have ended, whether they were used or not."""
    @property
    def writes(self) -> int:
        """Successful writes to the file."""
    @property
    def source_count(self) -> int:
        """The number of sources. A source is identified by its index, starting at 0."""
    def validators(self, source: int = 0) -> tuple[str, str]:
        """The ETag and Last-Modified that a source's responses must carry, as sent; empty: none, or not yet known."""
    def received_from(self, source: int) -> int:
        """Body bytes received from a source, counted when a transfer ends."""
    def ask_as(self, source: int, profile: Profile) -> None:
        """Use ``profile`` for a source, from its next request on."""
    def add_source(self, url: str, profile: Profile, validators: tuple[str, str] | None = None) -> None:
        """Add a source, which is used from now on. Its responses must have the ETag and Last-Modified in ``validators``
        (empty: the response must not have one), or with None those of its first response. Raises ``ValueError`` if a
        validator is too long.
        """
    def ban(self, source: int) -> None:
        """Send a source no further requests. Transfers in flight continue."""
    def rest(self, source: int, seconds: float) -> None:
        """Send a source no requests for ``seconds``."""
    def resolve_again(self, source: int) -> None:
        """Forget where redirects from a source led, and start from its own URL again. Begins a new epoch."""
    def ask_plainly(self, plainly: bool = True) -> None:
        """Request the file without ranges, or with them again, from the next request on. No effect once a response was
        accepted or there is a block map."""
    def move(self, source: int, url: str, profile: Profile) -> None:
        """Give a source another URL and profile. Its validators stay. Begins a new epoch."""
    def epoch(self, source: int) -> int:
        """How often ``move`` and ``resolve_again`` have changed a source's address. An event with a lower epoch is
        about an earlier address."""
    @property
    def source_lanes(self) -> int:
        """The maximum number of transfers from one source; may be set at any time."""
    @source_lanes.setter
    def source_lanes(self, most: int) -> None: ...
    @property
    def host_lanes(self) -> int:
        """The maximum number of connections to a host, whoever uses them; may be set at any time."""
    @host_lanes.setter
    def host_lanes(self, most: int) -> None: ...
    @property
    def request_every_us(self) -> int:
        """The minimum time between two requests to a host in microseconds; may be set at any time."""
    @request_every_us.setter
    def request_every_us(self, every_us: int) -> None: ...
    @property
    def uncached(self) -> bool:
        """Whether data is written without staying in the page cache, where the system supports this
        (``RWF_DONTCACHE``, Linux 6.14); may be set at any time."""
    @uncached.setter
    def uncached(self, wanted: bool) -> None: ...
    @property
    def limit(self) -> int:
        """This file's speed limit in bytes per second, 0: none; may be set at any time."""
    @limit.setter
    def limit(self, bytes_per_s: int) -> None: ...
    @property
    def lanes_aim(self) -> int:
        """The number of lanes that the growth controller aims for; at most ``lanes`` are used."""
    @property
    def request_ms(self) -> int:
        """Average time in milliseconds from sending a request to the first byte of its response."""
    @property
    def effort(self) -> dict[str, int]:
        """How the time was spent, complete once the file has ended.

        In microseconds: the total (``lasted_us``), the loop's processor time (``cpu_us``), the time in ``pwrite``
        (``disk_us``), and the time in which a limit or a reader paused a lane (``paused_us``). ``lanes_aim`` is the
        number of lanes aimed for, and ``growth_ended`` whether adding lanes had stopped helping.
        """
    @property
    def lasted_us(self) -> int:
        """Microseconds from when the loop received the file until it ended; 0 if it has not ended."""
    @property
    def guests(self) -> int:
        """How many times another loop started to help with the file."""
    @property
    def leases(self) -> int:
        """The number of leases given to other loops."""
    @property
    def steals(self) -> int:
        """How many times a lane took over the later part of another lane's range."""
    @property
    def hedges(self) -> int:
        """How many times a second lane was sent for the end of a range that was slow to arrive."""
    @property
    def replacements(self) -> int:
        """How many lanes were given up for being far slower than the others."""
    @property
    def resting_host(self) -> int:
        """The number of a host of the file that is resting, as of at most a quarter of a second ago; 0: none. This is
        the host that connections go to: the target of a redirect, or the proxy.
        """
    @property
    def waiting_for(self) -> str:
        """What the file is waiting for while the engine has it, as of at most a quarter of a second ago.

        - ``"loop"``: its loop has not received it yet;
        - ``"transfer"``: a connection, or bytes in flight; bounded by the connect and read timeouts;
        - ``"limit"``: a speed limit has paused its transfers;
        - ``"reader"``: the window is full until the reader reads further;
        - ``"rest"``: a source (``rest``) or its host is resting, and no other can be used;
        - ``"host"``: a connection to a host that already has the maximum number (``host_lanes``);
        - ``"rate"``: the time when its next request may be sent (``request_every_us``);
        - ``"decision"``: Python, after a failure (``release``) or the response to a probe (``remove``);
        - ``"nothing"``: there is something left to fetch, but nothing is scheduled that would fetch it. This may be
          seen for a moment; a file that stays in this state will never end by itself.

        From the DONE or REMOVED event on it is ``"nothing"``.
        """
    @property
    def was_there(self) -> bool:
        """Whether a small file was compared with an existing file of its name, and is identical to it."""
    def be_small(
        self,
        directory_fd: int,
        name: str,
        part_names: Sequence[str] = (),
        *,
        overwrite: bool = False,
        named_by_url: bool = True,
        largest_bytes: int = ...,
        origin: bytes | None = None,
        compares: bool = False,
    ) -> None:
        """Treat the file as a small one; call this before it is added. ``fd`` is ignored. Once one response has brought
        the whole file, it appears complete as ``name`` in the directory, whose descriptor must stay open until the
        file's last event or ``place``. ``origin`` is stored with it (``rangefetch.disk.provenance``).

        The file is held, after a HELD event, until ``place`` is called if

        - the response says that it is larger than ``largest_bytes``, states a digest, came from another URL, or (with
          ``named_by_url``) names the file;
        - ``name`` exists, unless ``overwrite`` is set; with ``compares``, only if that file is larger than
          ``largest_bytes`` or not identical, byte for byte;
        - one of the two ``part_names`` exists;
        - the disk reports an error, or does not support unnamed files;
        - it arrives very slowly.

        A held response continues from its first byte. After a FAILED event, too, the file waits for ``place``. Raises
        ``ValueError`` if an argument is out of range, or the file was already added.
        """
    def place(self, fd: int) -> None:
        """Give a held small file its descriptor. It continues like any other file."""
    def release(self) -> None:
        """Release one lane that is held after a FAILED event."""
    def read_to(self, offset: int, notify: int = 0) -> None:
        """Tell the engine that a reader is at ``offset``, from where the window now starts. With ``notify``, a REACHED
        event follows once the first ``notify`` bytes of the file are there without a gap.
        """
    def remove(self) -> None:
        """End all transfers. A REMOVED event follows, or a DONE event that was already queued."""

@final
class Engine:
    """A group of loops, and the events of the files they download.

    Closed by ``close()``, or when its last reference is dropped. Using it after ``close()``, or in a forked child
    process, raises ``RuntimeError``.
    """

    def __new__(cls, loops: int = 1) -> Self: ...
    def fileno(self) -> int:
        """A descriptor that becomes readable when ``events()`` has something to return or ``ring()`` was called."""
    def ring(self) -> None:
        """Make ``fileno()`` readable, from any thread."""
    def add(self, file: File, loop: int = 0) -> None:
        """Start downloading ``file`` on the given loop."""
    def add_all(self, files: list[File], loops: list[int]) -> None:
        """``add`` several files, each on the loop at the same index; each loop is woken once. If a file cannot be
        added, the error is raised, and the files before it stay added."""
    def events(self, whole: list[File] | None = None) -> list[_Event]:
        """The events since the last call, oldest first.

        Each is a tuple ``(name, file, curl_code, status, fault, errno, retry_after_s, offset, received_bytes, text,
        headers, source, epoch, request, address, host, kept_bytes, trace)``:

        - ``text`` is the final URL for ANSWERED, libcurl's error message for FAILED;
        - ``headers`` are the response's, one "Name: value" per line;
        - ``epoch`` is the source's epoch (``File.epoch``) when the request was sent;
        - ``request`` is how many requests the file had made by then, including this one;
        - ``address`` is the requested URL, after redirects, and ``host`` the number of the host connected to;
        - ``kept_bytes``, for FAILED, is how many bytes of the file are there, without those of transfers in progress,
          which are taken back if a response turns out to be too long;
        - ``trace`` is None except for TRACE: the requested range, the bytes received, the status, the fault, the
          connections opened, libcurl's timings in microseconds (``CURLINFO_*_TIME_T``), the start in milliseconds after
          the loop received the file, and whether the transfer was a hedge or was cut short by a steal.

        If ``whole`` is given, completed small files are appended to it instead of being reported as DONE events.
        """
    @property
    def limit(self) -> int:
        """The speed limit for all files together in bytes per second, 0: none; may be set at any time."""
    @limit.setter
    def limit(self, bytes_per_s: int) -> None: ...
    @property
    def live_files(self) -> int:
        """The number of files that were added and whose DONE or REMOVED event has not been returned yet."""
    @property
    def closed(self) -> bool: ...
    def close(self) -> None:
        """End all transfers and threads. Remaining events can still be read. May be called more than once."""
