"""Differences between systems: one interface with two implementations, and none elsewhere in the package."""

from __future__ import annotations

import ast
import errno
import inspect
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rangefetch.disk import names, publishing, system, windows
from rangefetch.disk.target import Target
from rangefetch.errors import DiskError
from support import children
from unit.test_layers import MODULES

if sys.platform == "win32":
    pytest.skip("the halves are compared where both can be imported", allow_module_level=True)

from rangefetch.disk import posix

HALVES = {"disk.posix", "disk.windows", "disk.system"}
# Names that the package looks up because they may be missing, and not only on Windows.
ASKED_FOR = {"os.register_at_fork", "os.sched_getaffinity"}
# Modules that only some systems have.
SOME = {"fcntl", "grp", "msvcrt", "pwd", "resource", "termios", "tty", "winreg", "_winapi"}
# Names that the os module lacks on Windows ("Availability" in Python's documentation) and that a downloader might use.
LACKING = {
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_PATH", "O_SYNC", "O_TMPFILE", "chown", "fchdir"),
    *("fchmod", "fchown", "fork", "fpathconf", "fstatvfs", "getegid", "geteuid", "getgid", "getgroups", "getpgid"),
    *("getuid", "getxattr", "killpg", "lchown", "listxattr", "memfd_create", "mkfifo", "mknod", "nice", "openpty"),
    *("posix_fadvise", "posix_fallocate", "posix_spawn", "pread", "preadv", "pwrite", "pwritev", "register_at_fork"),
    *("removexattr", "sched_getaffinity", "sendfile", "setpgid", "setsid", "setxattr", "statvfs", "sync", "sysconf"),
    *("uname", "wait4", "writev"),
}
LACKING_FIELDS = {"st_blocks", "st_blksize"}


