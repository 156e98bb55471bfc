"""The observable effect of each download option, whichever backend fetches and however the option was given.

``EFFECTS`` has one function for each field of ``DownloadOptions``, with the same name. It fetches with the option, and
also without it where the comparison tells more, and fails unless it sees the difference.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from rangefetch import DownloadManager
from rangefetch.errors import (
    BadAnswer,
    ChecksumMismatch,
    ConnectionFailed,
    ContentChanged,
    DownloadError,
    FileTooLarge,
    HttpStatusError,
    RobotsRefused,
    TargetExists,
    TargetLocked,
    TimedOut,
    TlsError,
)
from servers.counting import CountingServer
from servers.directed import Valve
from servers.http2 import OpenStreams
from servers.misbehaving import MisbehavingServer, content
from servers.robots import RobotsServer
from servers.routing import ROUTES, Ask, Route
from servers.tls import Certificates
from servers.wire import Reply
from support.downloads import SIZE
from support.files import MIB, names
from support.waiting import until

__all__ = ["EFFECTS", "OF_FILES", "Fetch", "Refused", "Scene"]

OF_FILES = frozenset(
    {
        "save_dir",
        "filename",
        "overwrite",
        "wait_for_other",
        "auto_file_renaming",
        "file_allocation",
        "durable",
        "decode",
        "decode_limit",
    }
)
"""Options of the file that is saved, which a stream does not have."""

BASIC = "Basic bWU6czNjcmV0"
MANY_BYTES = 400_000


class Fetch(Protocol):
    """Fetches with these options and returns the bytes. Unless ``save_dir`` says otherwise, they are saved in the
    scene's place under the last segment of the URL. Raises ``Refused`` if the backend refused an option as declared."""

    def __call__(self, url: str, /, **options: Any) -> bytes: ...


class Refused(Exception):
    """The backend refused an option that it declares it cannot honour."""


@dataclasses.dataclass
class Scene:
    """The servers, directories and helpers that an effect uses. A file of ``size`` bytes may be a small file."""

    size: int
    place: Path
    server: MisbehavingServer
    other: MisbehavingServer
    tls: MisbehavingServer
    certificates: Certificates
    valve: Valve
    patch: pytest.MonkeyPatch
    fetch: Fetch = dataclasses.field(init=False)

    def url(self, route: str = "good", **parameters: Any) -> str:
        """The URL of a file ``x`` on the server."""
        return self.server.url(f"/{route}/x", **({"size": self.size} | parameters))

    def comes(self, url: str = "", **options: Any) -> None:
        """Check that the download brings the right bytes."""
        assert self.fetch(url or self.url(), **options) == content(self.size)
        self.clear()

    def fails(self, kind: type[DownloadError], url: str = "", **options: Any) -> None:
        """Check that the download fails with this type of error and leaves no files."""
        with pytest.raises(kind):
            self.fetch(url or self.url(), **options)
        self.clear()

    def clear(self) -> None:
        """Remove the files, so that the next download does not find them."""
        for path in self.place.iterdir():
            if path.is_file():
                path.unlink()

    def seen(self, header: str, server: MisbehavingServer | None = None) -> set[str | None]:
        """The values of this header in the requests so far."""
        return {request.headers.get(header) for request in (server or self.server).requests}

    def written(self, name: str, text: str) -> Path:
        """Write a file with private permissions beside the scene's place."""
        path = self.place.with_name(name)
        path.write_text(text)
        path.chmod(0o600)
        return path


# -- the file ------------------------------------------------------------------------------------------------------


def save_dir(scene: Scene) -> None:
    scene.fetch(scene.url(), save_dir=scene.place / "sub")
    assert names(scene.place) == ["sub"]
    assert (scene.place / "sub" / "x").read_bytes() == content(scene.size)


def filename(scene: Scene) -> None:
    scene.fetch(scene.url(), filename="named")
    assert names(scene.place) == ["named"]


