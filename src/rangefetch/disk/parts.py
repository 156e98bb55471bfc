"""The part file of a download: found among what lies there, or created, and locked.

It is ``NAME.part``, with its state in ``NAME.part.json``. Where something else has one of these names, that is left
alone and the part file is ``rangefetch-HASH.part``, by a hash of NAME. A part file is ours if it has the mark of
``ownership``, or if the state beside it vouches for it: where the file system has no marks, a state is written before
the part file is created.

Without a NAME, the hash is of the last part of the URL's path, so that the same file can be found under a URL with
another query or host. Where that part file is another URL's, the hash is of the whole URL.
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
# O_TMPFILE, or the link that names such a file, is unknown to the file system, to the kernel, or without /proc.
_NO_NAMELESS_HERE = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTSUP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.EPERM, errno.EXDEV, errno.ENOSYS}
)
# What is no regular file of ours says so when it is opened.
_NOT_OURS = frozenset({errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ETXTBSY})


@records.dataclass(frozen=True, slots=True)
class Part:
    """A part file of ours, open and locked; its ``fd`` is the caller's to close. ``marked``: it says so itself."""

    fd: int
    path: Path
    marked: bool


def stem_of(filename: str, url: str) -> str:
    """``filename``; a name made of a hash where there is none, or where it leaves no room for suffixes."""
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
    """Where the part file of a download is, unless something else has that name."""
    return Path(directory) / f"{stem_of(filename, url)}.part"


def part_paths(directory: str | os.PathLike[str], filename: str, url: str) -> tuple[Path, ...]:
    """Where the part file of a download usually is. The first of two may be another URL's."""
    return tuple(Path(directory) / name for name in part_names(filename, url))


def part_names(filename: str, url: str) -> tuple[str, ...]:
    """The same without the directory."""
    if filename:
        return (f"{stem_of(filename, url)}.part",)
    # No name has a slash in it, and no URL begins with one: the hashes are of different kinds of things.
    name, sha256 = f"/{filename_from_url(url)}", _sha256()
    return (
        f"rangefetch-{sha256(name.encode(errors='surrogateescape')).hexdigest()[:16]}.part",
        f"rangefetch-{sha256(url.encode(errors='surrogateescape')).hexdigest()[:16]}.part",
    )


def claim(url: str) -> State:
    """A state that says only that the part file beside it is ours."""
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
    """Open the part file of ours, or create it, mode 0600. An empty one has no state.

    ``adopt``: what has aria2's control file beside it counts as ours. Raises ``TargetLocked`` if another download is
    writing it, ``DiskError`` where all names are taken, and ``OSError``.
    """
    for _ in range(_MOST_TRIES):
        fd, path = _find(folder, filename, url, adopt=adopt)
        if fd >= 0:
            if part := _locked(fd, path, url):
                return part
            continue
        # Somebody else may have been quicker.
        with contextlib.suppress(FileExistsError):
            return _create(path, url)
    raise TargetLocked(f"{part_path(folder, filename, url)}: other downloads keep taking it")


def find_part(folder: Path, filename: str, url: str) -> Part | None:
    """Open the part file of this download if there is one, and create nothing. Raises ``TargetLocked``, ``OSError``."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        fd, path = _find(folder, filename, url, adopt=False)
        if fd >= 0:
            if is_part_of(fd, path, url):
                return _locked(fd, path, url)
            os.close(fd)
    return None


def free_part_path(folder: Path, filename: str, url: str) -> Path:
    """Where a part file could be created. Raises ``TargetExists`` if one of ours is there, and ``DiskError``."""
    fd, path = _find(folder, filename, url, adopt=False)
    if fd >= 0:
        os.close(fd)
        raise TargetExists(f"{path}: an unfinished download is there", filename=path)
    return path


def create_part(path: Path, url: str) -> Part:
    """Create a part file. Raises ``FileExistsError`` if the name is taken, ``TargetLocked``, and ``OSError``."""
    return _create(path, url)


def other_urls_part(folder: Path, url: str) -> Path | None:
    """The part file that a download of another URL has left, whose path ends in the same name; None: there is none.

    Nothing is locked: it may be that download's again at any moment. Raises ``OSError``.
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
    """Lock a part file of another URL, and mark it as this one's. None: it is not there any more. Raises
    ``TargetLocked``, ``OSError``."""
    fd = _open_ours(path, adopt=False)
    return _locked(fd, path, url) if fd >= 0 else None


