"""The tree of errors: the docstring draws it correctly, and every error has its message and attributes."""

from __future__ import annotations

import copy
import errno
import pickle
import re
from pathlib import Path

import pytest

from rangefetch import errors
from rangefetch.errors import ChecksumMismatch, DiskError, DownloadError, WaitTimeout

CLASSES = {name: value for name in errors.__all__ if issubclass(value := getattr(errors, name), DownloadError)}
OF_THE_SYSTEM = [kind for kind in CLASSES.values() if issubclass(kind, OSError)]
KNOWN = {"url": "https://example.org/a", "status": 503, "tried": ("the first", "the second")}


def made(kind: type[DownloadError]) -> DownloadError:
    """An error of this class with all its attributes set."""
    if kind is ChecksumMismatch:
        return ChecksumMismatch("differs", expected="md5=0", actual="md5=1", url=str(KNOWN["url"]))
    if kind is DiskError:
        return DiskError("is full", errno=errno.ENOSPC, filename="/a", **KNOWN)  # type: ignore[arg-type]  # of several types
    return kind("went wrong", **KNOWN)  # type: ignore[arg-type]  # of several types


def drawn() -> list[tuple[str, str, str, str]]:
    """The lines of the tree in the docstring: class, parent, meaning, and the built-in that is also a base."""
    lines = []
    parents: list[str] = []
    for line in str(errors.__doc__).splitlines():
        match = re.fullmatch(r"    ([│├└─ ]*)(\w+)\s*(.*?)\s*(?:\(also (\w+)\))?", line)
        if match:
            depth = len(match[1]) // 4
            parents[depth:] = [match[2]]
            lines.append((match[2], parents[depth - 1] if depth else "Exception", match[3], match[4] or ""))
    return lines


def test_the_tree_is_drawn_as_it_is() -> None:
    assert sorted(name for name, *_ in drawn()) == errors.__all__ == sorted([*CLASSES, "WaitTimeout"])
    for name, parent, _, also in drawn():
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        if name == "WaitTimeout":  # not a failure of a download
            assert bases == [also]
        else:
            assert bases == [parent, also] if also else bases == [parent], name


def test_every_class_is_explained() -> None:
    for name, _, meaning, _ in drawn():
        assert getattr(errors, name).__doc__
        assert meaning or name == "DownloadError"


def test_no_error_is_left_out_of_all() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    found = [each.__name__ for each in classes if issubclass(each, BaseException)]
    assert sorted(found) == errors.__all__


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_an_error_knows_url_status_and_what_was_tried(kind: type[DownloadError]) -> None:
    error = made(kind)
    assert isinstance(error, DownloadError)
    assert error.url == KNOWN["url"]
    assert error.args == (error.reason,)
    if kind is not ChecksumMismatch:
        assert (error.status, error.tried) == (KNOWN["status"], KNOWN["tried"])


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_an_error_is_one_line_that_names_the_url(kind: type[DownloadError]) -> None:
    error = made(kind)
    assert str(error).startswith(f"{error.url}: {error.reason}")
    assert "\n" not in str(error)
    assert error.reason in repr(error)


@pytest.mark.parametrize(
    ("tried", "ending"),
    [
        ((), "reason"),
        (("once",), "reason"),
        (("once", "twice"), "reason (after 2 tries)"),
        (("again",) * 20, "reason (after 20 or more tries)"),
    ],
)
def test_tries_are_counted_when_there_were_several(tried: tuple[str, ...], ending: str) -> None:
    assert str(DownloadError("reason", tried=tried)) == ending
    assert str(DownloadError("reason", url="u", tried=tried)) == f"u: {ending}"


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("way", ["pickle", "copy"])
def test_an_error_survives_the_way_to_another_process(kind: type[DownloadError], way: str) -> None:
    error = made(kind)
    again = pickle.loads(pickle.dumps(error)) if way == "pickle" else copy.copy(error)
    assert type(again) is kind
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    for name in ("errno", "strerror", "filename"):
        assert getattr(again, name, None) == getattr(error, name, None)


@pytest.mark.parametrize("kind", OF_THE_SYSTEM)
def test_an_os_error_has_the_attributes_of_one(kind: type[DownloadError]) -> None:
    error = kind("went wrong", errno=errno.ENOSPC, filename=Path("/a/b"))
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror, error.filename) == (errno.ENOSPC, "went wrong", "/a/b")
    assert str(error) == "went wrong"


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        (errors.TargetExists, errno.EEXIST),
        (errors.DiskError, errno.EIO),
        (errors.TimedOut, errno.ETIMEDOUT),
        (errors.ConnectionFailed, None),
    ],
)
def test_an_os_error_of_which_the_system_told_no_number_has_that_of_its_class(
    kind: type[DownloadError], number: int | None
) -> None:
    assert getattr(kind("went wrong"), "errno", "none") == number
    assert getattr(kind("went wrong"), "filename", "none") is None


def test_a_wait_that_expires_is_no_failure_of_the_download() -> None:
    error = WaitTimeout("2089b05ecca3d829", 1.5)
    assert isinstance(error, TimeoutError)
    assert not isinstance(error, DownloadError)
    assert (error.gid, error.seconds, error.errno) == ("2089b05ecca3d829", 1.5, errno.ETIMEDOUT)
    assert str(error) == "2089b05ecca3d829: not finished after 1.5 seconds"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), vars(again)) == (WaitTimeout, vars(error))


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.EngineUnavailable, ImportError),
        (errors.TargetExists, FileExistsError),
        (errors.DiskError, OSError),
        (errors.ConnectionFailed, ConnectionError),
        (errors.TimedOut, TimeoutError),
    ],
)
def test_who_waits_for_the_built_in_error_gets_it(kind: type[DownloadError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin):
        raise made(kind)
