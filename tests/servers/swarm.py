"""A swarm on the loopback interface: torrents, a tracker that knows one peer, an aria2c that seeds, and an aria2c that
others ask for peers instead of a tracker."""

import hashlib
import http.server
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from servers.background import Background, Handler
from support.waiting import until

PIECE = 256 << 10


def bencode(value: Any) -> bytes:
    """Encodes a value as BEP 3 describes."""
    match value:
        case int():
            return b"i%de" % value
        case bytes():
            return b"%d:%s" % (len(value), value)
        case str():
            return bencode(value.encode())
        case list():
            return b"l%se" % b"".join(map(bencode, value))
        case dict():
            pairs = sorted((key.encode(), item) for key, item in value.items())
            return b"d%se" % b"".join(bencode(key) + bencode(item) for key, item in pairs)
    raise TypeError(type(value))


@dataclass(frozen=True)
class Torrent:
    """A torrent of files in a directory, or of one file."""

    name: str
    files: dict[str, bytes]
    tracker: str

    @property
    def is_single(self) -> bool:
        return list(self.files) == [self.name]

    @property
    def info(self) -> dict[str, Any]:
        whole = b"".join(self.files.values())
        pieces = [hashlib.sha1(whole[at : at + PIECE]).digest() for at in range(0, len(whole), PIECE)]
        info: dict[str, Any] = {"name": self.name, "piece length": PIECE, "pieces": b"".join(pieces)}
        if self.is_single:
            return info | {"length": len(whole)}
        return info | {
            "files": [{"length": len(octets), "path": path.split("/")} for path, octets in self.files.items()]
        }

    @property
    def octets(self) -> bytes:
        return bencode(({"announce": self.tracker} if self.tracker else {}) | {"info": self.info})

    @property
    def magnet(self) -> str:
        digest = hashlib.sha1(bencode(self.info)).hexdigest()
        return f"magnet:?xt=urn:btih:{digest}&dn={self.name}" + (f"&tr={self.tracker}" if self.tracker else "")

    def write(self, directory: Path) -> None:
        """Write the files where a seeder finds them."""
        for path, octets in self.files.items():
            file = directory / path if self.is_single else directory / self.name / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(octets)


class Tracker(Background):
    """Names one peer to everyone, and serves ``documents`` by path."""

    def __init__(self, peer_port: int) -> None:
        self.documents: dict[str, tuple[str, bytes]] = {}
        self.announces = 0
        answer = bencode({"interval": 5, "peers": bytes([127, 0, 0, 1]) + peer_port.to_bytes(2, "big")})
        tracker = self

        class Window(Handler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                kind, octets = "text/plain", answer
                if path == "/announce":
                    tracker.announces += 1
                elif path in tracker.documents:
                    kind, octets = tracker.documents[path]
                else:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(octets)))
                self.end_headers()
                self.wfile.write(octets)

        super().__init__(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Window))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


PEER_OPTIONS = {
    "enable-dht": "false",
    "enable-dht6": "false",
    "bt-enable-lpd": "false",
    "enable-peer-exchange": "false",
}
"""So that nobody beyond this machine is asked."""


@contextmanager
def seeder(aria2c: Path, torrent: Torrent, port: int, directory: Path, limit: str = "0", **more: str) -> Iterator[None]:
    """An aria2c that has a complete torrent and seeds it."""
    directory.mkdir()
    torrent.write(directory)
    (directory / "it.torrent").write_bytes(torrent.octets)
    options = (
        PEER_OPTIONS
        | {
            "dir": str(directory),
            "listen-port": str(port),
            "seed-ratio": "0.0",
            "check-integrity": "true",
            "max-upload-limit": limit,
            "bt-max-peers": "10",
        }
        | more
    )
    with _at_work(aria2c, options, str(directory / "it.torrent"), port):
        yield


def dht_options(directory: Path, port: int, entry_port: int = 0) -> dict[str, str]:
    """Options with which an aria2c finds peers through the DHT, starting with the node at ``entry_port``."""
    options = {"enable-dht": "true", "dht-listen-port": str(port), "dht-file-path": str(directory / "dht.dat")}
    return options | ({"dht-entry-point": f"127.0.0.1:{entry_port}"} if entry_port else {})


@contextmanager
def meeting_point(aria2c: Path, port: int, directory: Path) -> Iterator[None]:
    """An aria2c that others ask for peers. It stays awake by looking for something that nobody has."""
    directory.mkdir()
    options = PEER_OPTIONS | {"dir": str(directory), "listen-port": str(port)} | dht_options(directory, port)
    with _at_work(aria2c, options, f"magnet:?xt=urn:btih:{'1' * 40}", port):
        yield


@contextmanager
def _at_work(aria2c: Path, options: dict[str, str], what: str, port: int) -> Iterator[None]:
    arguments: list[str | Path] = [
        aria2c,
        "--no-conf",
        "--quiet",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    with subprocess.Popen([*arguments, what]) as process:
        try:
            until(lambda: process.poll() is None and _listens(process.pid, port))
            yield
        finally:
            process.kill()


def _listens(pid: int, port: int) -> bool:
    import psutil

    return any(each.laddr.port == port for each in psutil.Process(pid).net_connections("tcp"))
