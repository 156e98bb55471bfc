"""The part of ``system`` for Windows. ``posix`` documents the functions; only differences are described here.

Files are opened by CreateFileW instead of the C library, which does not let open files be renamed or deleted. Locks
cover a byte beyond the end of any file, because on Windows a lock also prevents reading and writing. Instead of owners
and modes there are access lists, which new files inherit from their directory and which are not examined. Files have no
extended attributes, so the state beside a part file vouches for it. Directories cannot be synced; a rename is as
durable as the file system makes it.

The module can be imported on other systems, where tests check the arguments of the calls.
"""

# mypy: warn-unreachable=False

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rangefetch.importing import no_fork, ready_tempfile

__all__ = [
    "CREATES_IN_DIRECTORIES",
    "NOT_IN_NAMES",
    "NO_LINK",
    "PROGRAM_SUFFIX",
    "RESERVES_NAMES",
    "REUSES_PORTS",
    "TERMINATION_IS_GENTLE",
    "allocated_bytes",
    "apart",
    "attribute",
    "check_path",
    "create_unseen",
    "free_bytes",
    "host_name",
    "is_own",
    "is_private",
    "is_safe_from_others",
    "linux_release",
    "lock",
    "most_open_files",
    "open_directory",
    "open_file",
    "open_scratch",
    "open_temporary",
    "physical_bytes",
    "pread",
    "pwrite",
    "read_into",
    "remove_attribute",
    "rename_free",
    "replace",
    "set_attribute",
    "set_mode",
    "set_time",
    "sync",
    "sync_directory",
    "sync_file",
    "umask",
    "unlock",
]

NO_LINK = 1 << 30  # not used by the C library's flags

# Characters that the Win32 API refuses in names ("Naming Files, Paths, and Namespaces"): a backslash is a separator,
# and a colon names a stream.
NOT_IN_NAMES = frozenset('<>:"/\\|?*') | frozenset(map(chr, range(32)))
RESERVES_NAMES = True
CREATES_IN_DIRECTORIES = False
PROGRAM_SUFFIX = ".exe"
REUSES_PORTS = False  # SO_REUSEADDR would take a port that another program is using
TERMINATION_IS_GENTLE = False

_GENERIC_READ, _GENERIC_WRITE = 0x8000_0000, 0x4000_0000
_SHARE_ALL = 1 | 2 | 4  # FILE_SHARE_READ, FILE_SHARE_WRITE, FILE_SHARE_DELETE
_CREATE_NEW, _CREATE_ALWAYS, _OPEN_EXISTING, _OPEN_ALWAYS, _TRUNCATE_EXISTING = 1, 2, 3, 4, 5
_NORMAL, _TEMPORARY = 0x80, 0x100  # FILE_ATTRIBUTE_*
_BACKUP_SEMANTICS, _DELETE_ON_CLOSE = 0x0200_0000, 0x0400_0000  # FILE_FLAG_*
_DELETE = 0x0001_0000
_LOCK_EXCLUSIVE_AT_ONCE = 2 | 1  # LOCKFILE_EXCLUSIVE_LOCK, LOCKFILE_FAIL_IMMEDIATELY
_LOCKED_BYTE = (1 << 63) - 2  # beyond the largest file
_MOST_AT_ONCE = 1 << 30
_INVALID_HANDLE = ctypes.c_void_p(-1).value

_ACCESS_DENIED, _SHARING_VIOLATION, _LOCK_VIOLATION, _HANDLE_EOF, _IO_PENDING = 5, 32, 33, 38, 997
_NO_SUCH_FUNCTION = frozenset({1, 50, 87})  # ERROR_INVALID_FUNCTION, NOT_SUPPORTED, INVALID_PARAMETER

_LONGEST_PATH = 259  # MAX_PATH, less the zero at its end
_ROOM_BESIDE = len(".json.12345678.tmp")  # the longest suffix of the files beside a part file
# Virus scanners and indexers keep a file open for a moment after it was written.
_WAITS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


class _Overlapped(ctypes.Structure):
    """The offset at which a call reads, writes or locks. The handles are synchronous, so that a call has finished when
    it returns."""

    _fields_ = (
        ("internal", ctypes.c_void_p),
        ("internal_high", ctypes.c_void_p),
        ("offset", ctypes.c_uint32),
        ("offset_high", ctypes.c_uint32),
        ("event", ctypes.c_void_p),
    )


# -- the border with the system ----------------------------------------------------------------------------------------


@functools.cache
def _kernel() -> Any:
    if sys.platform != "win32":
        raise NotImplementedError
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.CreateFileW.restype = ctypes.c_void_p
    kernel.CreateFileW.argtypes = (
        *(ctypes.c_wchar_p, ctypes.c_uint32, ctypes.c_uint32),
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_void_p),
    )
    where, counted = ctypes.POINTER(_Overlapped), ctypes.POINTER(ctypes.c_uint32)
    for call in (kernel.ReadFile, kernel.WriteFile):
        call.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, counted, where)
    kernel.LockFileEx.argtypes = (ctypes.c_void_p, *(ctypes.c_uint32,) * 4, where)
    kernel.UnlockFileEx.argtypes = (ctypes.c_void_p, *(ctypes.c_uint32,) * 3, where)
    kernel.SetFileTime.argtypes = (ctypes.c_void_p, *(ctypes.POINTER(ctypes.c_uint64),) * 3)
    kernel.CloseHandle.argtypes = (ctypes.c_void_p,)
    return kernel


