"""If a server sends more than it announced, what that transfer wrote is discarded, also from the saved state."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rangefetch import DownloadManager, DownloadStatus
from rangefetch.disk import state
from rangefetch.errors import BadAnswer
from rangefetch.transfer import keeping
from servers.background import Background, Handler
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Ask, Route
from servers.wire import Pace, Reply
from support.downloads import downloaded, fails
from support.files import MIB
from support.waiting import until

SIZE = 8 * MIB
FIRST = 4 * MIB


class Server(http.server.ThreadingHTTPServer):
    """Sends 3 MiB of the first range and, once ``overflows`` is set, the rest and more than it announced.

    Other requests are answered once ``others`` is set.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.overflows = threading.Event()
        self.others = threading.Event()
        self.begun = 0  # requests for the first range


class _Answers(Handler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        start, last = (int(number) for number in self.headers["Range"].removeprefix("bytes=").split("-"))
        octets = content(SIZE)[start : last + 1]
        self.send_response(206)
        self.send_header("ETag", '"a"')
        self.send_header("Content-Range", f"bytes {start}-{last}/{SIZE}")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if start == 0 and self.server.begun == 0:
            self.server.begun += 1
            self._chunk(octets[: 3 * MIB])
            self.server.overflows.wait(60)
            self._chunk(octets[3 * MIB :] + b"more")
        else:
            self.server.others.wait(60)
            self._chunk(octets)
        self._chunk(b"")

    def _chunk(self, octets: bytes) -> None:
        try:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(octets), octets))
            self.wfile.flush()
        except OSError:
            self.close_connection = True


@pytest.fixture
def overflowing() -> Iterator[Server]:
    server = Server()
    with Background(server):
        yield server
        server.overflows.set()
        server.others.set()


@pytest.fixture
def saves_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the first save made as soon as 2 MiB are there, and no other unless something requires it."""
    monkeypatch.setattr(keeping, "_FIRST_SAVE_S", 0.0)
    monkeypatch.setattr(keeping, "_SAVE_EVERY_S", 3600.0)
    due = keeping.Keeping.save_if_due

    def with_enough(self: keeping.Keeping, now_s: float, save: Callable[[], int | None]) -> bool:
        return (self.kept_bytes > 0 or self._task.figures().downloaded >= 2 * MIB) and due(self, now_s, save)

    monkeypatch.setattr(keeping.Keeping, "save_if_due", with_enough)


def written(target: Path) -> int:
    """How many bytes are written, according to the saved state."""
    path = target.with_name(target.name + ".part.json")
    return state.load(path).written_bytes if path.exists() else 0


@pytest.mark.usefixtures("saves_first")
@pytest.mark.parametrize("then", ["goes on", "pause"])
def test_what_an_overflow_takes_back_is_taken_from_the_saved_state_too(
    overflowing: Server, target: Path, manager: DownloadManager, then: str
) -> None:
    url = f"http://127.0.0.1:{overflowing.server_port}/x"
    options = {"save_dir": target.parent, "filename": target.name, "split": 2, "retry_wait": 0.01}
    gid = manager.download(url, options)
    until(lambda: written(target) >= 2 * MIB)
    overflowing.overflows.set()
    until(lambda: downloaded(manager, gid) == 0)
    if then == "pause":
        manager.pause(gid)
        assert manager.get_download_progress(gid).status is DownloadStatus.PAUSED
        assert written(target) == 0
        manager.resume(gid)
    else:
        # Nothing more has come, and a process that is killed now must not resume with those bytes.
        until(lambda: written(target) == 0)
    overflowing.others.set()
    result = manager.wait(gid, 30)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == 0


class _Follows(Pace):
    """Lets 256 KiB pass for each request that the server has received, until it is over."""

    def __init__(self, server: MisbehavingServer) -> None:
        super().__init__(1 << 40)
        self.over = threading.Event()
        self._server = server
        self._sent = 0

    def reserve(self, size: int) -> float:
        self._sent += size
        while self._sent > len(self._server.requests) * (256 << 10) and not self.over.wait(0.005):
            pass
        return 0.0


def test_what_another_transfer_is_bringing_is_no_progress_where_responses_are_too_long(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pace = _Follows(server)

    def follows(ask: Ask, reply: Reply) -> Reply:
        reply.pace = pace
        return reply

    monkeypatch.setitem(ROUTES, "follows", Route("follows", follows, {}))
    url = server.url("/script/x", size=SIZE, steps="follows", then="overflow:framing=chunked")
    fails(BadAnswer, url, target, split=2, max_tries=3, retry_wait=0.01)
    pace.over.set()
    # Three times as many tries as usual, since another lane works; the first response; a request without a range.
    assert len(server.requests) <= 3 * 3 + 2