def is_open_on(fd: int, path: Path) -> bool:
    """Whether the file that is open has that name."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


# -- what lies there ----------------------------------------------------------------------------------------------


def _candidates(folder: Path, filename: str, url: str) -> Iterator[Path]:
    """The names that a part file may have, the best first. No target is likely to have one of the further ones."""
    usual = part_paths(folder, filename, url)
    yield from usual
    stem = _hashed(filename or url)
    if usual[-1].stem != stem:
        yield folder / f"{stem}.part"
    for number in range(1, _MOST_NAMES):
        yield folder / f"{stem}.{number}.part"


def _find(folder: Path, filename: str, url: str, *, adopt: bool) -> tuple[int, Path]:
    """A descriptor of the part file that is ours, and its path; -1 and the first free name where there is none.

    One further name is looked at, since what stood in the way when ours was created may be gone.
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
                os.close(fd)  # another URL's, whose path ends in the same name
                continue
            with no_fork:
                from rangefetch.logs import log

            log.info("%s: not created by rangefetch; left alone", path)
        elif free is None and _is_free(path):
            free = path
        if number and free is not None:
            return -1, free
    first = part_path(folder, filename, url)
    words = f"{first}: not created by rangefetch, and the other names are taken too"
    raise DiskError(words, errno=errno.EEXIST, filename=first)


def _is_free(path: Path) -> bool:
    """Whether a part file could be created there: what would be beside it is not there, or is a leftover of ours."""
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
    """A descriptor of what is there, if it is ours; else -1. Raises ``OSError``."""
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
        # What the user has put there needs no more than an owner: a checksum proves it, and the mode is set.
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
    # Not marked: here are no marks, or it is a copy. It must be the file that the state means.
    return saved is not None and (not saved.written_end or saved.sample == state.sample_of(fd, saved))


def _is_rest(fd: int, path: Path) -> bool:
    """Whether a part file of another URL is of no use to anybody: nothing was saved of it, and nobody has it. If so it
    is locked."""
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
    """Whether a part file of ours is that of a download of ``url``."""
    if is_of(fd, url):
        return True
    with contextlib.suppress(FileNotFoundError, state.StateDamaged):
        return state.load(state_path_of(path)).url == url
    return False


# -- opening and creating -----------------------------------------------------------------------------------------


def _locked(fd: int, path: Path, url: str) -> Part | None:
    """The part file that is open as ``fd``, locked and marked; None if it is not there any more. Owns ``fd``."""
    try:
        lock(fd, path)
        # Whoever had the lock may have renamed the file away between our open and our lock.
        if is_open_on(fd, path):
            status = os.fstat(fd)
            if status.st_nlink == 1:
                part = Part(fd, path, mark(fd, url))
                set_mode(fd, private=True)
                beside.remove(path.with_name(path.name + ".json.tmp"))
                if status.st_size == 0:
                    _clear_beside(part, url)
                return part
            # A publish that was cut between its link and its unlink, or a copy made of links: under their other name
            # these bytes must not change.
            path.unlink()
    except BaseException:
        locks.unlock_and_close(fd)
        raise
    locks.unlock_and_close(fd)
    return None


def _create(path: Path, url: str) -> Part:
    """Raises ``FileExistsError`` if the name is taken by now."""
    part = _create_marked(path, url) or _create_claimed(path, url)
    try:
        _clear_beside(part, url)
    except BaseException:
        locks.unlock_and_close(part.fd)
        raise
    return part


def _create_claimed(path: Path, url: str) -> Part:
    """A new part file whose state says that it is ours, where nothing else can."""
    # First the word that it is ours, then the file: at no moment could it be taken for another's.
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
    """A new part file that is marked and locked before it has its name; None where that cannot be."""

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
    """The part file is empty: remove what speaks of other bytes."""
    beside.remove(control_path_of(part.path))
    if part.marked:
        state_path_of(part.path).unlink(missing_ok=True)
    else:
        state.save(state_path_of(part.path), claim(url))


def lock(fd: int, path: Path) -> None:
    """Lock the open file, or raise ``TargetLocked``. Where there are no locks, warn once and go on."""
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
