"""Without a strong ETag or a checksum, an earlier run's data is used only once some of it was fetched again."""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadManager, DownloadOptions
from rangefetch.disk import state
from rangefetch.disk.target import Target
from rangefetch.errors import DownloadError
from rangefetch.transfer import governor, samples
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Ask, Route
from servers.wire import Break, Reply
from support.downloads import fetch, interrupt
from support.files import MIB, names, saved_bytes
from support.waiting import until

SIZE = 24 * MIB + 7
WEAK: dict[str, dict[str, Any]] = {
    "date": {"etag": "none"},
    "weak": {"etag": "weak"},
    "none": {"etag": "none", "mtime": 0},
}


def _replaced(ask: Ask, reply: Reply) -> Reply:
    """Another file with the same size and validators, like one that was replaced within a second."""
    reply.body = memoryview(content(ask.common.size, 1))[reply.start : reply.start + len(reply.body)]
    return reply


@pytest.fixture(autouse=True)
def _route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTES, "replaced", Route("replaced", _replaced, {}))


def _parameters(validators: str) -> str:
    return "&".join(f"{name}={value}" for name, value in WEAK[validators].items())


def _changing(server: MisbehavingServer, validators: str, then: str) -> str:
    """A URL whose first two responses are slow, and whose later ones come from ``then``."""
    return server.url(f"/script/x?{_parameters(validators)}", size=SIZE, steps="slow:rate=6M|slow:rate=6M", then=then)


@pytest.mark.parametrize("validators", WEAK)
def test_a_file_that_was_replaced_meanwhile_is_fetched_from_the_start(
    server: MisbehavingServer, target: Path, caplog: pytest.LogCaptureFixture, validators: str
) -> None:
    url = _changing(server, validators, "replaced")
    assert interrupt(url, target, 5 * MIB, split=1) > 4 * MIB
    result = fetch(url, target)
    assert target.read_bytes() == content(SIZE, 1)
    assert result.resumed == 0
    assert any(url in record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)


@pytest.mark.parametrize("validators", WEAK)
def test_a_file_that_is_the_same_goes_on(server: MisbehavingServer, target: Path, validators: str) -> None:
    url = _changing(server, validators, "good")
    kept = interrupt(url, target, 5 * MIB, split=1)
    server.clear()
    result = fetch(url, target, split=1)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == kept > 4 * MIB
    server.wait_idle()
    assert server.bytes_sent < SIZE - kept + MIB


