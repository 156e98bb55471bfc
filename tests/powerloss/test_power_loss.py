"""After a power loss, downloads resume from what is left on the disk, or start over, and end with the right bytes.

Two downloads of a manager with a session are recorded (``recorder.c``). From the record, images of what the disk may
hold are drawn (``images.py`` states the model), and each is given to a new manager.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from powerloss.images import Call, image, read_record, write_image
from rangefetch import DownloadManager, DownloadStatus
from servers.misbehaving import MisbehavingServer, content
from servers.programs import require
from support.compiling import compile_library
from support.files import MIB

_SIZES = (3 * MIB + 77, 2 * MIB)
_IMAGES = int(os.environ.get("RANGEFETCH_SEEDS", "40")) if os.environ.get("RANGEFETCH_TORTURE") else 40
_SEED = int(os.environ.get("RANGEFETCH_SEED", "1"))
_WAYS = [("native", "durable"), ("native", "not durable"), ("aria2", "durable"), ("aria2", "not durable")]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.timeout(10 * _IMAGES),
]


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that records all calls."""
    directory = tmp_path_factory.mktemp("recorder")
    return compile_library(Path(__file__).with_name("recorder.c"), directory / "recorder.so", "-ldl")


@pytest.fixture
def urls(server: MisbehavingServer) -> list[str]:
    """The URLs of the two files."""
    return [server.url(f"/good/{i}", size=size, seed=i) for i, size in enumerate(_SIZES)]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of the files, with nothing else in it."""
    path = tmp_path / "files"
    path.mkdir()
    return path


def _record(recorder: Path, directory: Path, urls: list[str], backend: str, how: str) -> list[Call]:
    log = directory.parent / "record"
    subprocess.run(
        [sys.executable, "-m", "powerloss.program", directory, backend, how, *urls],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "LD_PRELOAD": str(recorder), "RECORD_UNDER": str(directory), "RECORD_TO": str(log)},
        timeout=100,
        check=True,
    )
    return read_record(log)


def _right(i: int, octets: bytes) -> bool:
    return octets == content(_SIZES[i], i)


@pytest.fixture(params=_WAYS, ids="-".join)
def way(request: pytest.FixtureRequest) -> tuple[str, str]:
    """The backend, and whether ``durable`` is set."""
    backend, how = request.param
    if backend == "aria2":
        require(shutil.which("aria2c") is not None, "aria2", "RANGEFETCH_REQUIRE_ARIA2")
    return backend, how


def test_every_image_after_a_power_loss_leads_to_the_right_bytes(
    recorder: Path, directory: Path, urls: list[str], way: tuple[str, str]
) -> None:
    backend, how = way
    calls = _record(recorder, directory, urls, *way)
    real = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert image(calls, len(calls), None) == real, "the record is not all that was done"
    rng = random.Random(_SEED)
    resumed = 0
    # Fewer images with aria2, since aria2c takes a second to start.
    for seed in range(_SEED, _SEED + (_IMAGES if backend == "native" else _IMAGES // 8)):
        there = image(calls, rng.randrange(len(calls) + 1), seed)
        finished = {i for i in range(len(urls)) if str(i) in there}
        if how == "durable":
            assert all(_right(i, there[str(i)]) for i in finished), f"seed {seed}: a name without its bytes"
        else:
            # Without ``durable``, a file may have its name before its bytes are on the disk.
            there = {name: octets for name, octets in there.items() if not name.isdigit() or _right(int(name), octets)}
        write_image(there, directory)
        resumed += _finish(directory, urls, backend, seed)
        # A part file that cannot be recognised as ours is left alone.
        expected = {"0", "1", "session", "session.lock", *there}
        assert {path.name for path in directory.iterdir()} <= expected, f"seed {seed}"
    assert resumed > 0, "no image had anything to go on with"


def test_what_durable_has_finished_is_there_whatever_else_is_lost(
    recorder: Path, directory: Path, urls: list[str]
) -> None:
    calls = _record(recorder, directory, urls, "native", "durable")
    for seed in range(_SEED, _SEED + 200):
        there = image(calls, len(calls), seed)
        assert all(_right(i, there[str(i)]) for i in range(len(urls))), f"seed {seed}"


def test_a_sync_that_was_left_out_would_be_noticed(recorder: Path, directory: Path, urls: list[str]) -> None:
    calls = [call for call in _record(recorder, directory, urls, "native", "durable") if call.what != "sync"]
    images = [image(calls, len(calls), seed) for seed in range(50)]
    assert not all(_right(i, there[str(i)]) for there in images for i in range(len(urls)))


def _finish(directory: Path, urls: list[str], backend: str, seed: int) -> int:
    """Let a new manager fetch what is missing. Returns how many bytes it did not have to fetch again."""
    resumed = 0
    options = {"save_dir": directory, "retry_wait": 0.001, "total_timeout": 60.0}
    with DownloadManager(session_file=directory / "session", backend=backend) as manager:
        listed = {Path(each.filename).name: each for each in manager.list_downloads()}
        for i, url in enumerate(urls):
            if str(i) in listed:
                gid = listed[str(i)].gid
                manager.change_options(gid, max_download_limit=0)
                if listed[str(i)].status is DownloadStatus.PAUSED:
                    manager.resume(gid)
            else:
                gid = manager.download(url, {**options, "filename": str(i)})
            result = manager.wait(gid, timeout=60)
            assert _right(i, (directory / str(i)).read_bytes()), f"seed {seed}: wrong bytes"
            resumed += result.resumed
    return resumed
