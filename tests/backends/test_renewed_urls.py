"""The same file behind another URL, with a renewed signature or on another host. Bytes fetched before are used after
samples of them were compared, and discarded if the file is another one."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadManager, fetch_many
from rangefetch.errors import HttpStatusError
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Ask, Route
from servers.wire import Reply
from support.downloads import QUICK, downloaded, fetch
from support.files import MIB, names
from support.waiting import until

SIZE = 24 * MIB + 7
BEGUN = 5 * MIB
VALIDATORS = ["", "etag=none&mtime=0"]

Make = Callable[..., DownloadManager]


def _alike(ask: Ask, reply: Reply) -> Reply:
    """Another file with the same size and validators."""
    reply.body = memoryview(content(ask.common.size, 1))[reply.start : reply.start + len(reply.body)]
    return reply


@pytest.fixture(autouse=True)
def _route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTES, "alike", Route("alike", _alike, {}))


@pytest.fixture(params=["file.bin", ""], ids=["named", "not named"])
def name(request: pytest.FixtureRequest) -> str:
    """The user's name for the file; the paths of all URLs here end in ``file.bin``."""
    return str(request.param)


def _begin(manage: Make, url: str, directory: Path, name: str, **options: Any) -> int:
    """Start a download, and stop it when some bytes have arrived. Returns how many are kept."""
    with manage() as manager:
        options = QUICK | {"save_dir": directory, "filename": name, "split": 1} | options
        gid = manager.download(url, options)
        until(lambda: downloaded(manager, gid) >= BEGUN)
        manager.stop()
        kept = manager.get_download_progress(gid).downloaded
    (_part,) = directory.glob("*.part")
    assert kept > 4 * MIB
    return kept


def _url(server: MisbehavingServer, validators: str = "", route: str = "good", **parameters: Any) -> str:
    return server.url(
        f"/{route}/file.bin?{validators}" if validators else f"/{route}/file.bin", size=SIZE, **parameters
    )


def _slow(server: MisbehavingServer, validators: str = "") -> str:
    return _url(server, validators, "slow", rate="16M", id=1)


def _goes_on(manage: Make, url: str, target: Path, name: str, server: MisbehavingServer, **options: Any) -> None:
    server.clear()
    with manage() as manager:
        result = manager.download_and_wait(url, QUICK | {"save_dir": target.parent, "filename": name} | options)
    assert target.read_bytes() == content(SIZE)
    assert result.path == target
    assert result.resumed > 4 * MIB
    assert result.identity == "compared"
    assert names(target.parent) == [target.name]
    server.wait_idle()
    if options.get("split", 16) == 1:
        # Several connections may fetch some bytes twice.
        assert server.bytes_sent < SIZE - result.resumed + 2 * MIB


@pytest.mark.parametrize(
    ("validators", "lanes"), [("", 1), ("etag=weak", 8), ("etag=none", 1), ("etag=none&mtime=0", 8)]
)
def test_a_new_query_goes_on(
    manage: Make, server: MisbehavingServer, target: Path, name: str, validators: str, lanes: int
) -> None:
    _begin(manage, _slow(server, validators), target.parent, name)
    _goes_on(manage, _url(server, validators, id=2), target, name, server, split=lanes, min_split_size="1M")


@pytest.mark.parametrize("validators", VALIDATORS)
def test_a_new_host_goes_on(
    manage: Make,
    server: MisbehavingServer,
    other_server: MisbehavingServer,
    target: Path,
    name: str,
    validators: str,
) -> None:
    _begin(manage, _slow(server, validators), target.parent, name)
    _goes_on(manage, _url(other_server, validators), target, name, other_server, split=1)


def test_what_goes_on_can_be_interrupted_and_goes_on_again_at_either_url(
    manage: Make, server: MisbehavingServer, target: Path, name: str
) -> None:
    _begin(manage, _slow(server), target.parent, name)
    first = _begin(manage, _url(server, route="slow", rate="16M", id=2), target.parent, name)
    assert first >= BEGUN
    _goes_on(manage, _url(server, id=1), target, name, server)