def _handle(fd: int) -> int:
    if sys.platform != "win32":
        raise NotImplementedError
    with no_fork:
        import msvcrt

    return msvcrt.get_osfhandle(fd)


def _descriptor(handle: int, flags: int) -> int:
    """A C library descriptor, which takes ownership of the handle."""
    if sys.platform != "win32":
        raise NotImplementedError
    with no_fork:
        import msvcrt

    return msvcrt.open_osfhandle(handle, os.O_BINARY | os.O_NOINHERIT | flags & os.O_APPEND)


def _last_code() -> int:
    if sys.platform != "win32":
        raise NotImplementedError
    return ctypes.get_last_error()


def _error(code: int, path: str | os.PathLike[str] | None = None) -> OSError:
    """The exception for a failed call. Python derives its ``errno`` and class from the Windows error code."""
    if sys.platform != "win32":
        raise NotImplementedError
    return OSError(0, ctypes.FormatError(code).strip(), os.fspath(path) if path is not None else None, code)


@functools.cache
def _takes_long_paths() -> bool:
    """Whether long paths are enabled on the system; Python's manifest opts in."""
    if sys.platform != "win32":
        raise NotImplementedError
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.WinDLL("ntdll").RtlAreLongPathsEnabled() & 0xFF)
    return False


def at(offset: int) -> _Overlapped:
    """The structure that passes an offset to a call."""
    return _Overlapped(None, None, offset & 0xFFFF_FFFF, offset >> 32, None)


# -- files that are open -----------------------------------------------------------------------------------------------


def how_to_open(flags: int) -> tuple[int, int]:
    """The access and the disposition for CreateFileW."""
    access = {os.O_RDONLY: _GENERIC_READ, os.O_WRONLY: _GENERIC_WRITE}.get(
        flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR), _GENERIC_READ | _GENERIC_WRITE
    )
    if flags & os.O_CREAT and flags & os.O_EXCL:
        return access, _CREATE_NEW
    if flags & os.O_CREAT:
        return access, _CREATE_ALWAYS if flags & os.O_TRUNC else _OPEN_ALWAYS
    return access, _TRUNCATE_EXISTING if flags & os.O_TRUNC else _OPEN_EXISTING


def _opened(path: str | os.PathLike[str], access: int, disposition: int, attributes: int, flags: int = 0) -> int:
    handle = _kernel().CreateFileW(os.fspath(path), access, _SHARE_ALL, None, disposition, attributes, None)
    if handle in (None, _INVALID_HANDLE):
        raise _error(_last_code(), path)
    try:
        return _descriptor(handle, flags)
    except BaseException:
        _kernel().CloseHandle(handle)
        raise


def _unless_linked(fd: int, path: str | os.PathLike[str], flags: int) -> int:
    """The descriptor, unless ``NO_LINK`` is set and the path is a link, whose file number differs from its target's."""
    try:
        if not flags & NO_LINK or os.path.samestat(os.fstat(fd), os.lstat(path)):
            return fd
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fspath(path))
    except BaseException:
        os.close(fd)
        raise


