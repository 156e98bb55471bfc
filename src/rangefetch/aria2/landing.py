"""Where one file of aria2's lands: ``NAME.part`` with aria2's control file, from its opening to its final name.

At rest an unfinished download is the same on the disk under either backend: ``NAME.part`` and the saved state beside
it. While aria2 is at it, ``NAME.part.aria2`` says what is there, and the state only which file it is part of.
"""

from __future__ import annotations

import base64
import dataclasses
import errno
import os
from collections.abc import Callable
from pathlib import Path

from rangefetch import checksum, saving
from rangefetch.aria2.abilities import confinement
from rangefetch.aria2.process import write_private
from rangefetch.aria2.remote import Remote, account_for, headers_at, is_http, origin, parse_date
from rangefetch.control_file import ControlFile, block_size, from_control_file, to_control_file
from rangefetch.download import Download
from rangefetch.errors import ChecksumMismatch, ContentChanged, DiskError, TargetExists
from rangefetch.logs import log as _log
from rangefetch.names import choose_filename
from rangefetch.network import mask_url
from rangefetch.options import DownloadOptions
from rangefetch.sources import Source, Sources
from rangefetch.state import SourceState, State, StateDamaged
from rangefetch.target import Target, free_space

__all__ = ["AnotherFile", "FileLanding", "Request"]