@pytest.mark.parametrize("route", ["good", "alike"])
@pytest.mark.parametrize("validators", VALIDATORS)
def test_another_file_of_that_size_starts_over_and_says_so(
    manage: Make,
    server: MisbehavingServer,
    target: Path,
    validators: str,
    route: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    _begin(manage, _slow(server, validators), target.parent, "file.bin")
    url = _url(server, validators, route, id=2, seed=int(route == "good"))
    with manage() as manager:
        result = manager.download_and_wait(url, QUICK | {"save_dir": target.parent, "filename": "file.bin"})
    assert target.read_bytes() == content(SIZE, 1)
    assert result.resumed == 0
    assert names(target.parent) == ["file.bin"]
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("another URL" in words and "starting over" in words for words in told), told


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 1])
def test_another_size_is_another_file(manage: Make, server: MisbehavingServer, target: Path, size: int) -> None:
    _begin(manage, _slow(server), target.parent, "file.bin")
    with manage() as manager:
        url = server.url("/good/file.bin", size=size)
        result = manager.download_and_wait(url, QUICK | {"save_dir": target.parent, "filename": "file.bin"})
    assert target.read_bytes() == content(size)
    assert result.resumed == 0
    assert names(target.parent) == ["file.bin"]


def test_another_file_whose_name_was_not_given_leaves_the_work_alone(
    manage: Make, server: MisbehavingServer, target: Path
) -> None:
    _begin(manage, _slow(server), target.parent, "")
    before = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    other = server.url("/good/file.bin", size=SIZE, seed=1, header="Content-Disposition: attachment; filename=b.bin")
    with manage() as manager:
        manager.download_and_wait(other, QUICK | {"save_dir": target.parent})
    assert target.with_name("b.bin").read_bytes() == content(SIZE, 1)
    assert {name: target.with_name(name).read_bytes() for name in before} == before
    assert len(names(target.parent)) == 3
    target.with_name("b.bin").unlink()
    _goes_on(manage, _url(server, id=2), target, "", server)


def test_a_new_url_that_is_refused_leaves_the_work_alone(
    manage: Make, server: MisbehavingServer, target: Path, name: str
) -> None:
    _begin(manage, _slow(server), target.parent, name)
    url = server.url("/status/file.bin", code=403, size=SIZE)
    with manage() as manager, pytest.raises(HttpStatusError):
        manager.download_and_wait(url, QUICK | {"save_dir": target.parent, "filename": name})
    _goes_on(manage, _url(server, id=2), target, name, server)


def test_without_ranges_it_starts_over(manage: Make, server: MisbehavingServer, target: Path) -> None:
    _begin(manage, _slow(server), target.parent, "file.bin")
    with manage() as manager:
        options = QUICK | {"save_dir": target.parent, "filename": "file.bin"}
        result = manager.download_and_wait(_url(server, route="no-ranges"), options)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == 0
    assert names(target.parent) == ["file.bin"]


@pytest.mark.parametrize("seed", [0, 1])
def test_work_to_which_nothing_is_missing_is_compared_too(
    manage: Make, server: MisbehavingServer, target: Path, seed: int
) -> None:
    # Every byte is there, and something has taken the name meanwhile.
    part, state = (target.with_name(f"file.bin.part{suffix}") for suffix in ("", ".json"))
    _begin(manage, _slow(server, "etag=none"), target.parent, "file.bin")
    with manage() as manager:
        url = _url(server, "etag=none", "slow", rate="16M", id=2)
        gid = manager.download(url, QUICK | {"save_dir": target.parent, "filename": "file.bin"})
        until(lambda: downloaded(manager, gid) > SIZE - 4 * MIB)
        target.mkdir()
        until(lambda: manager.get_download_progress(gid).status.value in ("error", "complete"))
    assert part.exists()
    assert state.exists()
    target.rmdir()
    with manage() as manager:
        url = _url(server, "etag=none", id=3, seed=seed)
        result = manager.download_and_wait(url, QUICK | {"save_dir": target.parent, "filename": "file.bin"})
    assert target.read_bytes() == content(SIZE, seed)
    assert (result.resumed == SIZE) is (seed == 0)


