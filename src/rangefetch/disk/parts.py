"""Finds or creates a download's part file, and locks it.

It is ``NAME.part``, with its state in ``NAME.part.json``. If something else has one of these names, that is left alone
and the part file is ``rangefetch-HASH.part``, with a hash of NAME. A part file is ours if it has the mark of
``ownership``, or if the state beside it vouches for it: on file systems without marks, a state is written before the
part file is created.

Without a NAME, the hash is of the last segment of the URL's path, so that the part file can be found again under a URL
with another query or host. If that part file belongs to another URL, the hash is of the whole URL.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rangefetch import records
from rangefetch.disk import beside, locks, state, system
from rangefetch.disk.beside import control_path_of, state_path_of
from rangefetch.disk.names import MAX_NAME_BYTES, filename_from_url
from rangefetch.disk.ownership import hold, holder_of, is_marked, is_of, is_trusted, mark
from rangefetch.disk.publishing import set_mode
from rangefetch.disk.state import State
from rangefetch.errors import DiskError, TargetExists, TargetLocked
from rangefetch.importing import no_fork

if TYPE_CHECKING:
    import hashlib

__all__ = [
    "Part",
    "claim",
    "control_path_of",
    "create_part",
    "find_part",
    "free_part_path",
    "is_open_on",
    "is_part_of",
    "lock",
    "open_part",
    "other_urls_part",
    "part_names",
    "part_path",
    "part_paths",
    "state_path_of",
    "stem_of",
    "take_part",
]

_MOST_NAMES = 100
_MOST_TRIES = 32
_NO_LOCKS_HERE = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
# Errors that mean that O_TMPFILE, or linking such a file, is not supported by the file system or the kernel, or that
# /proc is not mounted.
_NO_NAMELESS_HERE = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EPERM, errno.EXDEV, errno.ENOSYS}
)
# Errors of open() that show that it is not a regular file of ours.
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ETXTBSY})


@records.dataclass(frozen=True, slots=True)
class Part:
    """A part file of ours, open and locked. The caller must close ``fd``. ``marked`` says whether it has the mark."""

    fd: int
    path: Path
    marked: bool


def stem_of(filename: str, url: str) -> str:
    """``filename``, or a name made of a hash if there is none or it is too long for the suffixes."""
    if filename and len(os.fsencode(filename)) <= MAX_NAME_BYTES:
        return filename
    return _hashed(filename or url)


def _hashed(name: str) -> str:
    return f"rangefetch-{_sha256()(name.encode(errors='surrogateescape')).hexdigest()[:16]}"


@functools.cache
def _sha256() -> Callable[[bytes], hashlib._Hash]:
    with no_fork:
        import hashlib

    return hashlib.sha256


def part_path(directory: str | os.PathLike[str], filename: str, url: str) -> Path:
    """The path of a download's part file, unless something else has that name."""
    return Path(directory) / f"{stem_of(filename, url)}.part"


def part_paths(directory: str | os.PathLike[str], filename: str, url: str) -> tuple[Path, ...]:
    """The usual paths of a download's part file. If there are two, the first may belong to another URL."""
    return tuple(Path(directory) / name for name in part_names(filename, url))


def part_names(filename: str, url: str) -> tuple[str, ...]:
    """``part_paths`` without the directory."""
    if filename:
        return (f"{stem_of(filename, url)}.part",)
    # The slash separates the two kinds of hashes: no file name contains one, and no URL begins with one.
    name, sha256 = f"/{filename_from_url(url)}", _sha256()
    return (
        f"rangefetch-{sha256(name.encode(errors='surrogateescape')).hexdigest()[:16]}.part",
        f"rangefetch-{sha256(url.encode(errors='surrogateescape')).hexdigest()[:16]}.part",
    )


def claim(url: str) -> State:
    """A state whose only purpose is to show that the part file beside it is ours."""
    return State(
        url=url,
        resolved_url=url,
        total_size=0,
        supports_range=False,
        sources=[],
        block_size=1,
        blocks=b"",
        partial={},
    )


def open_part(folder: Path, filename: str, url: str, *, adopt: bool) -> Part:
    """Open our part file, or create it, mode 0600. The state of an empty one is removed.

    With ``adopt``, a file with aria2's control file beside it counts as ours. Raises ``TargetLocked`` if another
    download is writing it, ``DiskError`` if all names are taken, and ``OSError``.
    """
    for _ in range(_MOST_TRIES):
        fd, path = _find(folder, filename, url, adopt=adopt)
        if fd >= 0:
            if part := _locked(fd, path, url):
                return part
            continue
        # Another process may have created it first.
        with contextlib.suppress(FileExistsError):
            return _create(path, url)
    raise TargetLocked(f"{part_path(folder, filename, url)}: other downloads of the same file keep locking it")