def test_a_strong_etag_needs_no_comparing(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/slow/x", size=SIZE, rate="6M")
    kept = interrupt(url, target, 5 * MIB, split=1)
    server.clear()
    result = fetch(server.url("/slow/x", size=SIZE, rate="6M"), target)
    assert result.resumed == kept
    asked = [request.range[0] if request.range else -1 for request in server.requests]
    assert min(asked) >= kept


def test_the_users_checksum_needs_no_comparing(server: MisbehavingServer, target: Path) -> None:
    url = _changing(server, "none", "good")
    kept = interrupt(url, target, 5 * MIB, split=1)
    server.clear()
    checksum = f"sha-256={hashlib.sha256(content(SIZE)).hexdigest()}"
    result = fetch(url, target, checksum=checksum)
    assert result.resumed == kept
    asked = [request.range[0] if request.range else -1 for request in server.requests]
    assert min(asked) >= kept


@pytest.mark.parametrize("seed", [0, 1])
def test_a_complete_part_is_published_only_once_it_was_compared(
    server: MisbehavingServer, target: Path, seed: int
) -> None:
    url = server.url(f"/good/x?{_parameters('none')}", size=SIZE)
    left = Target.open(target.parent, target.name, url)
    os.pwrite(left.fd, content(SIZE, seed), 0)
    blocks = b"\2" * -(-SIZE // MIB)
    left.save_state(state.State(url, url, SIZE, True, [state.SourceState(url)], MIB, blocks, {}, "file.bin"))
    left.close()
    result = fetch(url, target)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == (SIZE if seed == 0 else 0)
    assert len(server.requests) > 1


def test_where_the_server_cannot_be_asked_the_work_is_kept(server: MisbehavingServer, target: Path) -> None:
    url = server.url(
        f"/script/x?{_parameters('none')}", size=SIZE, steps="slow:rate=6M|slow:rate=6M|good", then="status:code=500"
    )
    kept = interrupt(url, target, 5 * MIB, split=1)
    with pytest.raises(DownloadError) as caught:
        fetch(url, target, max_tries=3)
    assert caught.value.status == 500
    assert saved_bytes(target) == kept
    assert "file.bin" not in names(target.parent)


def test_a_server_that_has_lost_ranges_gives_the_whole(server: MisbehavingServer, target: Path) -> None:
    url = _changing(server, "none", "replaced+no-ranges")
    interrupt(url, target, 5 * MIB, split=1)
    fetch(url, target)
    assert target.read_bytes() == content(SIZE, 1) or target.read_bytes() == content(SIZE)


def test_less_than_can_be_compared_is_fetched_again(server: MisbehavingServer, target: Path) -> None:
    url = server.url(f"/script/x?{_parameters('none')}", size=SIZE, steps="slow:rate=40K", then="replaced")
    # With ``durable`` it is not treated as a small file, which would be held back and then come in larger pieces.
    assert 0 < interrupt(url, target, 4096, split=1, durable=True) < 64 << 10
    result = fetch(url, target)
    assert target.read_bytes() == content(SIZE, 1)
    assert result.resumed == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_where_the_url_is_gone_a_mirror_that_has_its_bytes_goes_on(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, seed: int
) -> None:
    url = _changing(server, "none", "status:code=404")
    mirror = other_server.url("/good/x", size=SIZE, seed=seed)
    kept = interrupt(url, target, 5 * MIB, split=1)
    if seed:
        with pytest.raises(DownloadError):
            fetch(url, target, mirrors=[mirror])
        assert saved_bytes(target) == kept
    else:
        result = fetch(url, target, mirrors=[mirror])
        assert target.read_bytes() == content(SIZE)
        assert result.resumed == kept


def test_a_pause_while_it_is_compared_keeps_the_work(server: MisbehavingServer, target: Path) -> None:
    steps = "slow:rate=6M|slow:rate=6M|good"
    url = server.url(f"/script/x?{_parameters('none')}", size=SIZE, steps=steps, then="stall:after=10")
    kept = interrupt(url, target, 5 * MIB, split=1)
    server.clear()
    with DownloadManager() as manager:
        gid = manager.download(url, {"save_dir": target.parent, "filename": target.name})
        until(lambda: len(server.requests) > 1)
        manager.pause(gid)
        assert saved_bytes(target) == kept
        assert manager.get_download_progress(gid).status == "paused"


@pytest.mark.parametrize("whose", ["its own", "another's"])
def test_the_rest_of_a_host_is_no_time_that_a_comparison_takes(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """Before the file gets its name, samples of it are fetched again; just then the host asks for a rest."""
    options: dict[str, Any] = {"connect_timeout": 1.0, "read_timeout": 1.0, "total_timeout": 60}
    rested: list[float] = []

    def tired(ask: Ask, reply: Reply) -> Reply:
        if len(reply.body) > samples.SAMPLE_BYTES or len(rested) >= 2:
            return reply
        rested.append(1.8)
        if whose == "its own":
            return Reply(429, {"Retry-After": "1"})
        governor.rest(governor.host_of_connection(url, DownloadOptions()), 2.5)
        reply.broken = Break("close", 0, headers=False)
        return reply

    monkeypatch.setitem(ROUTES, "tired", Route("tired", tired, {}))
    url = server.url("/tired/x", size=12 * MIB, etag="weak")
    result = fetch(url, target, split=4, min_split_size="1M", **options)
    assert target.read_bytes() == content(12 * MIB)
    assert (result.identity, len(rested)) == ("compared", 2)