def overwrite(scene: Scene) -> None:
    (scene.place / "x").write_bytes(b"other")
    with pytest.raises(TargetExists):
        scene.fetch(scene.url())
    assert (scene.place / "x").read_bytes() == b"other"
    scene.comes(overwrite=True)


def wait_for_other(scene: Scene) -> None:
    url = scene.server.url("/valve/x", size=SIZE)
    with DownloadManager("native") as other:
        gid = other.download(url, {"save_dir": scene.place, "filename": "x"})
        until(lambda: other.get_download_progress(gid).downloaded > 0)
        with pytest.raises(TargetLocked):
            scene.fetch(url, filename="x")
        opener = threading.Timer(0.3, scene.valve.open)
        opener.start()
        assert scene.fetch(url, filename="x", wait_for_other=True) == content(SIZE)
        opener.join()
        other.wait(gid, 30)


def auto_file_renaming(scene: Scene) -> None:
    (scene.place / "x").write_bytes(b"other")
    scene.fetch(scene.url(), auto_file_renaming=True)
    assert (scene.place / "x").read_bytes() == b"other"
    assert (scene.place / "x.1").read_bytes() == content(scene.size)


def file_allocation(scene: Scene) -> None:
    def reserved(allocation: str) -> int:
        stalls = scene.server.url("/stall/x", size=SIZE, after=3 * MIB)
        with pytest.raises(TimedOut):
            scene.fetch(stalls, file_allocation=allocation, read_timeout=0.5, max_tries=1, split=1)
        [part] = scene.place.glob("*.part")
        reserved_bytes = part.stat().st_blocks * 512
        scene.clear()
        return reserved_bytes

    assert reserved("falloc") >= SIZE
    assert reserved("none") < SIZE


def durable(scene: Scene) -> None:
    synced: list[str] = []
    sync = os.fsync

    def note(fd: int) -> None:
        is_directory = os.path.samestat(os.fstat(fd), scene.place.stat())
        if (scene.place / "x").exists():
            synced.append("the name" if is_directory else "another file")
        elif not is_directory and os.fstat(fd).st_size == scene.size:
            synced.append("the file")
        sync(fd)

    scene.patch.setattr(os, "fsync", note)
    scene.comes()
    assert synced == []
    scene.comes(durable=True)
    assert synced == ["the file", "the name"]


def _serve_gzipped(scene: Scene) -> str:
    packed = gzip.compress(content(scene.size))

    def gzipped(ask: Ask, reply: Reply) -> Reply:
        return Reply(200, {"Content-Encoding": "gzip"}, memoryview(packed))

    scene.patch.setitem(ROUTES, "gzipped", Route("gzipped", gzipped, {}))
    return scene.url("gzipped")


def decode(scene: Scene) -> None:
    url = _serve_gzipped(scene)
    scene.comes(url, decode=True)
    scene.fails(BadAnswer, url)


def decode_limit(scene: Scene) -> None:
    url = _serve_gzipped(scene)
    scene.comes(url, decode=True, decode_limit=scene.size)
    scene.fails(BadAnswer, url, decode=True, decode_limit=scene.size - 1)


# -- sources -------------------------------------------------------------------------------------------------------


def mirrors(scene: Scene) -> None:
    scene.fails(HttpStatusError, scene.url("status", code=404))
    mirror = scene.other.url("/good/x", size=scene.size)
    scene.comes(scene.url("status", code=404), mirrors=[mirror])
    assert scene.other.requests


def _at_github(scene: Scene) -> tuple[str, dict[str, Any]]:
    """A dead GitHub URL, and options for a proxy that leads to the test server and for a working mirror."""
    url = f"http://github.com/status/x?code=404&size={scene.size}"
    rule = "http://github.com/status/x?code=404=http://mirror.example/good/x?id="
    return url, {"proxy": f"http://127.0.0.1:{scene.server.port}", "github_mirrors": [rule]}