def differences(tree: ast.AST) -> Iterator[str]:
    """The names in a module that only some systems have, and its checks of which system it runs on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in SOME)
        elif isinstance(node, ast.ImportFrom) and node.module in SOME:
            yield node.module
        elif isinstance(node, ast.Attribute):
            base = getattr(node.value, "id", "")
            if node.attr in LACKING_FIELDS or (base == "os" and (node.attr in LACKING or node.attr == "name")):
                yield f"{base}.{node.attr}"
        elif isinstance(node, ast.keyword) and node.arg in ("dir_fd", "src_dir_fd", "dst_dir_fd"):
            yield node.arg
        elif isinstance(node, ast.Constant) and node.value in ("win32", "nt"):
            yield str(node.value)


@pytest.mark.parametrize("module", sorted(MODULES.keys() - HALVES))
def test_the_rest_of_the_package_knows_nothing_of_it(module: str) -> None:
    assert set(differences(ast.parse(MODULES[module].read_text()))) <= ASKED_FOR


def test_all_of_it_can_be_imported_where_that_is_missing() -> None:
    modules = sorted(f"rangefetch.{name}" for name in MODULES.keys() - HALVES - {"_engine", "__main__"})
    # Find the standard modules that the package imports. The second process imports them before it removes anything.
    done = children.run("import sys; [__import__(name) for name in sys.argv[1:]]; print(*sys.modules)", *modules)
    assert done.returncode == 0, done.stderr
    own = sorted(
        name for name in done.stdout.split() if name.partition(".")[0] not in {"rangefetch", "__main__"} | SOME
    )
    done = children.run(
        f"""
        import contextlib, importlib.abc, os, sys

        for name in {own}:
            with contextlib.suppress(ImportError):
                __import__(name)
        __import__("platformdirs").user_data_path("x")  # it imports the rest when it is asked
        missing = {sorted(SOME)}

        class Refusal(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name in missing or name in ("rangefetch._engine", "rangefetch.disk.posix"):
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Refusal())
        for name in missing:
            sys.modules.pop(name, None)
        for name in {sorted(name for name in LACKING if name != "sysconf")}:
            vars(os).pop(name, None)
        sys.platform = "win32"
        import rangefetch.disk.system

        sys.platform = "linux"  # the rest of the package does not look at it, and the library has begun to be used
        for name in sys.argv[1:]:
            __import__(name)
        assert "rangefetch.disk.posix" not in sys.modules
        assert not set(missing) & set(sys.modules)
        from rangefetch.cli.main import main

        sys.argv[1:] = ["--version"]
        main()
        """,
        *modules,
    )
    assert done.stdout.startswith("rangefetch "), done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("rangefetch: the native engine is not built for this platform (")
    assert done.returncode == 1


def test_both_halves_have_the_same_names() -> None:
    assert posix.__all__ == windows.__all__
    assert all(getattr(system, name) is getattr(posix, name) for name in posix.__all__)


@pytest.mark.parametrize("name", sorted(posix.__all__))
def test_both_halves_are_called_alike(name: str) -> None:
    ours, theirs = getattr(posix, name), getattr(windows, name)
    assert type(ours) is type(theirs) or callable(ours) is callable(theirs) is True
    if not inspect.isfunction(ours) or not inspect.isfunction(theirs):
        return  # built-ins such as os.pread have no parameter names
    kinds = [
        [(each.kind, each.default) for each in inspect.signature(function).parameters.values()]
        for function in (ours, theirs)
    ]
    assert kinds[0] == kinds[1]


# -- files on Windows, with its calls recorded -------------------------------------------------------------------------


class Kernel:
    """Returns the given result from each call, and records the calls."""

    def __init__(self, *, result: object = 1, code: int = 0, count: int = 0) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.result, self.code, self._count = result, code, count

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any) -> object:
            self.calls.append((name, *given))
            if name in ("ReadFile", "WriteFile"):
                given[3].value = self._count
                if name == "ReadFile" and self._count:
                    given[1][: self._count] = b"x" * self._count
            return self.result

        return call


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(windows, "_kernel", lambda: made)
    monkeypatch.setattr(windows, "_handle", lambda fd: 1000 + fd)
    monkeypatch.setattr(windows, "_last_code", lambda: made.code)
    monkeypatch.setattr(windows, "_error", lambda code, path=None: OSError(errno.EIO, f"code {code}", path))
    monkeypatch.setattr(windows, "_descriptor", lambda handle, flags: handle)
    return made


READ, WRITE = 0x8000_0000, 0x4000_0000


@pytest.mark.parametrize(
    ("flags", "access", "disposition"),
    [
        (os.O_RDONLY, READ, 3),
        (os.O_WRONLY, WRITE, 3),
        (os.O_RDWR, READ | WRITE, 3),
        (os.O_RDWR | os.O_CREAT, READ | WRITE, 4),
        (os.O_RDWR | os.O_CREAT | os.O_EXCL, READ | WRITE, 1),
        (os.O_WRONLY | os.O_CREAT | os.O_EXCL, WRITE, 1),
        (os.O_RDWR | os.O_CREAT | os.O_TRUNC, READ | WRITE, 2),
        (os.O_RDWR | os.O_TRUNC, READ | WRITE, 5),
        (os.O_WRONLY | os.O_CREAT | os.O_APPEND, WRITE, 4),
        (os.O_RDWR | os.O_CREAT | windows.NO_LINK, READ | WRITE, 4),
    ],
)
def test_a_file_is_opened_so_that_it_can_be_renamed_and_deleted(
    kernel: Kernel, flags: int, access: int, disposition: int
) -> None:
    assert windows.how_to_open(flags) == (access, disposition)
    kernel.result = 7
    assert windows.open_file("x", flags & ~windows.NO_LINK) == 7
    share_all = 1 | 2 | 4
    assert kernel.calls == [("CreateFileW", "x", access, share_all, None, disposition, 0x80, None)]


def test_what_cannot_be_opened_is_an_error_with_its_name(kernel: Kernel) -> None:
    kernel.result, kernel.code = windows._INVALID_HANDLE, 32
    with pytest.raises(OSError, match="code 32") as caught:
        windows.open_file("x", os.O_RDWR)
    assert caught.value.filename == "x"


def test_no_flag_of_ours_is_one_of_the_systems() -> None:
    for name in dir(os):
        if name.startswith("O_"):
            assert not getattr(os, name) & windows.NO_LINK


def test_a_link_in_the_place_of_a_file_is_not_opened(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"x")
    link.symlink_to(file)
    monkeypatch.setattr(windows, "_opened", lambda path, *_: os.open(path, os.O_RDWR))
    os.close(windows.open_file(file, os.O_RDWR | windows.NO_LINK))
    os.close(windows.open_file(link, os.O_RDWR))
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        windows.open_file(link, os.O_RDWR | windows.NO_LINK)


@pytest.mark.parametrize("offset", [0, 1, (1 << 32) - 1, 1 << 32, (1 << 62) + 5])
def test_an_offset_is_told_in_two_halves(offset: int) -> None:
    where = windows.at(offset)
    assert where.offset_high << 32 | where.offset == offset


def test_reading_and_writing_are_at_a_place(kernel: Kernel) -> None:
    kernel._count = 3
    buffer = bytearray(5)
    assert windows.read_into(4, memoryview(buffer), 1 << 33) == 3
    assert bytes(buffer) == b"xxx\0\0"
    assert windows.pread(4, 5, 0) == b"xxx"
    assert windows.pwrite(4, memoryview(b"12345"), 7) == 3
    assert [(name, given[0], given[2]) for name, *given in kernel.calls] == [
        ("ReadFile", 1004, 5),
        ("ReadFile", 1004, 5),
        ("WriteFile", 1004, 5),
    ]
    assert windows.read_into(4, memoryview(bytearray()), 0) == 0
    assert len(kernel.calls) == 3


def test_the_end_of_a_file_is_no_error_and_others_are(kernel: Kernel) -> None:
    kernel.result, kernel.code = 0, 38
    assert windows.pread(4, 5, 0) == b""
    kernel.code = 5
    with pytest.raises(OSError, match="code 5"):
        windows.pread(4, 5, 0)
    with pytest.raises(OSError, match="code 5"):
        windows.pwrite(4, b"x", 0)


def test_a_lock_is_on_a_byte_that_no_file_has(kernel: Kernel) -> None:
    windows.lock(4)
    windows.unlock(4)
    (_, handle, flags, *_, where), (_, unlocked, *_, same) = kernel.calls
    assert (handle, unlocked, flags) == (1004, 1004, 3)
    for each in (where, same):
        assert isinstance(each, windows._Overlapped)
        assert each.offset_high << 32 | each.offset == (1 << 63) - 2


@pytest.mark.parametrize(
    ("code", "number", "kind"),
    [
        (33, errno.EWOULDBLOCK, BlockingIOError),
        (997, errno.EWOULDBLOCK, BlockingIOError),
        (1, errno.ENOTSUP, OSError),
        (50, errno.ENOTSUP, OSError),
        (5, errno.EIO, OSError),
    ],
)
def test_a_lock_that_another_has_is_told_from_one_that_cannot_be(
    kernel: Kernel, code: int, number: int, kind: type[OSError]
) -> None:
    kernel.result, kernel.code = 0, code
    with pytest.raises(kind) as caught:
        windows.lock(4)
    assert caught.value.errno == number


def test_times_are_counted_since_1601() -> None:
    assert windows.filetime(0) == 116_444_736_000_000_000
    assert windows.filetime(1.5) - windows.filetime(0) == 15_000_000
    for beyond in (-1e12, 1e15):
        with pytest.raises(OverflowError):
            windows.filetime(beyond)


class Held(PermissionError):
    winerror = 32


def test_a_file_that_a_scanner_has_open_is_replaced_a_moment_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    replace, failures = os.replace, [Held(), Held()]

    def later(source: Path, destination: Path) -> None:
        if failures:
            raise failures.pop()
        replace(source, destination)

    monkeypatch.setattr(os, "replace", later)
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "old").write_bytes(b"old")
    windows.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_bytes() == b"new"


def test_what_stays_open_or_is_forbidden_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(windows, "_WAITS_S", (0.0, 0.0))
    tries = []

    def refuse(error: type[OSError]) -> Any:
        def replace(*_: object) -> None:
            tries.append(error)
            raise error(errno.EACCES, "no")

        return replace

    for error, count in ((Held, 3), (PermissionError, 1)):
        tries.clear()
        monkeypatch.setattr(os, "replace", refuse(error))
        monkeypatch.setattr(os, "rename", refuse(error))
        with pytest.raises(error):
            windows.replace(tmp_path / "a", tmp_path / "b")
        assert windows.rename_free(tmp_path / "a", tmp_path / "b") == errno.EACCES
        assert len(tries) == 2 * count


def test_a_path_that_is_too_long_is_told_before_the_system_says_that_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(windows, "_takes_long_paths", lambda: False)
    windows.check_path(Path("C:\\x"))
    long = "C:\\" + "x" * 240
    with pytest.raises(OSError, match=os.strerror(errno.ENAMETOOLONG)):
        windows.check_path(Path(long))
    windows.check_path(Path(f"\\\\?\\{long}"))
    assert windows.is_too_long("C:\\" + "\N{GRINNING FACE}" * 120)  # two UTF-16 units each
    monkeypatch.setattr(windows, "_takes_long_paths", lambda: True)
    windows.check_path(Path(long))


def test_nothing_is_kept_with_a_file_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOTSUP)):
        windows.set_attribute(0, "user.x", b"")
    with pytest.raises(OSError, match=os.strerror(errno.ENOTSUP)):
        windows.attribute(0, "user.x")
    windows.remove_attribute(0, "user.x")
    assert windows.create_unseen(tmp_path / "x", lambda fd: True) == -1


# -- names -------------------------------------------------------------------------------------------------------------

FOR_WINDOWS = [
    *("a:b", "C:x", "a\\b", "..\\x", "file.txt:stream", "what?", "a*", "<a>", 'a"b', "a|b", "tab\t", "bell\a"),
    *("NUL", "nul.txt", "Con", "com1.tar.gz", "LPT9", "CONIN$", "aux .c", "ends.", "ends ", "..."),
]


@pytest.fixture
def names_of_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(system, "NOT_IN_NAMES", windows.NOT_IN_NAMES)
    monkeypatch.setattr(system, "RESERVES_NAMES", windows.RESERVES_NAMES)
    monkeypatch.setattr(names, "_RESERVED", windows.NOT_IN_NAMES - frozenset("/\\"))


@pytest.mark.parametrize("name", FOR_WINDOWS)
def test_a_name_that_windows_would_take_for_something_else_is_refused_there(
    names_of_windows: None, tmp_path: Path, name: str
) -> None:
    assert not names.is_filename(name)
    with pytest.raises(DiskError, match="not a plain file name"):
        Target.open(tmp_path, name, "http://a.example/x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FOR_WINDOWS)
def test_other_systems_take_it(name: str) -> None:
    assert names.is_filename(name)


@pytest.mark.parametrize("name", FOR_WINDOWS)
def test_what_a_server_calls_a_file_is_made_one_that_windows_takes(names_of_windows: None, name: str) -> None:
    safe = names.safe_filename(name)
    assert safe == "" or names.is_filename(safe)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_what_no_system_takes_is_refused(name: str) -> None:
    assert not names.is_filename(name)


# -- parts of both implementations that run here -----------------------------------------------------------------------


def test_a_rename_needs_no_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the pure wheel, where renaming without replacing is not one step, a hard link does it."""
    monkeypatch.setitem(sys.modules, "rangefetch._engine", None)
    source, destination = tmp_path / "source", tmp_path / "destination"
    source.write_bytes(b"x")
    assert posix.rename_free(source, destination) == errno.ENOSYS
    publishing.rename_free(source, destination)
    assert (destination.read_bytes(), source.exists()) == (b"x", False)


def test_who_may_write_a_file_is_told_by_owner_and_mode(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.touch()
    for mode, is_safe, is_private in ((0o600, True, True), (0o644, True, False), (0o664, False, False)):
        file.chmod(mode)
        status = file.stat()
        assert stat.S_IMODE(status.st_mode) == mode
        assert (posix.is_safe_from_others(status), posix.is_private(status)) == (is_safe, is_private)
        assert all(ask(status) for ask in (windows.is_safe_from_others, windows.is_private, windows.is_own))
