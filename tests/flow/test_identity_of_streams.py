"""A stream continues only with the file whose beginning its reader already has."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import rangefetch
from rangefetch.errors import ContentChanged, DownloadError
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Ask, Route
from servers.wire import Break, Reply
from support.downloads import QUICK
from support.files import MIB


class _Gate:
    """The pace of a reply, which stops midway until the reader has read the beginning."""

    bytes_per_second = 1 << 40

    def __init__(self, after: int) -> None:
        self.opened = threading.Event()
        self._left = after

    def reserve(self, size: int) -> float:
        self._left -= size
        if self._left < 0:
            self.opened.wait(10)
        return 0.0


CUT = 4 * MIB
STREAM = 9 * MIB


class _Cut:
    """The first reply breaks off after the gate; the parameters say what the later ones send."""

    def __init__(self, gate: _Gate) -> None:
        self._gate = gate

    def __call__(
        self,
        ask: Ask,
        reply: Reply,
        *,
        etag: str = "A",
        then: str = "A",
        seed: int = 0,
        more: int = 0,
        plain: bool = True,
    ) -> Reply:
        changes: dict[str, Any] = {} if ask.turn == 0 else {"seed": seed, "size": ask.common.size + more}
        reply = ask.good(**(changes | ({"ranges": False} if plain else {})))
        tag = etag if ask.turn == 0 else then
        reply.headers.pop("ETag")
        if tag:
            reply.headers["ETag"] = tag if tag.startswith("W/") else f'"{tag}"'
        if ask.turn == 0:
            reply.pace, reply.broken = self._gate, Break("close", CUT - 1)  # type: ignore[assignment]  # a gate stands in for a pace
        return reply


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Gate]:
    gate = _Gate(CUT // 2)
    monkeypatch.setitem(ROUTES, "cut-at-gate", Route("cut-at-gate", _Cut(gate), {}))
    yield gate
    gate.opened.set()


def _read_on(url: str, gate: _Gate, **options: object) -> bytes:
    """Read a little, let the connection break, and read the rest. Checks that all bytes read are the first file's."""
    with rangefetch.stream(url, **(QUICK | options)) as file:
        read = bytearray(file.read(MIB))
        gate.opened.set()
        try:
            while piece := file.read1(1 << 16):
                read += piece
        finally:
            assert bytes(read) == content(STREAM)[: len(read)]
    return bytes(read)


@pytest.mark.parametrize("more", [0, 1000, -1000])
@pytest.mark.parametrize(("etag", "then"), [("A", "B"), ("A", ""), ("A", "W/A"), ("W/A", "W/A"), ("", ""), ("", "A")])
def test_a_stream_goes_on_with_nothing_but_the_same_file(
    server: MisbehavingServer, gate: _Gate, etag: str, then: str, more: int
) -> None:
    url = server.url("/cut-at-gate/x", size=STREAM, etag=etag, then=then, seed=1, more=more)
    with pytest.raises(ContentChanged):
        _read_on(url, gate)


def test_a_strong_etag_goes_on_with_a_stream(server: MisbehavingServer, gate: _Gate) -> None:
    assert _read_on(server.url("/cut-at-gate/x", size=STREAM), gate) == content(STREAM)


def test_a_strong_etag_with_another_size_does_not(server: MisbehavingServer, gate: _Gate) -> None:
    with pytest.raises(ContentChanged):
        _read_on(server.url("/cut-at-gate/x", size=STREAM, more=1000), gate)


def test_a_mirror_never_joins_a_stream_that_was_read(
    server: MisbehavingServer, other_server: MisbehavingServer, gate: _Gate
) -> None:
    url = server.url("/cut-at-gate/x", size=STREAM, then="B")
    mirror = other_server.url("/good/x", size=STREAM, seed=1)
    with pytest.raises(DownloadError):
        _read_on(url, gate, mirrors=[mirror])
    assert sum(request.bytes_sent for request in other_server.requests) < MIB


@pytest.mark.parametrize("route", ["status", "cut"])
def test_a_stream_begins_with_a_mirror_where_the_url_brings_nothing(
    server: MisbehavingServer, other_server: MisbehavingServer, route: str
) -> None:
    parameters = {"code": 503} if route == "status" else {"after": 0}
    mirror = other_server.url("/good/x", size=STREAM)
    with rangefetch.stream(server.url(f"/{route}/x", **parameters), mirrors=[mirror], **QUICK) as file:
        assert file.read() == content(STREAM)


@pytest.mark.parametrize(
    ("etag", "then", "seed", "plain"),
    [("A", "A", 0, 0), ("A", "A", 0, 1), ("A", "B", 1, 0), ("A", "B", 1, 1), ("W/A", "W/A", 1, 1), ("", "", 1, 1)],
)
def test_a_stream_that_was_paused_goes_on_with_nothing_but_the_same_file(
    server: MisbehavingServer, gate: _Gate, etag: str, then: str, seed: int, plain: int
) -> None:
    url = server.url("/cut-at-gate/x", size=STREAM, etag=etag, then=then, seed=seed, plain=plain)
    # One lane, so that no other lane meets the second version before the pause.
    with rangefetch.stream(url, split=1, **QUICK) as file:
        read = bytearray(file.read(MIB))
        raw = file.raw
        gid = raw._download.gid  # type: ignore[attr-defined]  # private: io.RawIOBase does not have it
        manager = rangefetch.get_download_manager()
        manager.pause(gid)
        gate.opened.set()
        manager.resume(gid)
        if seed:
            with pytest.raises(ContentChanged):
                read += file.read()
        else:
            read += file.read()
    assert bytes(read) == content(STREAM)[: len(read)]
    assert seed or len(read) == STREAM