_HASH_STEP_BYTES = 64 << 20
_WORTH_NOTING_BYTES = 8 << 20


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

    # -- beginning --------------------------------------------------------------------------------------------------

    def open(self) -> Path | None:
        """Lock the part file; the final path, if the file with the right checksum has it already.

        Raises ``TargetLocked``, ``TargetExists``, ``DiskError``.
        """
        options = self._options
        target = self._target = Target.open(options.save_dir, options.filename, self._url, adopt=bool(options.checksum))
        self._download.filename = options.filename or choose_filename(self._url)
        if target.path is not None and options.checksum and self._is_taken(target.path):
            return self._compared(target.path)
        return None

    def clear(self) -> None:
        """Remove what an earlier run has left. Raises ``TargetLocked``, ``DiskError``."""
        self._target = Target.open(self._options.save_dir, self._options.filename, self._url)
        self.discard()

    def meet(self, source: Source, remote: Remote | None) -> Path | None:
        """Note what the server says the file is (None: it cannot be asked), and keep of earlier runs what fits it.

        Returns the final path if that very file is there already. Raises ``AnotherFile``, ``ContentChanged``,
        ``TargetExists``, ``DiskError``.
        """
        self._source = source
        before = self._met.get(source.given_url)
        if remote is not None:
            if before is not None and not remote.is_still(before.size, before.etag, before.last_modified):
                raise AnotherFile("the remote file is not the same as before (its ETag or Last-Modified differs)")
            if self.remote is not None and len({self.remote.size, remote.size} - {-1}) > 1:
                raise AnotherFile("the remote file has another size than before")
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
                f"the remote file has {size} bytes, and {self._options.expected_size} were expected",
                url=self._shown_url,
            )
        if self._is_taken(target.path):
            return self._compared(target.path)
        self._settle()
        if free_space(target.directory) < size - self.resumed:
            raise DiskError(
                f"{target.directory}: {size - self.resumed} bytes are needed, and fewer are free",
                url=self._shown_url,
                errno=errno.ENOSPC,
            )
        return None

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
        return self.remote is not None and self.remote.has_validator and self.remote.size != 0

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
        urls = [first, *(each.url for each in self._sources.usable() if each is not source)]
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

    # -- the end ----------------------------------------------------------------------------------------------------

    def finish(self) -> Path | None:
        """Prove what came, and give it its name; None if it was stopped.

        Raises ``AnotherFile``, ``ChecksumMismatch``, ``ContentChanged``, ``TargetExists``, ``DiskError``.
        """
        target, size = self._opened, os.fstat(self._opened.fd).st_size
        if self._options.expected_size not in (0, size):
            raise ContentChanged(
                f"{size} bytes came, and {self._options.expected_size} were expected", url=self._shown_url
            )
        if self.remote is not None and self.remote.size not in (-1, size):
            raise AnotherFile(f"{size} bytes came, and the server had said {self.remote.size}")
        if wanted := self.checksum:
            found = self._digest(target.fd, wanted.partition("=")[0])
            if found is None:
                return None
            if found != wanted:
                kept = target.set_aside(f"its checksum is {found}")
                raise ChecksumMismatch(
                    f"the checksum is {found}, and {wanted} was expected; the data is kept in {kept}",
                    expected=wanted,
                    actual=found,
                    url=self._shown_url,
                )
        return target.publish(
            overwrite=self._options.overwrite,
            # For FTP it was aria2 that set it.
            modified_time=parse_date(self.remote.last_modified) if self.remote is not None else None,
            durable=self._options.durable,
        )

    @property
    def checksum(self) -> str:
        """What the file's digest must be: the user's word, else the server's, where there is but one."""
        if self._options.checksum or self.remote is None or len(self._sources) > 1:
            return self._options.checksum
        return checksum.stated_by_server(self.remote.headers, whole=not self.remote.ranged)

    def keep(self, *, complete: bool) -> int | None:
        """Turn aria2's control file into a saved state, and let go. What cannot be continued is removed.

        Returns how many bytes are kept; None: nothing was fetched, or it could not be saved.
        """
        target = self._target
        if target is None or target.fd < 0:
            return None
        try:
            if not self._settled:
                if not (target.state_path.exists() or target.control_path.exists()):
                    target.discard()
            elif (saved := self._whole() if complete else self._from_control()) is not None and saved.written_end:
                target.sync()
                target.save_state(saved)
                self._opened.control_path.unlink(missing_ok=True)
                return saved.written_bytes
            else:
                self.discard()
        except StateDamaged as error:
            # On a full disk aria2 leaves half of one.
            _log.warning("%s: what was fetched is lost: %s", self._shown_url, error)
            self.discard()
        except OSError as error:
            _log.warning("%s: what was fetched could not be saved: %s", self._shown_url, error)
        finally:
            target.close()
        return None

    def discard(self) -> None:
        if self._target is not None and self._target.fd >= 0:
            self._target.discard()

    # -- what is there already --------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Have aria2 find what earlier runs have left and still holds, and nothing else."""
        saved = saving.load(self._opened, self._url, provable=True)
        if saved is not None and not self._is_of_this(saved):
            _log.warning("%s: what was fetched before is not of this file; starting again", self._shown_url)
            saved = None
        octets = to_control_file(saved) if saved is not None and saved.written_end else b""
        written = ControlFile.parse(octets).written_bytes if octets else 0
        if not written:
            self._opened.control_path.unlink(missing_ok=True)
            if not self._opened.fresh:
                self._opened.truncate()
        else:
            assert saved is not None
            write_private(self._opened.control_path, octets)
            self.resumed = written
            _log.info("%s: going on, %d of %d bytes are there", self._shown_url, written, saved.total_size)
        self._settled = True
        # From now on the control file alone says what is there. Without this note nobody could tell what of.
        if self.remote is not None and (written or self.remote.size >= _WORTH_NOTING_BYTES):
            self._opened.save_state(self._empty(self.remote))

    def _from_control(self) -> State | None:
        """The state that aria2's control file stands for; None if there is none. Raises ``StateDamaged``.

        Which file it is of is what the server has said in this run.
        """
        if not self._opened.control_path.exists() or (self.remote is not None and not self.remote.ranged):
            return None
        return from_control_file(
            self._opened.control_path.read_bytes(),
            self._url,
            sources=[SourceState(url, met.etag, met.last_modified) for url, met in self._met.items()],
            resolved_url=self.remote.url if self.remote is not None else "",
            filename=self._opened.path.name if self._opened.path is not None else "",
        )

    def _is_of_this(self, saved: State) -> bool:
        """Whether what was saved is part of the file that the server has now, and can be gone on with."""
        if self.remote is not None and not self.remote.ranged:
            return False
        if self._options.checksum:
            return self.remote is None or self.remote.size in (-1, saved.total_size)
        if self.remote is None or not self.remote.has_validator:
            return False
        for source in saved.sources:
            if source.url == self._source.given_url and (source.etag or source.last_modified):
                return self.remote.is_still(saved.total_size, source.etag, source.last_modified)
        return False

    def _empty(self, remote: Remote) -> State:
        """A state that says which file it is, and nothing of what is there."""
        size = max(remote.size, 0)
        block_bytes = block_size(size)
        return State(
            url=self._url,
            resolved_url=remote.url,
            total_size=size,
            supports_range=True,
            sources=[SourceState(url, met.etag, met.last_modified) for url, met in self._met.items()],
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

    def _compared(self, path: Path) -> Path | None:
        """The path, if the file that has the final name is the one that is wanted. Raises ``TargetExists``."""
        found = path.stat()
        if self._options.checksum:
            with path.open("rb") as existing:
                same = self._digest(existing.fileno(), self._options.checksum.partition("=")[0])
            if same is None or same == self._options.checksum:
                return path if same else None
            reason = "it has another checksum"
        else:
            modified = parse_date(self.remote.last_modified) if self.remote is not None else None
            if (
                self.remote is not None
                and modified is not None
                and (found.st_size, int(found.st_mtime)) == (self.remote.size, int(modified))
            ):
                return path
            reason = "it is another file (size or time differ)"
        raise TargetExists(f"{path} exists, and {reason}; overwriting was not asked for", url=self._shown_url)

    def _digest(self, fd: int, algorithm: str) -> str | None:
        """``algorithm=HEX`` of an open file; None if it was stopped."""
        hasher, size = checksum.FileHasher(fd, algorithm), os.fstat(fd).st_size
        while hasher.position < size:
            if self._stopping():
                return None
            hasher.advance(min(size, hasher.position + _HASH_STEP_BYTES))
        return f"{algorithm}={hasher.hexdigest()}"


def _account(source: Source, options: DownloadOptions) -> tuple[str, str] | None:
    """Name and password for a server that is not HTTP: the URL's, else the netrc file's."""
    if not source.authorization:
        return account_for(source.url, options) if options.netrc else None
    user, _, password = base64.b64decode(source.authorization.removeprefix("Basic ")).decode().partition(":")
    return user, password