def use_github_mirror(scene: Scene) -> None:
    url, options = _at_github(scene)
    scene.fails(HttpStatusError, url, **options)
    scene.comes(url, use_github_mirror=True, **options)


def github_mirrors(scene: Scene) -> None:
    url, options = _at_github(scene)
    scene.comes(url, use_github_mirror=True, **options)
    hosts = {request.path.split("/")[2] for request in scene.server.requests}
    assert hosts == {"github.com", "mirror.example"}


def refresh_url(scene: Scene) -> None:
    url = scene.url("status", code=403)
    scene.fails(HttpStatusError, url)
    scene.comes(url, refresh_url=lambda _: scene.url())


# -- verification --------------------------------------------------------------------------------------------------


def checksum(scene: Scene) -> None:
    right = hashlib.sha256(content(scene.size)).hexdigest()
    scene.comes(checksum=f"sha-256={right}")
    scene.fails(ChecksumMismatch, checksum=f"sha-256={right[::-1]}")


def expected_size(scene: Scene) -> None:
    scene.comes(expected_size=scene.size)
    scene.fails(ContentChanged, expected_size=scene.size + 1)


def max_file_size(scene: Scene) -> None:
    scene.comes(max_file_size=scene.size)
    scene.fails(FileTooLarge, max_file_size=scene.size - 1)


# -- connections and speed -----------------------------------------------------------------------------------------


def _most_at_a_time(scene: Scene, **options: Any) -> tuple[int, int]:
    """The most connections, and the most requests, that a slow server had at the same time."""
    with CountingServer(size=8 * MIB, delay_s=0.1) as counting:
        assert len(scene.fetch(counting.url("x"), **{"min_split_size": "1M"} | options)) == 8 * MIB
        scene.clear()
        return counting.most_connections, counting.most_requests


def split(scene: Scene) -> None:
    assert _most_at_a_time(scene, split=1) == (1, 1)
    connections, requests = _most_at_a_time(scene, split=3)
    assert 1 < requests <= connections <= 3


def max_connection_per_server(scene: Scene) -> None:
    assert _most_at_a_time(scene, max_connection_per_server=1) == (1, 1)
    connections, requests = _most_at_a_time(scene, max_connection_per_server=3)
    assert 1 < requests <= connections <= 3


def host_rate(scene: Scene) -> None:
    with CountingServer(size=1000) as counting:
        for number in range(4):
            assert len(scene.fetch(counting.url(number), host_rate="10/s", save_dir=scene.place)) == 1000
        came_s = sorted(each.time_s for each in counting.seen)
        assert came_s[-1] - came_s[0] >= 0.1 * (len(came_s) - 1) - 0.05


def robots(scene: Scene) -> None:
    with RobotsServer("User-agent: *\nDisallow: /private") as server:
        assert scene.fetch(server.url("public"), robots=True)
        with pytest.raises(RobotsRefused):
            scene.fetch(server.url("private"), robots=True)
        scene.clear()
        assert scene.fetch(server.url("private"), robots=False)


def min_split_size(scene: Scene) -> None:
    assert _most_at_a_time(scene, split=4, min_split_size="1G")[1] == 1
    assert _most_at_a_time(scene, split=4, min_split_size="1M")[1] > 1