def find_part(folder: Path, filename: str, url: str) -> Part | None:
    """Open and lock this download's part file, if it exists. Raises ``TargetLocked``, ``OSError``."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        fd, path = _find(folder, filename, url, adopt=False)
        if fd >= 0:
            if is_part_of(fd, path, url):
                return _locked(fd, path, url)
            os.close(fd)
    return None


def free_part_path(folder: Path, filename: str, url: str) -> Path:
    """A path where a part file could be created. Raises ``TargetExists`` if there is one of ours, and ``DiskError``."""
    fd, path = _find(folder, filename, url, adopt=False)
    if fd >= 0:
        os.close(fd)
        raise TargetExists(f"{path}: an unfinished download already exists there", filename=path)
    return path


def create_part(path: Path, url: str) -> Part:
    """Create a part file. Raises ``FileExistsError`` if the name is taken, ``TargetLocked``, and ``OSError``."""
    return _create(path, url)


def other_urls_part(folder: Path, url: str) -> Path | None:
    """The part file left by a download of another URL whose path ends in the same name; None if there is none.

    It is not locked, so the other download may take it again at any moment. Raises ``OSError``.
    """
    path = part_paths(folder, "", url)[0]
    fd = _open_ours(path, adopt=False)
    if fd < 0:
        return None
    try:
        return None if is_part_of(fd, path, url) else path
    finally:
        os.close(fd)


def take_part(path: Path, url: str) -> Part | None:
    """Lock another URL's part file, and mark it as this one's. None if it no longer exists. Raises ``TargetLocked``,
    ``OSError``."""
    fd = _open_ours(path, adopt=False)
    return _locked(fd, path, url) if fd >= 0 else None


def is_open_on(fd: int, path: Path) -> bool:
    """Whether ``fd`` is open on the file that is now at ``path``."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


# -- what lies there ----------------------------------------------------------------------------------------------


def _candidates(folder: Path, filename: str, url: str) -> Iterator[Path]:
    """The paths that a part file may have, the preferred one first. Those after the usual ones are rarely used."""
    usual = part_paths(folder, filename, url)
    yield from usual
    stem = _hashed(filename or url)
    if usual[-1].stem != stem:
        yield folder / f"{stem}.part"
    for number in range(1, _MOST_NAMES):
        yield folder / f"{stem}.{number}.part"


def _find(folder: Path, filename: str, url: str, *, adopt: bool) -> tuple[int, Path]:
    """A descriptor of our part file and its path; -1 and the first free path if there is none.

    Even if the first name is free, the next one is tried as well: a file that had the first name when ours was created
    may be gone by now.
    """
    free: Path | None = None
    own = part_path(folder, filename, url)
    if not filename and os.path.lexists(own) and (fd := _open_ours(own, adopt=adopt)) >= 0:
        return fd, own
    for number, path in enumerate(_candidates(folder, filename, url)):
        if os.path.lexists(path):
            fd = _open_ours(path, adopt=adopt)
            if fd >= 0 and (filename or number or is_part_of(fd, path, url) or _is_rest(fd, path)):
                return fd, path
            if fd >= 0:
                os.close(fd)  # it belongs to another URL whose path ends in the same name
                continue
            with no_fork:
                from rangefetch.logs import log

            log.info("%s: not created by rangefetch; left alone", path)
        elif free is None and _is_free(path):
            free = path
        if number and free is not None:
            return -1, free
    first = part_path(folder, filename, url)
    words = f"{first}: not created by rangefetch, and the alternative names are taken too; move it away"
    raise DiskError(words, errno=errno.EEXIST, filename=first)


def _is_free(path: Path) -> bool:
    """Whether a part file could be created there: the files beside it do not exist, or are leftovers of ours."""
    try:
        state.load(state_path_of(path))
    except FileNotFoundError:
        if os.path.lexists(control_path_of(path)):
            return False
    except state.StateForeign:
        return False
    except state.StateDamaged:
        pass
    return not beside.strangers(path)


