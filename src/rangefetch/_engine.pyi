"""The native engine: bytes go from sockets to files here, and never through Python.

An ``Engine`` owns loops; each is one thread with one libcurl multi handle, and never takes the GIL. A ``File`` is
one file to be filled from one URL; it belongs to one loop from ``Engine.add`` until its DONE or REMOVED event. What
happens is told as events, tuples of numbers first; ``retry`` gives them meaning. All intervals are half-open bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, Self, final

OLDEST_LIBCURL: Final[tuple[int, int, int]]
"""The oldest libcurl that the engine takes."""

_EventName = Literal["ANSWERED", "FAILED", "DONE", "REMOVED", "MET", "TRACE", "REACHED", "HELD"]
"""For type checkers alone. MET is a further source's first answer, REACHED what ``File.read_to`` asked for."""

EVENTS: Final[frozenset[_EventName]]
"""The names of the events that there are."""

LARGEST_FILE: Final[int]
"""The largest size in bytes that a file may have: 256 TiB. A server that states a larger one is refused."""

LARGEST_BLOCK: Final[int]
"""The largest ``block_size`` in bytes."""

FAULTS: Final[dict[str, int]]
REACHES: Final[dict[str, int]]
"""Why the engine refused or ended a transfer, by name; NONE where libcurl's code says it all."""

def load_libcurl(path: str) -> dict[str, str]:
    """Open the libcurl at ``path``, or the one that a module at ``path`` is linked with; once per process.

    Returns ``path``, ``version``, ``ssl_version`` and ``description``; later calls return those of the first.
    Raises ``OSError`` where it cannot be opened, lacks a function, or is older than ``OLDEST_LIBCURL``.
    """

def constants() -> dict[str, int]:
    """Every number of libcurl's ABI that the engine was compiled with."""

def option_number(name: str) -> int | None:
    """What the loaded libcurl calls the option ``name`` (without ``CURLOPT_``), or None."""

def error_text(code: int) -> str:
    """libcurl's words for a CURLcode."""

def live_handles() -> int:
    """How many easy handles are alive in this process; 0 when no engine is open."""

def live_resources() -> dict[str, int] | None:
    """What the engine has made and not let go of, in a build that checks itself (``make debug``).

    Easy handles, pieces of memory, descriptors. None in any other build.
    """

def punch_hole(fd: int, start: int, end: int) -> bool:
    """Give the space of ``[start, end)`` back to the filesystem; False where that is not possible."""

def rename_free(old_path: bytes, new_path: bytes) -> int:
    """Rename in one step unless the new name is taken (renameat2(2), RENAME_NOREPLACE); 0 or the errno.

    ``EEXIST``: it is taken; ``EINVAL`` or ``ENOSYS``: this file system or kernel cannot tell in one step.
    """

def content_range(text: bytes) -> tuple[int, int, int] | None:
    """A Content-Range value as ``(start, end, total)``, -1 for what is unknown; None if it is malformed."""

def is_private(address: str) -> bool:
    """Whether an IP address is none of the public Internet (RFC 6890), or not an address at all."""

def host_number(url: str) -> int:
    """By what the engine knows the host to which a connection for ``url`` goes without a proxy."""

def rest_host(host: int, seconds: float, *, for_all: bool = True) -> None:
    """No engine of the process asks the host for so long; without ``for_all`` nothing new begins there. A longer rest
    that it has stays. When it is over, one request goes first, and the others follow when that is answered.
    """

def host_has_answered(host: int) -> bool:
    """Whether the host has answered a request of this process, with whatever status."""

def host_has_sent(host: int) -> bool:
    """Whether the host has sent a file, or a part of one, to this process."""

def host_rests_for(host: int) -> float:
    """Seconds for which the host is to be left alone."""

def take_slot(host: int, every_us: int) -> float:
    """Leave for one request to the host by somebody who sends it without the engine, where there are so many
    microseconds at least from one request to the next: in how many seconds it may be sent.
    """

def next_slot(host: int) -> float:
    """In how many seconds a request might be sent to the host that has no leave yet."""

def take_connections(host: int, wanted: int, most: int) -> int:
    """So many connections to the host for somebody who opens them without the engine, or as many as there are left of
    ``most``: those that the engines of the process have, idle ones too, are counted. Where there are none, the engines
    close idle ones. They are given back by ``give_back_connections`` when they are closed.
    """

def give_back_connections(host: int, count: int) -> None:
    """So many of them are closed; others may have them now."""

def same_validators(etag: bytes, last_modified: bytes, other_etag: bytes, other: bytes) -> str:
    """The engine's half of ``identity.same_validators``: ``proven``, ``likely`` or ``different``."""