def max_download_limit(scene: Scene) -> None:
    scene.size = MANY_BYTES
    begun_s = time.monotonic()
    scene.comes(max_download_limit=MANY_BYTES // 2)
    # A token bucket starts with at most one second's worth.
    assert time.monotonic() - begun_s >= 0.9


# -- requests ------------------------------------------------------------------------------------------------------


def user_agent(scene: Scene) -> None:
    scene.comes(user_agent="tests/1")
    assert scene.seen("user-agent") == {"tests/1"}


def headers(scene: Scene) -> None:
    scene.comes(headers={"X-Mine": "yes"})
    assert scene.seen("x-mine") == {"yes"}


def proxy(scene: Scene) -> None:
    away = f"http://file.example/good/x?size={scene.size}"
    scene.comes(away, proxy=f"http://127.0.0.1:{scene.server.port}")
    assert {request.path for request in scene.server.requests} == {away}


def no_proxy(scene: Scene) -> None:
    nowhere: dict[str, Any] = {"proxy": "http://127.0.0.1:1", "max_tries": 1}
    scene.fails(ConnectionFailed, **nowhere)
    scene.comes(no_proxy="127.0.0.1", **nowhere)


def bind_address(scene: Scene) -> None:
    # An address reserved for documentation, so no machine has it.
    scene.fails(ConnectionFailed, bind_address="192.0.2.1", max_tries=1)
    scene.comes(bind_address="127.0.0.1")


def ip_version(scene: Scene) -> None:
    url = scene.url().replace("127.0.0.1", "localhost")
    scene.fails(ConnectionFailed, url, ip_version="6", max_tries=1)
    scene.comes(url, ip_version="4")


def cookies(scene: Scene) -> None:
    scene.comes(cookies=scene.written("cookies", "127.0.0.1\tFALSE\t/\tFALSE\t0\tname\tvalue\n"))
    assert scene.seen("cookie") == {"name=value"}


def netrc(scene: Scene) -> None:
    url = scene.url("basic")
    scene.fails(HttpStatusError, url)
    scene.comes(url, netrc=scene.written("netrc", "machine 127.0.0.1 login me password s3cret\n"))
    assert BASIC in scene.seen("authorization")


def auth(scene: Scene) -> None:
    scene.comes(scene.url("basic"), auth=("me", "s3cret"))
    assert BASIC in scene.seen("authorization")


def bearer_file(scene: Scene) -> None:
    scene.comes(bearer_file=scene.written("token", "s3cret\n"))
    assert scene.seen("authorization") == {"Bearer s3cret"}


def location_trusted(scene: Scene) -> None:
    away = scene.other.url("/good/x", size=scene.size).replace("127.0.0.1", "localhost")
    secret = {"headers": {"X-Mine": "yes"}}
    scene.comes(scene.url("redirect", to=away), location_trusted=["localhost"], **secret)
    assert scene.seen("x-mine", scene.other) == {"yes"}
    scene.other.clear()
    scene.comes(scene.url("redirect", to=away, id=2), **secret)
    assert scene.seen("x-mine", scene.other) == {None}


def ca_file(scene: Scene) -> None:
    url = scene.tls.url("/good/x", size=scene.size)
    scene.fails(TlsError, url)
    scene.comes(url, ca_file=scene.certificates.ca)


def proxy_ca_file(scene: Scene) -> None:
    away = f"http://file.example/good/x?size={scene.size}"
    by_it = {"proxy": f"https://127.0.0.1:{scene.tls.port}", "max_tries": 1}
    scene.comes(away, proxy_ca_file=scene.certificates.ca, **by_it)
    scene.fails(DownloadError, away, **by_it)


@contextlib.contextmanager
def _asking_for_a_certificate(certificates: Certificates) -> Iterator[MisbehavingServer]:
    context = certificates.server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.ca)
    with MisbehavingServer(tls=context) as server:
        yield server


def certificate(scene: Scene) -> None:
    both = scene.certificates.certificate.read_text() + scene.certificates.key.read_text()
    trusted = {"ca_file": scene.certificates.ca, "max_tries": 1}
    with _asking_for_a_certificate(scene.certificates) as server:
        url = server.url("/good/x", size=scene.size)
        scene.comes(url, certificate=scene.written("both.pem", both), **trusted)
        scene.fails(DownloadError, url, **trusted)


