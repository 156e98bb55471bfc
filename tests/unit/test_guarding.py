"""How an unexpected exception in a step of a download is handled."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadError, errors
from rangefetch.options import DownloadOptions
from rangefetch.transfer.download import Download
from rangefetch.transfer.guarding import guarded


class _Work:
    waiting_for = ""

    def __init__(self) -> None:
        self.download = Download("http://host.example/x", DownloadOptions())
        self.failures: list[DownloadError] = []

    def fail(self, error: DownloadError) -> None:
        self.failures.append(error)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def _failure_of(error: BaseException) -> DownloadError:
    work = _Work()

    def step() -> None:
        raise error

    guarded(work, step)
    [failure] = work.failures
    return failure


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("path", ["/where/x.part", b"/where/x.part", Path("/where/x.part")])
def test_what_the_machine_lacks_is_no_internal_error(number: int, path: Any) -> None:
    failure = _failure_of(OSError(number, os.strerror(number), path))
    assert isinstance(failure, errors.DiskError)
    assert str(failure) == f"/where/x.part: {os.strerror(number)}"
    assert failure.errno == number
    assert failure.filename == "/where/x.part"


def test_a_number_of_a_descriptor_is_no_name() -> None:
    failure = _failure_of(OSError(errno.EIO, os.strerror(errno.EIO), 7))
    assert isinstance(failure, errors.DiskError)
    assert str(failure) == os.strerror(errno.EIO)
    assert failure.filename is None


def test_memory_that_is_lacking_is_none_either() -> None:
    assert str(_failure_of(MemoryError())) == "out of memory"


@pytest.mark.parametrize("error", [OSError(errno.EBADF, "Bad file descriptor"), ValueError("x"), SystemExit(1)])
def test_anything_else_is_one(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    assert "internal error" in str(_failure_of(error))
    assert "internal error" in caplog.text