def test_a_new_link_of_refresh_url_is_the_same_file(
    manage: Make, server: MisbehavingServer, other_server: MisbehavingServer, target: Path, name: str
) -> None:
    _begin(manage, _slow(server, "etag=none"), target.parent, name)
    expired = server.url("/status/file.bin", code=403, size=SIZE)
    new = _url(other_server, "etag=none")
    _goes_on(manage, expired, target, name, other_server, refresh_url=lambda _: new)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_checksum_decides_in_the_end(manage: Make, server: MisbehavingServer, target: Path, seed: int) -> None:
    """Bytes of another file do not spoil a download that has a checksum."""
    _begin(manage, _slow(server), target.parent, "file.bin")
    digest = hashlib.sha256(content(SIZE, seed)).hexdigest()
    options = QUICK | {"save_dir": target.parent, "filename": "file.bin", "checksum": f"sha-256={digest}"}
    with manage() as manager:
        result = manager.download_and_wait(_url(server, id=2, seed=seed), options)
    assert target.read_bytes() == content(SIZE, seed)
    assert bool(result.resumed) is (seed == 0)
    assert names(target.parent) == ["file.bin"]


def test_a_new_url_that_is_dead_leaves_the_file_to_its_mirrors(
    manage: Make, server: MisbehavingServer, other_server: MisbehavingServer, target: Path, name: str
) -> None:
    _begin(manage, _slow(server), target.parent, name)
    dead, mirror = server.url("/status/file.bin", code=404, size=SIZE), _url(other_server, seed=1)
    with manage() as manager:
        options = QUICK | {"save_dir": target.parent, "filename": name, "mirrors": [mirror]}
        manager.download_and_wait(dead, options)
    assert target.read_bytes() == content(SIZE, 1)


def test_in_a_list_of_which_every_signature_is_new(server: MisbehavingServer, target: Path) -> None:
    """Only for the engine: with aria2, ``fetch_many`` takes the same path as a manager."""
    with DownloadManager() as manager:
        urls = [server.url(f"/slow/{n}.bin", size=SIZE, seed=n, rate="6M", id=1) for n in range(3)]
        gids = [manager.download(url, QUICK | {"save_dir": target.parent, "split": 1}) for url in urls]
        until(lambda: all(downloaded(manager, gid) >= BEGUN for gid in gids))
    server.clear()
    urls = [server.url(f"/good/{n}.bin", size=SIZE, seed=n, id=2) for n in range(3)]
    results = fetch_many(urls, target.parent)
    assert [result.resumed > 4 * MIB for result in results] == [True] * 3
    assert names(target.parent) == ["0.bin", "1.bin", "2.bin"]
    assert [path.read_bytes() for path in sorted(target.parent.iterdir())] == [content(SIZE, n) for n in range(3)]


def test_work_that_is_going_on_is_not_taken(server: MisbehavingServer, target: Path) -> None:
    with DownloadManager() as manager:
        gid = manager.download(_slow(server), QUICK | {"save_dir": target.parent, "split": 1})
        until(lambda: downloaded(manager, gid) >= BEGUN)
        disposition = "Content-Disposition: attachment; filename=b.bin"
        other = fetch(_url(server, id=2, header=disposition), target.parent / "", split=1)
        assert other.resumed == 0
        manager.wait(gid, timeout=30)
    assert names(target.parent) == ["b.bin", "file.bin"]
    assert target.read_bytes() == target.with_name("b.bin").read_bytes() == content(SIZE)
