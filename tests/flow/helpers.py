"""What these tests share: downloads that end soon, looking at what one left, children to be stopped."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

import rangefetch
from helpers import MIB, names, python, until
from rangefetch import DownloadError, DownloadManager, DownloadProgress, state
from servers.misbehaving import MisbehavingServer, Request

FIRST_RANGE = 4 * MIB
"""What the first request of a download asks for."""
QUICK: dict[str, Any] = {"retry_wait": 0.001, "total_timeout": 20.0}
"""Tests neither wait long between tries nor hang."""

Error = TypeVar("Error", bound=DownloadError)


def begun(path: Path) -> list[str]:
    """The names that an unfinished download of ``path`` may leave."""
    return [f"{path.name}.part", f"{path.name}.part.json"]


def fetch(url: str, path: Path | str, **options: Any) -> rangefetch.DownloadResult:
    """``rangefetch.fetch``, but quicker to try again."""
    return rangefetch.fetch(url, path, **(QUICK | options))


def fails(kind: type[Error], url: str, path: Path | str, **options: Any) -> Error:
    """Fetch, expect exactly this error in one line that names the URL, and return it."""
    with pytest.raises(DownloadError) as caught:
        fetch(url, path, **options)
    error = caught.value
    assert type(error) is kind, repr(error)
    assert error.url == url
    assert url in str(error)
    assert len(str(error).splitlines()) == 1
    assert str(error).isprintable()
    return error


def interrupt(url: str, path: Path, at_least: int, **options: Any) -> int:
    """Begin a download and stop it when so many bytes have come. Returns how many are kept, as its state says."""
    with DownloadManager() as manager:
        gid = manager.download(url, QUICK | {"save_dir": path.parent, "filename": path.name} | options)
        until(lambda: manager.get_download_progress(gid).downloaded >= at_least)
    assert names(path.parent) == begun(path)
    return saved_bytes(path)


def read_state(path: Path) -> state.State | None:
    """The saved state of ``path``, if there is one; of a download that is at work, too."""
    with tempfile.TemporaryDirectory() as directory:
        # Who loads a state tidies up beside it.
        copy = Path(directory) / "state"
        try:
            shutil.copyfile(path.with_name(f"{path.name}.part.json"), copy)
        except FileNotFoundError:
            return None
        return state.load(copy)


def saved_bytes(path: Path) -> int:
    """The bytes that the saved state of ``path`` says are in its part file; 0 if there is no state."""
    saved = read_state(path)
    if saved is None:
        return 0
    done = [index for index, block in enumerate(saved.blocks) if block == 2]
    sizes = [min(saved.block_size, saved.total_size - index * saved.block_size) for index in done]
    return sum(sizes) + sum(saved.partial.values())


def downloaded(manager: DownloadManager, gid: str) -> int:
    return manager.get_download_progress(gid).downloaded


def sent(requests: Iterable[Request]) -> int:
    """The body bytes of these requests."""
    return sum(request.bytes_sent for request in requests)


def paths(server: MisbehavingServer) -> list[str]:
    """The routes that were asked for, in order."""
    return [request.path.split("/")[1].partition("?")[0] for request in server.requests]


def consistent(progress: DownloadProgress) -> bool:
    """Whether the numbers in it fit together."""
    share = 100.0 * progress.downloaded / progress.total if progress.total else 0.0
    return (
        progress.percentage == pytest.approx(share)
        and progress.speed >= 0
        and (progress.eta is None or progress.eta >= 0)
        and (not progress.total or progress.downloaded <= progress.total)
    )


# ---- Children ----------------------------------------------------------------------------------------------------


@contextmanager
def child(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A function of ``flow.programs`` at work in a process of its own, which is gone afterwards."""
    command = python("flow.programs", program, *arguments)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run_child(program: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same from its beginning to its end."""
    return subprocess.run(
        python("flow.programs", program, *arguments),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | environment,
    )


def as_json(**options: Any) -> str:
    """Options as an argument of a child."""
    return json.dumps(options)