@final
class TokenBucket:
    """The engine's limiter with the caller's clock: what may come is paid out by ``fill``, and taken by ``take``."""

    def __new__(cls, bytes_per_s: int) -> Self: ...
    def fill(self, now_us: int) -> None:
        """Pay out the time since the last call; at most 100 ms' worth is saved up."""
    def take(self, size: int) -> None:
        """These bytes have come."""
    @property
    def is_dry(self) -> bool:
        """Nothing more may come before the next ``fill``."""

@final
class Jar:
    """Cookies that servers set, kept in memory, for the profiles that share it."""

    def __new__(cls) -> Self: ...

@final
class Profile:
    """How to ask: libcurl options and headers, shared by many files and never changed.

    ``settings`` are pairs of an option's number and an int or a string. ``headers`` are "Name: value" lines for the
    origin of a file's URL, ``bare_headers`` those for any other origin to which a redirect leads. ``cookie`` is the
    user's cookies for the former, and ``jar`` keeps those that servers set. ``credentials`` are ``(host, user,
    password, any_scheme)``; an empty host is the origin of a file's URL, and with ``any_scheme`` the server chooses
    between Basic and Digest. To the hosts in ``trusted`` goes what is for that origin, too.

    ``http_proxy`` and ``https_proxy`` say where requests for such URLs go, but for those to the hosts and domains in
    ``direct``: connections are counted there. libcurl is told of a proxy by ``settings`` or the environment.

    ``reach`` is whether connections to private addresses are made: "allow", "named" (only for hosts that the user has
    named) or "refuse".

    Raises ``ValueError(option, why)`` for a setting that this libcurl refuses.
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
    """One file to be filled.

    ``fd`` must stay open until the DONE or REMOVED event. ``lanes`` is the most transfers at a time, ``first_bytes``
    what the first request asks for, ``least_bytes`` how much must be unclaimed for a further lane, ``window_bytes``
    how far ahead of the contiguous frontier a range may begin (0: no limit), ``limit`` bytes per second (0: none),
    ``allocation`` aria2's
    ``file-allocation``. ``ranged=False`` asks for the whole file in one stream. ``tag`` is the caller's.

    With ``size`` the file is resumed: ``blocks`` has a byte per block (2: done), ``partial`` the bytes written of
    unfinished ones by index, and an answer must have this size and these validators (both empty: not known).
    ``pinned_size`` is the size that an answer must have although nothing is resumed (-1: any), and ``most_bytes`` the
    largest that it may have (0: any). ``mirrors`` are further
    sources, ``(url, profile, etag, last_modified)`` each, and ``source_lanes`` the most transfers on one.
    ``host_lanes`` is the most connections that there may be to a host, with those of other files and engines,
    idle ones included; where there are as many, this file waits. With ``insists`` it gets its first one all the same.
    ``request_every_us`` is the time at least between two requests to a host, with those of other files and engines
    that space theirs; 0: none.
    With ``traced`` a TRACE event tells of each transfer that ends.
    With ``probe`` only one answer is wanted, for what it says: nothing is written, and nothing follows the ANSWERED
    event.

    A content coding that ``name`` or the URL's path ends in (``x.tar.gz``) is the file's own; with ``takes_codings``
    all are, and the bytes are taken as they are sent. ``seems_empty``: a range of it was answered with 204, or with
    416 and ``bytes */0``, before, so that a plain request that is answered like that, too, says that it is empty.
    ``part_bytes``: for a range came a 206 of that length that does not say which part it is (0: none did), so that one
    in reply to a plain request is not the whole file.

    ``loops`` is on how many loops the file is to be as soon as its first answer came, whether or not that pays (0: on
    as many as pay), and ``lease_bytes`` how much its home lends another loop at once.

    Raises ``ValueError`` where these do not fit together.
    """

    tag: Any
    """Whose it is: the caller's."""
    host: Final[int]
    """The number of the host that its URL leads to (``host_number``), that of the proxy if there is one."""

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
        """Bytes, -1 while unknown."""
    @property
    def block_size(self) -> int:
        """Bytes of a block, 0 while there is no block map."""
    @property
    def blocks(self) -> memoryview:
        """The block map itself, a byte per block: 0 missing, 1 claimed, 2 done. Empty while there is none."""
    @property
    def partial(self) -> memoryview:
        """Bytes written of each unfinished block, as uint32: the memory itself."""
    @property
    def brought_by(self) -> memoryview:
        """Which source has brought any of each block: the highest number of them, 0 for what nobody has brought in this
        run. A byte per block, the memory itself."""
    @property
    def downloaded(self) -> int:
        """Bytes that are in the file, those of earlier runs included."""
    @property
    def contiguous(self) -> int:
        """Bytes that are in the file from its start without a gap."""
    @property
    def part_bytes(self) -> int:
        """How long a part was that came for a range without saying which it is; 0: none did."""
    @property
    def answered(self) -> bool:
        """Whether a good answer has come since the file was added."""
    @property
    def splits(self) -> bool:
        """Whether the server has answered a range."""
    @property
    def lanes(self) -> int:
        """The most transfers at a time; may be set while running."""
    @lanes.setter
    def lanes(self, most: int) -> None: ...
    @property
    def lanes_busy(self) -> int:
        """Transfers in flight."""
    @property
    def requests(self) -> int:
        """Requests sent, redirects and failures included."""
    @property
    def responses(self) -> int:
        """Responses whose bytes were taken."""
    @property
    def connections(self) -> int:
        """Connections opened, counted when a transfer ends."""
    @property
    def received_bytes(self) -> int:
        """Bytes of bodies of ended transfers, whatever became of them."""
    @property
    def writes(self) -> int:
        """Calls of pwrite."""
    @property
    def source_count(self) -> int:
        """How many sources there are; they are known by their number, the first is 0."""
    def validators(self, source: int = 0) -> tuple[str, str]:
        """The ETag and the Last-Modified that a source's answers must carry, as sent; empty: none, or not known yet."""
    def received_from(self, source: int) -> int:
        """Bytes that ended transfers have brought from a source."""
    def ask_as(self, source: int, profile: Profile) -> None:
        """A source is asked as ``profile`` says, from its next request on."""
    def add_source(self, url: str, profile: Profile, validators: tuple[str, str] | None = None) -> None:
        """A further source, used from now on. Its responses must have this ETag and this Last-Modified (empty: none at
        all); None: those of its first response. Raises ``ValueError`` for validators that are too long.
        """
    def ban(self, source: int) -> None:
        """Never ask a source again; transfers in flight go on."""
    def rest(self, source: int, seconds: float) -> None:
        """Do not ask a source for so long."""
    def resolve_again(self, source: int) -> None:
        """Forget where redirects from a source led: it gets another address, its own URL."""
    def ask_plainly(self, plainly: bool = True) -> None:
        """Ask for the file without ranges, or with them again, from the next request on; nothing where it has begun."""
    def move(self, source: int, url: str, profile: Profile) -> None:
        """A source gets another address, ``url``, where it is asked as ``profile`` says; its validators stay."""
    def epoch(self, source: int) -> int:
        """How often ``move`` and ``resolve_again`` gave a source another address. An event of a lower epoch is about an
        earlier one."""
    @property
    def source_lanes(self) -> int:
        """The most transfers on one source; may be set while running."""
    @source_lanes.setter
    def source_lanes(self, most: int) -> None: ...
    @property
    def host_lanes(self) -> int:
        """The most connections to a host, whoever uses them; may be set while running."""
    @host_lanes.setter
    def host_lanes(self, most: int) -> None: ...
    @property
    def request_every_us(self) -> int:
        """The time at least between two requests to a host; may be set while running."""
    @request_every_us.setter
    def request_every_us(self, every_us: int) -> None: ...
    @property
    def uncached(self) -> bool:
        """What comes from now on is written without being left in the page cache, where the system can do that
        (``RWF_DONTCACHE``, Linux 6.14); may be set while running."""
    @uncached.setter
    def uncached(self, wanted: bool) -> None: ...
    @property
    def limit(self) -> int:
        """Bytes per second for this file, 0: no limit; may be set while running."""
    @limit.setter
    def limit(self, bytes_per_s: int) -> None: ...
    @property
    def lanes_aim(self) -> int:
        """How many lanes the controller aims at, within ``lanes``."""
    @property
    def request_ms(self) -> int:
        """Milliseconds from sending a request to its first byte, averaged."""
    @property
    def effort(self) -> dict[str, int]:
        """Where the time went, once the file has ended: microseconds in all, of the loop's processor, in ``pwrite``
        and held back by limits; the lanes aimed at, and whether more of them had brought no more.
        """
    @property
    def lasted_us(self) -> int:
        """Microseconds from taking the file on to its end; 0: it has not ended."""
    @property
    def guests(self) -> int:
        """How often another loop began to help with it."""
    @property
    def leases(self) -> int:
        """Runs of blocks that were lent to other loops."""
    @property
    def steals(self) -> int:
        """Ranges of which another lane took the later part."""
    @property
    def hedges(self) -> int:
        """Ends of ranges that were fetched by two lanes at once."""
    @property
    def replacements(self) -> int:
        """Lanes that were given up for being far slower than the others."""
    @property
    def resting_host(self) -> int:
        """The number of a host of the file that rests, as the loop saw it at most a quarter of a second ago; 0: none.
        It is where a redirect has led, or the proxy.
        """
    @property
    def waiting_for(self) -> str:
        """What the file is waiting for while the engine has it, as the loop saw it at most a quarter of a second ago.

        - ``"loop"``: the loop has not taken it on yet;
        - ``"transfer"``: bytes that are on their way, or a connection; bounded by the connect and read timeouts;
        - ``"limit"``: a speed limit, which holds transfers back;
        - ``"reader"``: the window is full, and the reader has not come nearer;
        - ``"rest"``: every source that may still be asked is resting (``rest``), or its host is;
        - ``"host"``: a connection to a host that has as many as it may have (``host_lanes``);
        - ``"rate"``: the time of its next request (``request_every_us``);
        - ``"decision"``: Python's, after a failure (``release``) or the answer to a probe (``remove``);
        - ``"nothing"``: there is something to fetch, and nothing is due that would fetch it. It may be seen for a
          moment; a file that stays so will never end by itself.

        From the DONE or REMOVED event on it is ``"nothing"``.
        """
    @property
    def was_there(self) -> bool:
        """Whether a small file was compared with one that had its name, and is the same."""
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
        """Take it for a small file, before it is added: its ``fd`` is ignored, and once all of its bytes have come as
        one response it appears whole as ``name`` in the directory, whose descriptor must stay open until the file's
        last event or until it has a place. ``origin`` is kept with it (``rangefetch.disk.provenance``).

        It is held (a HELD event) and waits for ``place`` where the response says that it is larger than
        ``largest_bytes``, has another URL or name (a name only with ``named_by_url``) or a digest; where something is
        called ``name`` (without ``overwrite``; with ``compares``, where that is not the same file, byte by byte, or
        larger than ``largest_bytes``) or has one of the two ``part_names``; where the disk refuses, or has no
        files without a name; and where it comes very slowly. A response that was held goes on from its first byte.
        After a FAILED event it waits for ``place``, too. Raises ``ValueError`` for what makes no sense.
        """
    def place(self, fd: int) -> None:
        """It has this descriptor from now on, and goes on as any other file."""
    def release(self) -> None:
        """Let one lane that is held after a FAILED event go on."""
    def read_to(self, offset: int, notify: int = 0) -> None:
        """A reader has come to ``offset``: the window is now ahead of it. With ``notify`` a REACHED event follows when
        so many bytes are there without a gap.
        """
    def remove(self) -> None:
        """End all transfers; a REMOVED event follows (or a DONE one that was already on its way)."""

