"""The tree of errors: what the docstring draws is what there is, and every error says what it has to say."""

from __future__ import annotations

import copy
import errno
import pickle
import re

import pytest

from rangefetch import errors
from rangefetch.errors import ChecksumMismatch, DiskError, DownloadError

CLASSES = {name: getattr(errors, name) for name in errors.__all__}
KNOWN = {"url": "https://example.org/a", "status": 503, "tried": ("the first", "the second")}


def made(kind: type[DownloadError]) -> DownloadError:
    """An error of this class with everything in it."""
    if kind is ChecksumMismatch:
        return ChecksumMismatch("differs", expected="md5=0", actual="md5=1", url=str(KNOWN["url"]))
    if kind is DiskError:
        return DiskError("is full", errno=errno.ENOSPC, **KNOWN)  # type: ignore[arg-type]
    return kind("went wrong", **KNOWN)  # type: ignore[arg-type]


def drawn() -> list[tuple[str, str, str, str]]:
    """The lines of the tree in the docstring: class, parent, what it means, the built-in that it is as well."""
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
    assert sorted(name for name, *_ in drawn()) == errors.__all__ == sorted(CLASSES)
    for name, parent, _, also in drawn():
        bases = [base.__name__ for base in CLASSES[name].__bases__]
        assert bases == [parent, also] if also else bases == [parent], name


def test_every_class_is_explained() -> None:
    for name, _, meaning, _ in drawn():
        assert CLASSES[name].__doc__
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
    ("tried", "ending"), [((), "reason"), (("once",), "reason"), (("once", "twice"), "reason (after 2 tries)")]
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
    assert getattr(again, "errno", None) == getattr(error, "errno", None)


def test_a_disk_error_has_its_number_as_other_os_errors_have() -> None:
    error = DiskError("is full", errno=errno.ENOSPC)
    assert (error.errno, str(error)) == (errno.ENOSPC, "is full")


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
