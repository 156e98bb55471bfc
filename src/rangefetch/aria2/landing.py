"""Where one file of aria2's lands: ``NAME.part`` with aria2's control file, from its opening to its final name.

At rest an unfinished download is the same on the disk under either backend: ``NAME.part`` and the saved state beside
it. While aria2 is at it, ``NAME.part.aria2`` says what is there, and the state only which file it is part of.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import errno
import os
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rangefetch import beside, checksum, provenance, saving
from rangefetch.aria2.abilities import confinement
from rangefetch.aria2.process import write_private
from rangefetch.aria2.remote import (
    Remote,
    Unanswered,
    account_for,
    ask,
    difference,
    headers_at,
    is_http,
    origin,
    parse_date,
)
from rangefetch.authority import is_unvouched
from rangefetch.control_file import ControlFile, block_size, from_control_file, to_control_file
from rangefetch.download import Download
from rangefetch.errors import ChecksumMismatch, ContentChanged, DiskError, TargetExists
from rangefetch.existing import Standing, look
from rangefetch.identity import (
    Basis,
    Identity,
    Same,
    Strength,
    must_compare_before_publishing,
    must_compare_before_resuming,
    same,
)
from rangefetch.logs import log as _log
from rangefetch.names import choose_filename
from rangefetch.network import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.ownership import NotOurs, read_own
from rangefetch.parts import is_open_on
from rangefetch.retry import Failure, Fault
from rangefetch.samples import SAMPLE_BYTES, Sample, choose, finished_spans, read
from rangefetch.sources import Source, Sources
from rangefetch.state import SourceState, State, StateDamaged
from rangefetch.target import Target, free_space

__all__ = ["AnotherFile", "Contradiction", "Doubt", "FileLanding", "Request"]

_HASH_STEP_BYTES = 64 << 20
_WORTH_NOTING_BYTES = 8 << 20
_ROOM_BYTES = 64 << 10  # more than a state takes
_DONE = 2
_PARTS = 16
_TRIES = 4


@dataclasses.dataclass(slots=True)
class Request:
    """What aria2 is asked for: URLs, and the options that depend on where they lead and where the file goes."""

    urls: list[str]
    options: dict[str, str | list[str]]
    torrent: str = ""
    """In the place of a URL: a torrent, in Base64."""
    metalink: str = ""
    """The same for a Metalink."""


class AnotherFile(Exception):
    """The remote file is not the one that this run has begun with: what was fetched is worth nothing."""


class Contradiction(Exception):
    """A mirror has another file than the URL."""


@dataclasses.dataclass(slots=True)
class Doubt:
    """Bytes that are there and may be those of the remote file. ``samples`` of them are to be compared with the
    server's, and ``resolve`` is told how they differ ("": they do not); it raises and returns what ``meet`` does."""

    samples: Sequence[Sample]
    size: int
    resolve: Callable[[str], Path | None]


def _must_be_vouched_for(remote: Remote, known: Identity) -> None:
    """What is not the file that is known may be a new version of it, but not without a validator where that had one.

    Raises ``Unanswered``.
    """
    if not remote.ranged and is_unvouched(remote.identity, known):
        raise Unanswered(Failure(fault=Fault.UNVOUCHED))


