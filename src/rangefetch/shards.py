"""Puts small files into tar files, the shards that WebDataset reads, for file systems that cope badly with millions of
files.

A file is fetched, verified and named like any other, in a directory beside the shards (``staged``), and then appended
to the shard. It stays in that directory until its row is in the ledger. So after a kill, each fetched file is either in
a shard according to the ledger or still in that directory, and is not fetched again. Anything in a shard beyond the
last member that the ledger lists is cut off.

A shard is called ``NAME.part`` until it is full or the run is over, and gets its final name when it is complete.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import string
import tarfile
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from rangefetch import records
from rangefetch.disk import checksum, provenance, system
from rangefetch.disk.names import is_plain_filename
from rangefetch.errors import DiskError, TargetExists
from rangefetch.importing import no_fork
from rangefetch.ledger import Ledger, LedgerError, Row
from rangefetch.logs import log as _log
from rangefetch.manifests.item import ManifestItem
from rangefetch.masking import without_userinfo
from rangefetch.progress import DownloadResult, path_of

__all__ = ["Packer", "Placed", "Shards"]

_BLOCK_BYTES = tarfile.BLOCKSIZE
_PIECE_BYTES = 1 << 20
_END = bytes(2 * _BLOCK_BYTES)  # POSIX pax, "ustar Interchange Format": an archive ends with two blocks of zeros
_ALGORITHM = "sha-256"
_NUMBER = re.compile(r"0?[0-9]{0,2}d?")


@records.dataclass(frozen=True, slots=True)
class Shards:
    """How files are put into shards, for ``Run``.

    ``template`` is the name of a shard with a field for its number, such as ``shard-{:05d}.tar``. A shard has at most
    ``count`` files and at most ``size`` bytes, unless a single file is larger. With ``describes``, each file is
    accompanied by a JSON object with its URL, size, checksum and the columns of its row.

    Raises ``ValueError`` for a template or number that cannot be used.
    """

    template: str
    count: int = 10_000
    size: int = 1 << 30
    describes: bool = False

    def __post_init__(self) -> None:
        try:
            fields = [field for field in string.Formatter().parse(self.template) if field[1] is not None]
        except ValueError as error:
            raise ValueError(f"{self.template!r}: {error}") from None
        if len(fields) != 1 or fields[0][1] or fields[0][3] or not _NUMBER.fullmatch(fields[0][2] or ""):
            raise ValueError(
                f"{self.template!r}: the name of a shard needs exactly one field, its number, as in shard-{{:05d}}.tar"
            )
        if not is_plain_filename(self.template.format(0)) or not self.template.endswith(".tar"):
            raise ValueError(f"{self.template!r}: the name of a shard must be a plain file name ending in .tar")
        if self.count < 1 or self.size < _BLOCK_BYTES:
            raise ValueError(f"a shard must be allowed at least 1 file and {_BLOCK_BYTES} bytes")

    def name(self, number: int) -> str:
        """The name of the shard with this number, from 0."""
        return self.template.format(number)

    @property
    def staged(self) -> str:
        """The name of the directory that holds files until they are in a shard."""
        literal, _, _, _ = next(iter(string.Formatter().parse(self.template)))
        return f"{literal}shards.parts"


class Placed(NamedTuple):
    """Where a file was put: the final path of the shard, the file's name in it, where its bytes start, how many there
    are, and their digest.
    """

    shard: str
    member: str
    offset: int
    size: int
    checksum: str


class Packer:
    """Writes the shards of one run in ``directory``; the last one may be unfinished.

    With ``verify``, a shard is read again before a file counts as being in it. If a file's bytes have changed, the
    shard is set aside as ``NAME.damaged``, and none of its files count. Raises ``LedgerError`` if there is a shard that
    this run did not write, or one cannot be opened.
    """

    def __init__(self, shards: Shards, directory: str, ledger: Ledger, *, verify: bool = False) -> None:
        self._shards = shards
        self._verify = verify
        self._directory = directory
        self._ledger = ledger
        self.staged = f"{directory}/{shards.staged}"
        self._fd = -1
        self._number = -1
        self._end = 0
        self._members: set[str] = set()
        self._known_bytes: dict[str, int] = {}  # by shard: how many of its bytes are usable
        self._to_remove: deque[tuple[int, str]] = deque()  # files, with how many rows must be written before removal
        number = ledger.about("shard")
        if number:
            self._number = int(number)
            self._resume()

    def close(self) -> None:
        """Close an unfinished shard; the next run continues it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def finish(self) -> None:
        """Publish the last shard at the end of the run. Raises ``DiskError`` and ``LedgerError``."""
        if self._fd >= 0 and self._members:
            try:
                self._publish()
            except OSError as error:
                raise self._failed(error) from None
        elif self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(f"{self._path()}.part")
            self._number -= 1
            self.close()
        self._ledger.flush()
        self._remove_written()
        for root, _, _ in os.walk(self.staged, topdown=False):
            with contextlib.suppress(OSError):  # not empty: a failed download may have left data to resume
                os.rmdir(root)

    def has(self, row: Row) -> bool:
        """Whether the file that a ledger row describes is in its shard."""
        known = self._known_bytes.get(row.path)
        if known is None:
            try:
                known = os.stat(row.path).st_size
            except OSError:
                known = 0
            if known and self._verify and not self._is_sound(row.path, row.path):
                known = 0
            self._known_bytes[row.path] = known
        return row.offset + row.size <= known

    def add(self, item: ManifestItem, result: DownloadResult) -> Placed:
        """Append a complete file to a shard. Raises ``DiskError``, ``TargetExists`` and ``LedgerError``."""
        path = path_of(result)
        member = self._member(path)
        try:
            return self._append(path, member, item)
        except OSError as error:
            raise self._failed(error, item.url) from None

    def recorded(self, result: DownloadResult) -> None:
        """Note that the row of a file was queued; the file itself is removed once the row has been written."""
        self._to_remove.append((self._ledger.put_rows, path_of(result)))
        self._remove_written()

    # -- internals ------------------------------------------------------------------------------------------------

    def _failed(self, error: OSError, url: str = "") -> DiskError:
        path = self._path()
        return DiskError(f"{path}: {error.strerror}", errno=error.errno or 0, filename=path, url=url)

    def _path(self) -> str:
        return f"{self._directory}/{self._shards.name(max(self._number, 0))}"

    def _member(self, path: str) -> str:
        """The file's name in a shard. It must have a dot: WebDataset splits the last part at the first dot into key and
        suffix.
        """
        name = path[len(self.staged) + 1 :]
        return name if "." in name.rpartition("/")[2] else f"{name}.bin"

    def _append(self, path: str, member: str, item: ManifestItem) -> Placed:
        fd = system.open_file(path, os.O_RDONLY | system.NO_LINK)
        try:
            size = os.fstat(fd).st_size
            origin = provenance.recall(fd)
            mtime = _seconds(origin.last_modified if origin is not None else "")
            before = self._described(member, item, size, mtime) + _header(member, size, mtime)
            needed = len(before) + size + -size % _BLOCK_BYTES
            if self._fd >= 0 and self._members:
                is_full = len(self._members) >= self._shards.count
                if is_full or self._end + needed + len(_END) > self._shards.size:
                    self._publish()
            if self._fd < 0:
                self._open_next()
            if member in self._members:
                raise TargetExists(f"{member}: the shard already has a file with that name", url=item.url)
            offset = self._end + len(before)
            digest = self._copy(fd, before, size, offset)
        finally:
            os.close(fd)
        self._end += needed
        self._members.add(member)
        return Placed(self._path(), member, offset, size, digest)

    def _copy(self, fd: int, before: bytes, size: int, offset: int) -> str:
        """Write the headers ``before`` a file, the file, and zeros up to the next block; return the file's digest."""
        digest = checksum.new(_ALGORITHM)
        _write(self._fd, before, offset - len(before))
        at = 0
        while at < size:
            octets = system.pread(fd, min(_PIECE_BYTES, size - at), at)
            if not octets:
                raise OSError(0, "the file was shortened while it was being copied")
            digest.update(memoryview(octets))
            _write(self._fd, octets, offset + at)
            at += len(octets)
        _write(self._fd, bytes(-size % _BLOCK_BYTES), offset + size)
        return f"{_ALGORITHM}={digest.hexdigest()}"

    def _is_sound(self, final: str, path: str) -> bool:
        """Whether all files in the shard at ``path`` still have the bytes that were written; if not, the shard is set
        aside. Files written by an earlier version have no digest, so only their size is known.
        """
        try:
            fd = system.open_file(path, os.O_RDONLY | system.NO_LINK)
            try:
                damaged = self._damaged(fd, final)
            finally:
                os.close(fd)
            if damaged:
                os.replace(path, f"{final}.damaged")
        except OSError as error:
            raise LedgerError(f"{path}: {error.strerror}") from None
        if damaged:
            _log.warning("%s: %s in it is damaged; set aside as %s.damaged", path, damaged, final)
        return not damaged

    def _damaged(self, fd: int, final: str) -> str:
        """The first file in a shard whose bytes have changed, or ""."""
        for member, offset, size, wanted in self._ledger.members_of(final):
            algorithm, _, digest = wanted.partition("=")
            if not digest:
                continue
            found = checksum.new(algorithm)
            for at in range(offset, offset + size, _PIECE_BYTES):
                found.update(memoryview(system.pread(fd, min(_PIECE_BYTES, offset + size - at), at)))
            if found.hexdigest() != digest:
                return member
        return ""

    def _described(self, member: str, item: ManifestItem, size: int, mtime: int) -> bytes:
        """The member that describes a file in JSON; empty if descriptions are off."""
        if not self._shards.describes:
            return b""
        folder, slash, name = member.rpartition("/")
        key, _, suffix = name.partition(".")
        told: Mapping[str, object] = {
            "url": without_userinfo(item.url),
            "size": size,
            "checksum": item.checksum,
            **item.columns,
        }
        octets = json.dumps(told, ensure_ascii=False).encode(errors="replace")
        # If the file itself is JSON, it keeps the plain name.
        name = f"{folder}{slash}{key}.{'row.json' if suffix == 'json' else 'json'}"
        return _header(name, len(octets), mtime) + octets + bytes(-len(octets) % _BLOCK_BYTES)

    def _open_next(self) -> None:
        """Start the next shard."""
        self._number += 1
        final = self._path()
        part = f"{final}.part"
        if os.path.lexists(final):
            raise LedgerError(f"{final}: it already exists, and is not a shard of this run")
        self._ledger.note("shard", self._number)
        os.makedirs(self._directory, exist_ok=True)
        # A file of that name was left by a run that was killed before its first row was written, and can be truncated.
        self._fd = system.open_file(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | system.NO_LINK, 0o666)
        self._end = 0
        self._members = set()

    def _resume(self) -> None:
        """Continue the shard that the last process was writing, if it was not published."""
        final = self._path()
        if os.path.lexists(final):
            return
        try:
            fd = system.open_file(f"{final}.part", os.O_RDWR | system.NO_LINK)
        except FileNotFoundError:
            # It was not started yet. If the ledger does list files in it, it was removed, and its number stays unused.
            if not self._ledger.members_of(final):
                self._number -= 1
            return
        except OSError as error:
            raise LedgerError(f"{final}.part: {error.strerror}") from None
        # After a power failure it may be shorter than the ledger says.
        self._ledger.forget_beyond(final, os.fstat(fd).st_size)
        if self._verify and not self._is_sound(final, f"{final}.part"):
            os.close(fd)
            self._known_bytes[final] = 0
            return
        rows = self._ledger.members_of(final)
        end = max((offset + size for _, offset, size, _ in rows), default=0)
        self._fd, self._end = fd, end + -end % _BLOCK_BYTES
        os.truncate(fd, end)
        os.truncate(fd, self._end)
        self._members = {member for member, *_ in rows}
        self._known_bytes[final] = self._end
        for member in self._members:
            # The last process may have written the row and been killed before it removed the file.
            bare = member.removesuffix(".bin")
            for name in (member, bare):
                if self._member(f"{self.staged}/{name}") == member:
                    with contextlib.suppress(OSError):
                        os.unlink(f"{self.staged}/{name}")

    def _publish(self) -> None:
        """Give the shard its final name once all its rows are written: the next run would put files without a row into
        another shard again.
        """
        self._ledger.flush()
        self._remove_written()
        final, fd = self._path(), self._fd
        os.truncate(fd, self._end)
        _write(fd, _END, self._end)
        os.fsync(fd)
        if os.path.lexists(final):
            raise LedgerError(f"{final}: it already exists, and is not a shard of this run")
        os.rename(f"{final}.part", final)
        self._known_bytes[final] = self._end
        self.close()

    def _remove_written(self) -> None:
        while self._to_remove and self._to_remove[0][0] <= self._ledger.written_rows:
            _, path = self._to_remove.popleft()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _write(fd: int, octets: bytes, at: int) -> None:
    view = memoryview(octets)
    while view:
        count = system.pwrite(fd, view, at)
        view, at = view[count:], at + count


def _header(name: str, size: int, mtime: int) -> bytes:
    """The tar header of a member. It depends only on the file, not on who fetched it or when."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, mtime, 0o644
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _seconds(last_modified: str) -> int:
    """Convert an HTTP date to seconds since 1970; 0 if it is absent or malformed."""
    with no_fork:
        from email.utils import mktime_tz, parsedate_tz

    parsed = parsedate_tz(last_modified) if last_modified else None
    try:
        return max(0, int(mktime_tz(parsed))) if parsed else 0
    except (ValueError, OverflowError):
        return 0