def open_file(path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
    """``mode`` is ignored: access lists apply."""
    return _unless_linked(_opened(path, *how_to_open(flags), _NORMAL, flags), path, flags)


def open_directory(path: str | os.PathLike[str], flags: int = 0) -> int:
    fd = _opened(path, _GENERIC_READ, _OPEN_EXISTING, _BACKUP_SEMANTICS)
    return _unless_linked(fd, path, flags)


def create_unseen(path: Path, prepare: Callable[[int], bool]) -> int:
    """Always returns -1: Windows has no unnamed files."""
    return -1


def open_temporary() -> tuple[int, Path]:
    ready_tempfile()
    with no_fork:
        import tempfile

    while True:
        path = Path(tempfile.gettempdir(), f"rangefetch-{os.urandom(8).hex()}")
        access = _GENERIC_READ | _GENERIC_WRITE | _DELETE
        with contextlib.suppress(FileExistsError):
            return _opened(path, access, _CREATE_NEW, _TEMPORARY | _DELETE_ON_CLOSE), path


def open_scratch() -> int:
    return open_temporary()[0]  # FILE_ATTRIBUTE_TEMPORARY keeps it in memory while there is room


def read_into(fd: int, buffer: memoryview, at_byte: int) -> int:
    if not len(buffer):
        return 0
    count = ctypes.c_uint32()
    space = (ctypes.c_char * min(len(buffer), _MOST_AT_ONCE)).from_buffer(buffer)
    if not _kernel().ReadFile(_handle(fd), space, len(space), count, at(at_byte)):
        code = _last_code()
        if code != _HANDLE_EOF:
            raise _error(code)
    return count.value


def pread(fd: int, size: int, at_byte: int, /) -> bytes:
    buffer = bytearray(size)
    count = read_into(fd, memoryview(buffer), at_byte)
    return bytes(buffer[:count])


def pwrite(fd: int, octets: bytes | memoryview, at_byte: int, /) -> int:
    octets = bytes(octets[:_MOST_AT_ONCE])
    count = ctypes.c_uint32()
    if not _kernel().WriteFile(_handle(fd), octets, len(octets), count, at(at_byte)):
        raise _error(_last_code())
    return count.value


def lock(fd: int) -> None:
    """Raises ENOTSUP for a directory, which cannot be locked, as for a file system without locks."""
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    if _kernel().LockFileEx(_handle(fd), _LOCK_EXCLUSIVE_AT_ONCE, 0, 1, 0, at(_LOCKED_BYTE)):
        return
    code = _last_code()
    if code in (_LOCK_VIOLATION, _IO_PENDING):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    if code in _NO_SUCH_FUNCTION:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    raise _error(code)


def unlock(fd: int) -> None:
    if not _kernel().UnlockFileEx(_handle(fd), 0, 1, 0, at(_LOCKED_BYTE)):
        raise _error(_last_code())


sync = os.fsync


def set_mode(fd: int, *, private: bool) -> None:
    """Does nothing: the file has inherited the directory's access list."""


def filetime(seconds: float) -> int:
    """A FILETIME: units of 100 ns since 1601. Raises ``OverflowError`` for a time that it cannot express."""
    time_100ns = round((seconds + 11_644_473_600) * 10_000_000)
    if not 0 < time_100ns < 1 << 63:
        raise OverflowError(f"{seconds}: not a time that a file can have")
    return time_100ns


def set_time(fd: int, modified_s: float) -> None:
    if not _kernel().SetFileTime(_handle(fd), None, None, ctypes.c_uint64(filetime(modified_s))):
        raise _error(_last_code())


def set_attribute(fd: int, name: str, octets: bytes) -> None:
    """Not supported: raises ENOTSUP."""
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


def attribute(file: int | str, name: str) -> bytes:
    """Not supported: raises ENOTSUP."""
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))


def remove_attribute(fd: int, name: str) -> None:
    """Does nothing: there are no attributes."""


# -- names -------------------------------------------------------------------------------------------------------------


def _patiently(call: Callable[[], object]) -> None:
    """Call repeatedly, for about a second, while another program has one of the files open."""
    for wait_s in _WAITS_S:
        try:
            call()
        except PermissionError as error:
            if getattr(error, "winerror", 0) not in (_ACCESS_DENIED, _SHARING_VIOLATION):
                raise
            time.sleep(wait_s)
        else:
            return
    call()


def replace(source: str | os.PathLike[str], destination: str | os.PathLike[str]) -> None:
    _patiently(lambda: os.replace(source, destination))  # noqa: PTH105 - either may be a string


def rename_free(source: Path, destination: Path) -> int:
    """Works without the engine: MoveFileExW does not replace unless it is told to."""
    try:
        _patiently(lambda: os.rename(source, destination))  # noqa: PTH104 - as above
    except OSError as error:
        return errno.EEXIST if isinstance(error, FileExistsError) else error.errno or errno.EIO
    return 0


def is_too_long(path: str) -> bool:
    """Whether the path, or that of a file beside it, exceeds MAX_PATH."""
    return len(path.encode("utf-16-le", "surrogatepass")) // 2 + _ROOM_BESIDE > _LONGEST_PATH


def check_path(path: Path) -> None:
    """Raises ENAMETOOLONG itself, since the system would only report that there is no such file."""
    if is_too_long(str(path)) and not str(path).startswith("\\\\?\\") and not _takes_long_paths():
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))


def sync_directory(directory: Path) -> None:
    """Does nothing: directories cannot be synced."""


def sync_file(path: Path) -> None:
    fd = open_file(path, os.O_RDWR | NO_LINK)  # syncing requires write access
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_bytes(directory: str | os.PathLike[str]) -> int:
    with no_fork:
        import shutil

    return shutil.disk_usage(directory).free


# -- whose they are ----------------------------------------------------------------------------------------------------


def is_own(status: os.stat_result) -> bool:
    return True


def is_safe_from_others(status: os.stat_result) -> bool:
    return True


def is_private(status: os.stat_result) -> bool:
    return True


def allocated_bytes(status: os.stat_result) -> int:
    """The file's size: none of our files is sparse on Windows."""
    return status.st_size


def umask() -> int:
    return 0


# -- the process, and others -------------------------------------------------------------------------------------------


def host_name() -> str:
    with no_fork:
        import platform

    return platform.node()


def linux_release() -> str:
    return ""


def physical_bytes() -> int:
    with no_fork:
        import psutil

    return int(psutil.virtual_memory().total)


def most_open_files() -> int:
    """The C library has 8192 descriptors. Files of Python's and ours use some of them; sockets use none."""
    return 8192


def apart() -> dict[str, Any]:
    return {"creationflags": 0x0800_0000 | 0x0000_0200}  # CREATE_NO_WINDOW, CREATE_NEW_PROCESS_GROUP