@final
class Engine:
    """Loops, and the events of the files that they fill.

    Closed by ``close()`` or with its last reference; a process forked off may not use it. Raises ``RuntimeError``
    when used after either.
    """

    def __new__(cls, loops: int = 1) -> Self: ...
    def fileno(self) -> int:
        """A descriptor that is readable when ``events()`` has something, or ``ring()`` was called."""
    def ring(self) -> None:
        """Make ``fileno()`` readable, from any thread."""
    def add(self, file: File, loop: int = 0) -> None:
        """Begin to fill ``file`` on the given loop."""
    def add_all(self, files: list[File], loops: list[int]) -> None:
        """``add`` for several, each on its loop, which is woken once. Those before one that cannot be added are."""
    def events(
        self, whole: list[File] | None = None
    ) -> list[
        tuple[
            _EventName, Any, int, int, int, int, int, int, int, str, str, int, int, int, str, int, dict[str, int] | None
        ]
    ]:
        """What happened since the last call, oldest first.

        Each is ``(name, file, curl_code, status, fault, errno, retry_after_s, offset, received_bytes, text,
        headers, source, epoch, request, address, host, trace)``; ``text`` is the final URL of an ANSWERED, libcurl's
        words of a FAILED, ``headers`` the answer's, one "Name: value" a line, ``epoch`` how often the source had got
        another address when it was asked, ``request`` how many requests the file had made by then, this one included,
        ``address`` the URL that was asked, after redirects, ``host`` the number of the host that this was. A TRACE has
        a ``trace``, others None: the range that was asked for, the bytes that came, the status, the fault, connections
        opened, microseconds as libcurl counts them (CURLINFO_*_TIME_T), when it began (milliseconds after the file was
        added), and whether it hedged or was cut. Small files that have come whole go into ``whole``, where there is
        such a list, and their DONE is not among the events.
        """
    @property
    def limit(self) -> int:
        """Bytes per second for all files together, 0: no limit; may be set while running."""
    @limit.setter
    def limit(self, bytes_per_s: int) -> None: ...
    @property
    def live_files(self) -> int:
        """Files that were added and not yet told of as DONE or REMOVED."""
    @property
    def closed(self) -> bool: ...
    def close(self) -> None:
        """End all transfers and threads. Events up to the end can still be read. Twice is fine."""