def _open_ours(path: Path, *, adopt: bool) -> int:
    """A descriptor of the file, if it is ours; else -1. Raises ``OSError``."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return -1
        fd = system.open_file(path, os.O_RDWR | system.NO_LINK)
    except FileNotFoundError:
        return -1
    except OSError as error:
        if error.errno in _NOT_OURS:
            return -1
        raise
    try:
        status = os.fstat(fd)
        adopt = adopt and control_path_of(path).is_file()
        # An adopted file, put there by the user, need only be owned by the user: a checksum will verify it, and its
        # mode will be set.
        is_trusted_part = is_trusted(status, path.parent) or (adopt and system.is_own(status))
        if stat.S_ISREG(status.st_mode) and is_trusted_part and _is_vouched_for(fd, path, adopt=adopt):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return -1


def _is_vouched_for(fd: int, path: Path, *, adopt: bool) -> bool:
    saved: State | None = None
    try:
        saved = state.load(state_path_of(path))
    except FileNotFoundError:
        pass
    except state.StateForeign:
        return False
    except state.StateDamaged:
        pass
    if adopt or is_marked(fd):
        return True
    # Without a mark, the file system has no marks or the file is a copy. It must then match the state's sample.
    return saved is not None and (not saved.written_end or saved.sample == state.sample_of(fd, saved))


def _is_rest(fd: int, path: Path) -> bool:
    """Whether another URL's part file is useless: no data was saved, and no download is using it. If so, it is now
    locked."""
    if control_path_of(path).exists():
        return False
    try:
        if state.load(state_path_of(path)).written_end:
            return False
    except FileNotFoundError:
        pass
    except (OSError, state.StateDamaged):
        return False
    try:
        locks.take(fd)
    except OSError:
        return False
    return True


def is_part_of(fd: int, path: Path, url: str) -> bool:
    """Whether a part file of ours belongs to a download of ``url``."""
    if is_of(fd, url):
        return True
    with contextlib.suppress(FileNotFoundError, state.StateDamaged):
        return state.load(state_path_of(path)).url == url
    return False


# -- opening and creating -----------------------------------------------------------------------------------------


def _locked(fd: int, path: Path, url: str) -> Part | None:
    """Lock and mark the part file open as ``fd``. None if it no longer exists. Takes ownership of ``fd``."""
    try:
        lock(fd, path)
        # The previous holder of the lock may have renamed the file between our open and our lock.
        if is_open_on(fd, path):
            status = os.fstat(fd)
            if status.st_nlink == 1:
                part = Part(fd, path, mark(fd, url))
                set_mode(fd, private=True)
                beside.remove(path.with_name(path.name + ".json.tmp"))
                if status.st_size == 0:
                    _clear_beside(part, url)
                return part
            # The file has another name, from a publish that was interrupted between link and unlink, or because
            # somebody made a hard link. Under that name its bytes must not change.
            path.unlink()
    except BaseException:
        locks.unlock_and_close(fd)
        raise
    locks.unlock_and_close(fd)
    return None


def _create(path: Path, url: str) -> Part:
    """Create and lock the part file. Raises ``FileExistsError`` if the name is taken by now."""
    part = _create_marked(path, url) or _create_claimed(path, url)
    try:
        _clear_beside(part, url)
    except BaseException:
        locks.unlock_and_close(part.fd)
        raise
    return part


def _create_claimed(path: Path, url: str) -> Part:
    """A new part file with a state that vouches for it, for file systems where it cannot be marked before it has a
    name."""
    # The state first, so that the part file is recognisable as ours from the moment it exists.
    state.save(state_path_of(path), claim(url))
    fd = system.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        part = Part(fd, path, mark(fd, url))
        lock(fd, path)
        beside.remove(path.with_name(path.name + ".json.tmp"))
    except BaseException:
        locks.unlock_and_close(fd)
        raise
    return part


def _create_marked(path: Path, url: str) -> Part | None:
    """A new part file that is marked and locked before it gets its name; None if that is not possible."""

    def is_prepared(fd: int) -> bool:
        if not mark(fd, url):
            return False
        lock(fd, path)
        return True

    try:
        fd = system.create_unseen(path, is_prepared)
    except OSError as error:
        if error.errno not in _NO_NAMELESS_HERE:
            raise
        return None
    return Part(fd, path, marked=True) if fd >= 0 else None


def _clear_beside(part: Part, url: str) -> None:
    """Remove the control file and state beside an empty part file, since they describe other bytes."""
    beside.remove(control_path_of(part.path))
    if part.marked:
        state_path_of(part.path).unlink(missing_ok=True)
    else:
        state.save(state_path_of(part.path), claim(url))


def lock(fd: int, path: Path) -> None:
    """Lock the open file, or raise ``TargetLocked``. On a file system without locks, warn once and continue."""
    try:
        locks.take(fd)
        hold(fd)
    except BlockingIOError:
        raise TargetLocked(f"{path}: {holder_of(fd)} is writing it") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        if locks.is_first_without(fd):
            with no_fork:
                from rangefetch.logs import log

            log.warning("%s: this file system has no locks; do not start the same download twice", path.parent)