def private_key(scene: Scene) -> None:
    shown = {"ca_file": scene.certificates.ca, "max_tries": 1, "certificate": scene.certificates.certificate}
    with _asking_for_a_certificate(scene.certificates) as server:
        url = server.url("/good/x", size=scene.size)
        scene.comes(url, private_key=scene.certificates.key, **shown)
        scene.fails(DownloadError, url, **shown)


def verify_tls(scene: Scene) -> None:
    url = scene.tls.url("/good/x", size=scene.size)
    scene.fails(TlsError, url)
    scene.comes(url, verify_tls=False)


def http_version(scene: Scene) -> None:
    scene.size = 10_000
    trusted = {"ca_file": scene.certificates.ca, "max_tries": 1, "read_timeout": 5.0}
    with OpenStreams(scene.certificates.server_context(), content(scene.size)) as server:
        scene.comes(server.url, http_version="2", **trusted)
        assert server.requests == 1
        scene.fails(DownloadError, server.url, http_version="1.1", **trusted)


def allow_downgrade(scene: Scene) -> None:
    url = scene.tls.url("/redirect/x", to=scene.url())
    trusted = {"ca_file": scene.certificates.ca}
    scene.fails(BadAnswer, url, **trusted)
    scene.comes(url, allow_downgrade=True, **trusted)


def private_addresses(scene: Scene) -> None:
    scene.fails(ConnectionFailed, private_addresses="refuse")
    assert scene.server.requests == []
    scene.comes(private_addresses="named")


def trace(scene: Scene) -> None:
    path = scene.place.with_name("trace")
    scene.comes(trace=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sum(line["bytes"] for line in lines) >= scene.size


# -- times and tries -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _deaf_port() -> Iterator[int]:
    """A port on which connecting never succeeds, because its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


def connect_timeout(scene: Scene) -> None:
    scene.patch.setattr("rangefetch.net.network.Network.is_there", lambda self, urls, told: True)
    with _deaf_port() as port:
        begun_s = time.monotonic()
        scene.fails(TimedOut, f"http://127.0.0.1:{port}/x", connect_timeout=0.3, max_tries=1)
        assert time.monotonic() - begun_s < 15


def read_timeout(scene: Scene) -> None:
    begun_s = time.monotonic()
    scene.fails(TimedOut, scene.url("stall", after=1000), read_timeout=0.5, max_tries=1)
    assert time.monotonic() - begun_s < 15


def total_timeout(scene: Scene) -> None:
    scene.fails(TimedOut, scene.url("slow", rate=1000), total_timeout=0.5)


def max_tries(scene: Scene) -> None:
    url = scene.url("status", code=500)
    scene.fails(HttpStatusError, url, max_tries=3)
    assert len(scene.server.requests) == 3


def retry_wait(scene: Scene) -> None:
    # The option is the upper bound of a random wait.
    scene.patch.setattr("random.uniform", lambda low, high: high)
    scene.comes(scene.url("status", code=503, times=1), retry_wait=0.6)
    first, second, *_ = scene.server.requests
    assert second.time - first.time >= 0.59


EFFECTS: dict[str, Callable[[Scene], None]] = {
    effect.__name__: effect
    for effect in (
        save_dir,
        filename,
        overwrite,
        wait_for_other,
        auto_file_renaming,
        file_allocation,
        durable,
        decode,
        decode_limit,
        mirrors,
        use_github_mirror,
        github_mirrors,
        refresh_url,
        checksum,
        expected_size,
        max_file_size,
        split,
        max_connection_per_server,
        min_split_size,
        max_download_limit,
        host_rate,
        robots,
        user_agent,
        headers,
        proxy,
        no_proxy,
        bind_address,
        ip_version,
        cookies,
        netrc,
        auth,
        bearer_file,
        location_trusted,
        ca_file,
        proxy_ca_file,
        certificate,
        private_key,
        verify_tls,
        http_version,
        allow_downgrade,
        private_addresses,
        trace,
        connect_timeout,
        read_timeout,
        total_timeout,
        max_tries,
        retry_wait,
    )
}