class FileLanding:
    """The place of one file from HTTP or FTP. ``stopping`` says that nobody waits for it any more.

    ``resumed`` is how many bytes were there already.
    """

    def __init__(self, download: Download, sources: Sources, stopping: Callable[[], bool]) -> None:
        self.resumed = 0
        self.remote: Remote | None = None
        self._download = download
        self._options = download.options
        self._sources = sources
        self._url = sources.url
        self._shown_url = mask_url(download.url)
        self._stopping = stopping
        self._target: Target | None = None
        self._source = sources[0]
        self._met: dict[str, Remote] = {}
        self._settled = False  # what lies there is of this run
        self._is_unsafe = False  # a sync has failed
        self._basis: Basis | None = None  # what came of comparisons
        self._pieces: ControlFile | None = None

    # -- beginning --------------------------------------------------------------------------------------------------

    def open(self) -> Path | Doubt | None:
        """Lock the part file; the final path, if the file with the right checksum has it already.

        Raises ``TargetLocked``, ``TargetExists``, ``DiskError``.
        """
        options = self._options
        target = self._target = Target.open(options.save_dir, options.filename, self._url, adopt=bool(options.checksum))
        for stranger in beside.strangers(target.part_path):
            if stranger.name.startswith(target.control_path.name):
                words = "it is not ours, and aria2c would write to it"
                raise DiskError(f"{stranger}: {words}", url=self._shown_url, errno=errno.EEXIST)
        self._download.filename = options.filename or choose_filename(self._url)
        if target.path is not None and options.checksum and self._is_taken(target.path):
            return self._compared(target.path)
        return None

    def meet(self, source: Source, remote: Remote | None) -> Path | Doubt | None:
        """Note what the server says the file is (None: it cannot be asked), and keep of earlier runs what fits it.

        Returns the final path if that very file is there already, or the doubt that must be resolved first. Raises
        ``Unanswered``, ``AnotherFile``, ``Contradiction``, ``ContentChanged``, ``TargetExists``, ``DiskError``.
        """
        self._source = source
        if remote is not None:
            before = self._met.get(source.given_url)
            if before is not None and same(before.identity, remote.identity) is Same.DIFFERENT:
                _must_be_vouched_for(remote, before.identity)
                raise AnotherFile("the remote file is not the same as before (its size or a validator differs)")
            doubt = self._meet_another(source, remote) if before is None and self._settled else None
            if doubt is not None:
                return doubt
            self.remote = self._met[source.given_url] = remote
        if self._settled:
            return None
        target = self._opened
        size = remote.size if remote is not None else -1
        if target.path is None:
            target.name(self._name(remote))
        assert target.path is not None
        self._download.filename = target.path.name
        if self._options.expected_size and size not in (-1, self._options.expected_size):
            raise ContentChanged(
                f"the remote file has {size} bytes, not {self._options.expected_size}",
                url=self._shown_url,
            )
        if self._is_taken(target.path):
            return self._compared(target.path)
        return self._settle()

    def _meet_another(self, source: Source, remote: Remote) -> Doubt | None:
        """Another source than those that were met: it must have the same file."""
        sizes = {met.size for met in self._met.values()} - {-1}
        if sizes and remote.size not in sizes:
            if source is self._sources[0]:
                raise AnotherFile("the file of the URL has another size than that of the mirror that answered before")
            raise Contradiction(f"it has {remote.size} bytes, not {sizes.pop()}")

        def resolve(differs: str) -> None:
            if differs and source is self._sources[0]:
                raise AnotherFile(f"the file of the URL is not that of the mirror that answered before: {differs}")
            if differs:
                raise Contradiction(differs)
            self.remote = self._met[source.given_url] = remote

        return self._doubt(self._written_spans(), remote.size, resolve)

    def _doubt(
        self, spans: Iterable[tuple[int, int]], size: int, resolve: Callable[[str], Path | None], fd: int = -1
    ) -> Doubt | None:
        """Whether ``spans`` of the part file (or of ``fd``) are the server's; None: there is nothing to compare."""
        where = choose(size, spans, random.SystemRandom()) if size > 0 else []
        samples = read(self._opened.fd if fd < 0 else fd, where)
        return Doubt(samples, size, resolve) if samples else None

    def _written_spans(self) -> list[tuple[int, int]]:
        """What aria2's control file says is there."""
        try:
            return ControlFile.parse(self._control()).runs()
        except (StateDamaged, OSError):
            return []

    def unchecked_mirror(self) -> Source | None:
        """A mirror that nobody knows to have the same file."""
        if self.remote is None or self.remote.size <= 0 or not self.remote.ranged:
            return None
        return next(
            (each for each in self._sources.usable() if each is not self._source and not self._is_checked(each)), None
        )

    def _is_checked(self, source: Source) -> bool:
        return source.given_url in self._met or not is_http(source.url)

    def check_mirror(self, mirror: Source) -> Remote | None:
        """What the mirror says of its file, if that has the same bytes; None while there are none to compare.

        For a thread of its own, while aria2 writes. Raises ``Contradiction``, ``Unanswered``.
        """
        remote, fd = self.remote, self._opened.fd
        if remote is None or fd < 0:
            return None
        with os.fdopen(os.dup(fd), "rb") as part:  # which may be closed meanwhile
            samples = read(part.fileno(), choose(remote.size, self._written_spans(), random.SystemRandom()))
        if not samples:
            return None
        theirs = ask(mirror, self._options)
        if differs := difference(mirror, self._options, remote.size, samples):
            raise Contradiction(differs)
        return theirs

    def trust_mirror(self, mirror: Source, remote: Remote) -> None:
        """From now on aria2 may use it."""
        self._met[mirror.given_url] = remote
        mirror.answered = True
        mirror.resolved_url = remote.url

    def change(self, options: DownloadOptions) -> None:
        """Use other options from now on."""
        self._options = options

    @property
    def is_whole(self) -> bool:
        """Whether an earlier run has left every byte."""
        return self._settled and self.resumed > 0 and self.remote is not None and self.resumed == self.remote.size

    @property
    def wants_proof(self) -> bool:
        """Whether it must be asked, after the last byte, if the remote file is still the same: aria2 compares no
        validators between its requests."""
        return self.remote is not None and self.remote.size != 0 and not self._options.checksum

    def basis(self, *, responses: int) -> Basis:
        """How it was established that what came, from so many responses, is one version of the URL's file."""
        if self._basis is not None:
            return self._basis
        remote = self.remote
        if self.checksum:
            return Basis.CHECKSUM
        if remote is not None and self._sources[0].given_url not in self._met:
            return Basis.MIRRORS
        if responses == 1 and not self.resumed:
            return Basis.ONE_RESPONSE
        if remote is None:
            return Basis.SIZE
        return {Strength.STRONG: Basis.ETAG, Strength.DATED: Basis.LAST_MODIFIED}.get(
            remote.identity.strength, Basis.SIZE
        )

    def last_doubt(self, *, responses: int) -> Doubt | None:
        """Whether what came from so many responses is one version of the file, if that is not certain."""
        remote = self.remote
        if remote is None or not remote.ranged or self._options.checksum:
            return None

        def resolve(differs: str) -> None:
            if differs:
                raise AnotherFile(f"the remote file is not what was fetched: {differs}")
            if self._sources[0].given_url in self._met:
                self._basis = Basis.COMPARED

        if remote.names_mirrors or must_compare_before_publishing(remote.identity, responses=responses, checksum=False):
            samples = read(self._opened.fd, _spread(remote.size, random.SystemRandom()))
            return Doubt(samples, remote.size, resolve) if samples else None
        return None

    def request(self, *, ask_head: bool) -> Request:
        """The URLs, and with them headers only where these may go: aria2 sends them along with every redirect.

        ``ask_head``: aria2 may ask for the head alone first.
        """
        target, options, source = self._opened, self._options, self._source
        asked: dict[str, str | list[str]] = {
            "dir": str(target.directory),
            "out": target.part_path.name,
            "follow-torrent": "false",
            "follow-metalink": "false",
            # Where it lacks but a part, its first request would be one for the whole, cut when the header has come.
            "use-head": str(ask_head and self._opened.control_path.exists()).lower(),
        }
        headers: dict[str, str] = {}
        first = source.url
        if is_http(first):
            met = self._met.get(source.given_url)
            if met is not None and origin(met.url) != origin(first) and headers_at(first, source, options):
                first = met.url
            headers = headers_at(first, source, options)
        elif (account := _account(source, options)) is not None:
            asked |= {"ftp-user": account[0], "ftp-passwd": account[1]}
        others = (each for each in self._sources.usable() if each is not source and self._is_checked(each))
        urls = [first, *(each.url for each in others)]
        if headers and any(origin(url) != origin(first) for url in urls):
            _log.info("%s: mirrors are left out, since they must not see its headers", self._shown_url)
            urls = [url for url in urls if origin(url) == origin(first)]
        asked |= confinement(urls, options, only_host=bool(headers))
        asked["header"] = [f"{name}: {value}" for name, value in headers.items()]
        return Request(urls, asked)

    def restart(self) -> None:
        """Drop all bytes that are there, and all that speaks of them."""
        self._opened.truncate()
        self._met.clear()
        self.resumed = 0
        self.remote = None
        self._settled = False
        self._pieces = None
        self._basis = None

    # -- the end ----------------------------------------------------------------------------------------------------

    def finish(self) -> tuple[Path, int] | None:
        """Prove what came, and give it its name; the path and the bytes of it, None if it was stopped.

        Raises ``AnotherFile``, ``ChecksumMismatch``, ``ContentChanged``, ``TargetExists``, ``DiskError``.
        """
        target, size = self._opened, os.fstat(self._opened.fd).st_size
        if self._options.expected_size not in (0, size):
            raise ContentChanged(f"received {size} bytes, not {self._options.expected_size}", url=self._shown_url)
        if self.remote is not None and self.remote.size not in (-1, size):
            raise AnotherFile(f"{size} bytes came, and the server had said {self.remote.size}")
        if wanted := self.checksum:
            found = self._digest(target.fd, wanted.partition("=")[0])
            if found is None:
                return None
            if found != wanted:
                kept = target.set_aside(f"its checksum is {found}")
                raise ChecksumMismatch(
                    f"wrong checksum: expected {wanted}, got {found}; the data is kept in {kept}",
                    expected=wanted,
                    actual=found,
                    url=self._shown_url,
                    kept=kept,
                )
        # For FTP it was aria2 that set it.
        modified = parse_date(self.remote.identity.last_modified) if self.remote is not None else None
        own = self._met.get(self._sources[0].given_url)
        if self._options.durable:
            self._sync()
        provenance.record(target.fd, self._url, own.identity if own is not None else Identity(), modified)
        path = target.publish(overwrite=self._options.overwrite, modified_time=modified, durable=self._options.durable)
        self._forget_control()
        provenance.wrote(path, self._url)
        return path, size

    @property
    def checksum(self) -> str:
        """What the file's digest must be: the user's word, else the server's, where there is but one."""
        if self._options.checksum or self.remote is None or len(self._sources) > 1:
            return self._options.checksum
        return checksum.stated_by_server(self.remote.headers, whole=not self.remote.ranged)

    def note_pieces(self, control: ControlFile) -> None:
        """What aria2 itself says is there, for where its control file is lost."""
        self._pieces = control

    def keep(self, *, complete: bool) -> int | None:
        """Turn what aria2 has left into a saved state, and let go. What cannot be continued is removed.

        Returns how many bytes are kept; None: nothing was fetched, or it could not be saved. Raises ``DiskError`` where
        a sync fails: then only what was safe before is kept.
        """
        target = self._target
        if target is None or target.fd < 0:
            return None
        try:
            if not self._settled:
                if target.fresh or not (target.state_path.exists() or target.control_path.exists()):
                    target.discard()
            elif self._is_unsafe:
                self._forget_control()
            elif (saved := self._whole() if complete else self._from_aria2()) is not None and saved.written_end:
                self._sync()
                saved = self._saved(saved)
                self._forget_control()
                return saved.written_bytes
            else:
                self.discard()
        except OSError as error:
            if self._is_unsafe:
                raise
            _log.warning("%s: the downloaded data could not be saved: %s", self._shown_url, error)
        finally:
            target.close()
        return None

    def _sync(self) -> None:
        """Return when what is there would survive a power failure. Raises ``DiskError``, and then nothing that was
        written since the last time counts any more: the next sync would succeed without those bytes."""
        try:
            self._opened.sync()
        except DiskError:
            self._is_unsafe = True
            self._forget_control()
            raise

    def _saved(self, saved: State) -> State:
        """Save it. A full disk has no room for a state: a little less of the data makes some. Raises ``DiskError``."""
        target = self._opened
        try:
            target.save_state(saved)
        except DiskError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._forget_control()
            saved = _without_last(saved)
            os.ftruncate(target.fd, saved.written_end)
            target.save_state(saved)
        return saved

    def _forget_control(self) -> None:
        """Remove what aria2 says of the bytes, and what it left of an attempt to."""
        control = self._opened.control_path
        beside.remove(control)
        beside.remove(control.with_name(control.name + "__temp"))

    def discard(self) -> None:
        """Remove what this download has made."""
        if self._target is not None and self._target.fd >= 0:
            if is_open_on(self._target.fd, self._target.part_path):
                self._forget_control()
            self._target.discard()

    # -- what is there already --------------------------------------------------------------------------------------

    def _settle(self) -> Doubt | None:
        """Have aria2 find what earlier runs have left and still holds, and nothing else."""
        saved = saving.load(self._opened, self._url, provable=bool(self._options.checksum))
        if saved is None or not saved.written_end:
            self._settle_on(None)
            return None
        self._check_mirror(saved)
        if not self._is_of_this(saved):
            known = self._known(saved)
            if self.remote is not None and known is not None and not self._options.checksum:
                _must_be_vouched_for(self.remote, known)
            _log.warning("%s: the saved data is of a different file; starting over", self._shown_url)
            self._settle_on(None)
            return None
        known = self._known(saved)
        checksum = bool(self._options.checksum)
        if checksum or (known is not None and not must_compare_before_resuming(known, checksum=False)):
            self._settle_on(saved)
            return None

        def resolve(differs: str) -> None:
            if differs and self._source is not self._sources[0]:
                raise Contradiction(differs)
            if differs:
                _log.warning("%s: the remote file has changed (%s); starting over", self._shown_url, differs)
            self._settle_on(None if differs else saved)

        spans = finished_spans(saved.blocks, saved.block_size, saved.total_size, saved.partial)
        doubt = self._doubt(spans, saved.total_size, resolve)
        if doubt is None:  # too little to be worth it
            self._settle_on(None)
        return doubt

    def _settle_on(self, saved: State | None) -> None:
        octets = to_control_file(saved) if saved is not None else b""
        written = ControlFile.parse(octets).written_bytes if octets else 0
        target = self._opened
        if not written:
            beside.remove(target.control_path)
            if not target.fresh:
                target.truncate()
        else:
            assert saved is not None
            write_private(target.control_path, octets)
            self.resumed = written
            _log.info("%s: resuming, %d of %d bytes are there", self._shown_url, written, saved.total_size)
        self._settled = True
        # From now on the control file alone says what is there. Without this note nobody could tell what of.
        if self.remote is not None and (written or self.remote.size >= _WORTH_NOTING_BYTES):
            note = self._empty(self.remote)
            if saved is not None and written:
                # What is known to be safe stays so, whatever comes of the rest.
                note = dataclasses.replace(
                    note, block_size=saved.block_size, blocks=saved.blocks, partial=saved.partial
                )
            target.save_state(note)
        size = self.remote.size if self.remote is not None else -1
        if free_space(target.directory) < size - self.resumed:
            raise DiskError(
                f"{target.directory}: {size - self.resumed} bytes are needed, and fewer are free",
                url=self._shown_url,
                errno=errno.ENOSPC,
            )

    def _check_mirror(self, saved: State) -> None:
        """What the URL has proved in an earlier run, a mirror cannot undo. Raises ``Contradiction``."""
        if self._source is not self._sources[0] and self.remote is not None and self.remote.size != saved.total_size:
            raise Contradiction(f"it has {self.remote.size} bytes, not {saved.total_size}")

    def _known(self, saved: State) -> Identity | None:
        """What the source that answers was in an earlier run; None: it was not asked then."""
        for source in saved.sources:
            if source.url == self._source.given_url:
                return Identity(saved.total_size, source.etag, source.last_modified)
        return None

    def _control(self) -> bytes:
        """What is in aria2's control file. Raises ``StateDamaged`` for what it cannot be, and ``OSError``."""
        path = self._opened.control_path
        try:
            return read_own(path, saving.MOST_CONTROL_BYTES)[0]
        except NotOurs as error:
            raise StateDamaged(f"{path}: {error}") from error

    def _from_aria2(self) -> State | None:
        """The state that aria2's control file stands for, else what aria2 says itself; None if there is neither.

        Which file it is of is what the server has said in this run.
        """
        if self.remote is not None and not self.remote.ranged:
            return None
        octets = b""
        with contextlib.suppress(FileNotFoundError):
            try:
                octets = self._control()
                return self._as_state(octets)
            except StateDamaged as error:
                # On a full disk aria2 leaves half of one.
                _log.warning("%s: %s", self._shown_url, error)
        return self._as_state(self._pieces.to_bytes()) if self._pieces is not None else None

    def _as_state(self, octets: bytes) -> State:
        """Raises ``StateDamaged``."""
        found = from_control_file(
            octets,
            self._url,
            sources=self._source_states(),
            resolved_url=self.remote.url if self.remote is not None else "",
            filename=self._opened.path.name if self._opened.path is not None else "",
        )
        if os.fstat(self._opened.fd).st_size < found.written_end:
            raise StateDamaged(f"{self._opened.part_path} is shorter than aria2 says")
        return found

    def _is_of_this(self, saved: State) -> bool:
        """Whether what was saved may be part of the file that the server has now, and can be gone on with."""
        if self.remote is None:
            return bool(self._options.checksum)
        if not self.remote.ranged or self.remote.size not in (-1, saved.total_size):
            return False
        known = self._known(saved)
        return bool(self._options.checksum) or known is None or same(known, self.remote.identity) is not Same.DIFFERENT

    def _source_states(self) -> list[SourceState]:
        return [SourceState(url, met.identity.etag, met.identity.last_modified) for url, met in self._met.items()]

    def _empty(self, remote: Remote) -> State:
        """A state that says which file it is, and nothing of what is there."""
        size = max(remote.size, 0)
        block_bytes = block_size(size)
        return State(
            url=self._url,
            resolved_url=remote.url,
            total_size=size,
            supports_range=True,
            sources=self._source_states(),
            block_size=block_bytes,
            blocks=bytes(-(-size // block_bytes)),
            partial={},
            filename=self._opened.path.name if self._opened.path is not None else "",
        )

    def _whole(self) -> State | None:
        """A state that says that every byte is there."""
        if self.remote is None or self.remote.size != os.fstat(self._opened.fd).st_size:
            return None
        empty = self._empty(self.remote)
        return dataclasses.replace(empty, blocks=b"\x02" * len(empty.blocks))

    # -- small things -----------------------------------------------------------------------------------------------

    @property
    def _opened(self) -> Target:
        assert self._target is not None
        return self._target

    def _name(self, remote: Remote | None) -> str:
        if remote is None:
            return choose_filename(self._url)
        return choose_filename(self._url, remote.url, remote.headers.get("content-disposition", ""))

    def _is_taken(self, path: Path) -> bool:
        return path.exists() and not self._options.overwrite

    def _compared(self, path: Path) -> Path | Doubt | None:
        """The path, if the file that has the final name is the one that is wanted. Raises ``TargetExists``."""

        def taken(reason: str) -> TargetExists:
            return TargetExists(f"{path} exists and {reason}; overwrite is off", url=self._shown_url)

        if self._options.checksum:
            with path.open("rb") as existing:
                digest = self._digest(existing.fileno(), self._options.checksum.partition("=")[0])
            if digest in (None, self._options.checksum):
                self._basis = Basis.CHECKSUM
                return path if digest else None
            raise taken("has another checksum")
        remote = self.remote
        if remote is None:
            raise taken("the server cannot be asked whether it is the same")
        found = look(path, self._url, remote.identity)
        standing, reason = found.standing, found.reason
        if standing is Standing.UNCERTAIN and not remote.ranged:
            standing, reason = found.otherwise, "has the size of the remote file, but cannot be compared"
        self._basis = found.basis
        if standing is Standing.SAME:
            return path
        if standing is Standing.GONE:
            self._basis = None
            return self._settle()
        if standing is Standing.ANOTHER:
            raise taken(reason)

        def resolve(differs: str) -> Path:
            if differs:
                raise taken(f"has the size of the remote file, but different content: {differs}")
            return path

        return Doubt(found.samples, remote.size, resolve)

    def _digest(self, fd: int, algorithm: str) -> str | None:
        """``algorithm=HEX`` of an open file; None if it was stopped."""
        hasher, size = checksum.FileHasher(fd, algorithm), os.fstat(fd).st_size
        while hasher.position < size:
            if self._stopping():
                return None
            hasher.advance(min(size, hasher.position + _HASH_STEP_BYTES))
        return f"{algorithm}={hasher.hexdigest()}"


def _without_last(saved: State) -> State:
    """The same without the last bytes, which take the space that a state needs."""
    end = max(0, saved.written_end - _ROOM_BYTES)
    blocks, partial = bytearray(saved.blocks), dict(saved.partial)
    for index in range(end // saved.block_size, len(blocks)):
        start = index * saved.block_size
        there = saved.block_size if blocks[index] == _DONE else partial.pop(index, 0)
        blocks[index] = 0
        if left := min(there, max(0, end - start)):
            partial[index] = left
    return dataclasses.replace(saved, blocks=bytes(blocks), partial=partial)


def _spread(size: int, chance: random.Random) -> list[list[tuple[int, int]]]:
    """Places for samples all over a file: aria2 does not tell which parts came early, and from which response."""
    count = min(_PARTS, -(-size // SAMPLE_BYTES))
    places = []
    for number in range(count):
        first, end = size * number // count, size * (number + 1) // count
        starts = [chance.randint(first, max(first, end - SAMPLE_BYTES)) for _ in range(_TRIES)]
        places.append([(start, min(start + SAMPLE_BYTES, end)) for start in starts])
    return places


def _account(source: Source, options: DownloadOptions) -> tuple[str, str] | None:
    """Name and password for a server that is not HTTP: the URL's, else the netrc file's."""
    if not source.authorization:
        return account_for(source.url, options) if options.netrc else None
    user, _, password = base64.b64decode(source.authorization.removeprefix("Basic ")).decode().partition(":")
    return user, password
