"""The replies in curl's own tests (``tests/data/test*``), and a server that sends them unchanged.

curl's ``tests/FILEFORMAT.md`` describes the format: a reply is a ``<data>``, ``<dataNUM>``, ``<connect>`` or
``<connectNUM>`` section of ``<reply>``; only those that begin with a status line are used. The server finds a reply by
its URL, like curl's server (``sws.c``): the path's last component begins with the test's number, or with that number
times 10,000 plus NUM. Unlike curl's server, it closes the connection after each reply.
"""

import base64
import binascii
import contextlib
import re
import socketserver
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from servers.background import Background

__all__ = ["RawServer", "Reply", "read_replies"]

_SECTION = re.compile(rb"^[ \t]*<((?:data|connect)(\d*))(?:[ \t]([^>\n]*))?>[ \t]*\r?\n(.*?)^[ \t]*</\1>", re.M | re.S)
_REPLY = re.compile(rb"^[ \t]*<reply>(.*?)^[ \t]*</reply>", re.M | re.S)
_CONDITION = re.compile(rb" *%(if|else|endif)\b *(!?)([\w-]*)")
_CALL = re.compile(rb"%b64\[(.*?)\]b64%|%hex\[(.*?)\]hex%|%repeat\[(\d+) x (.*?)\]%")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_VARIABLE = re.compile(rb"%([A-Z][A-Z0-9_]*)")
_HEADER = re.compile(rb"[A-Za-z0-9_-]+: [^\r\n]*\n")
_LOCATION = re.compile(rb"^location:[ \t]*([^\r\n]*)", re.M | re.I)
_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_NUMBER = re.compile(r"(?:.*/)?(\d{1,9})")

_LINE_LIMIT = 64 << 10
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_HALF_BYTES = 1 << 20
_HALF = (
    b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nAccept-Ranges: bytes\r\nETag: "half"\r\n\r\n' % (2 * _HALF_BYTES)
    + b"\xee" * _HALF_BYTES
)


@dataclass(frozen=True)
class Reply:
    """One reply of one test."""

    test: int
    part: int
    """The NUM of its section; 0 if it has none."""
    connect: bool
    """Whether it is a proxy's response to CONNECT."""
    octets: bytes

    @property
    def name(self) -> str:
        """Such as ``1029``, ``1029.2`` or, for a proxy's response, ``80.c``."""
        return f"{self.test}{f'.{self.part}' if self.part else ''}{'.c' if self.connect else ''}"

    @property
    def path(self) -> str:
        """The path at which the server has it."""
        if self.connect:
            return f"/connect/{self.test * 10_000 + self.part}"
        return f"/{self.test * 10_000 + self.part if self.part else self.test}"

    def leads_elsewhere(self, port: int) -> bool:
        """Whether it redirects to a host other than this machine."""
        location = _LOCATION.search(self.octets)
        if location is None:
            return False
        base = f"http://127.0.0.1:{port}{self.path}"
        return urlsplit(urljoin(base, location[1].strip().decode("latin-1"))).hostname not in ("127.0.0.1", None)


def read_replies(directory: Path, curl: str, port: int) -> list[Reply]:
    """All replies of the tests in ``directory``, as they are for this curl and for a server at ``port``."""
    words = subprocess.run([curl, "--version"], capture_output=True, text=True, check=True).stdout.split()
    features = {word.lower() for word in words}
    files = sorted(directory.glob("test[0-9]*"), key=lambda file: int(file.name[4:]))
    return [reply for file in files for reply in _replies_of(file, features, words[1], port)]


def _replies_of(file: Path, features: set[str], version: str, port: int) -> Iterator[Reply]:
    number = int(file.name[4:])
    # All other ports become 9 (discard), where nothing listens: see _value.
    values = {b"HOSTIP": b"127.0.0.1", b"CLIENTIP": b"127.0.0.1", b"HTTPPORT": b"%d" % port, b"PROXYPORT": b"%d" % port}
    values |= {b"TESTNUMBER": b"%d" % number, b"VERSION": version.encode(), b"HOST6IP": b"[::1]"}
    text = b"".join(_prepared(file.read_bytes(), features, values))
    for section in _REPLY.findall(text):
        for name, part, attributes, octets in _SECTION.findall(section):
            octets = _decoded(octets, attributes)
            if octets.startswith(b"HTTP/"):
                yield Reply(number, int(part or 0), name.startswith(b"connect"), octets)


def _prepared(text: bytes, features: set[str], values: Mapping[bytes, bytes]) -> Iterator[bytes]:
    """The lines as ``runtests.pl`` writes them for its servers, with conditions, variables and calls resolved."""
    shown, crlf = True, False
    for line in _LINE.findall(text):
        if condition := _CONDITION.match(line):
            word, inverted, feature = condition.groups()
            if word == b"if":
                shown = (feature.decode().lower() in features) is not bool(inverted)
            else:
                shown = not shown if word == b"else" else True
        elif shown:
            if re.match(rb" *<data", line):
                crlf = b'crlf="yes"' in line
            elif re.match(rb" *</data", line):
                crlf = False
            line = _VARIABLE.sub(lambda found: _value(found, values), line)
            line = _CALL.sub(_called, line)
            if crlf and (_HEADER.fullmatch(line) or line.startswith(b"HTTP/")):
                line = line.rstrip(b"\r\n") + b"\r\n"
            yield line


def _value(found: re.Match[bytes], values: Mapping[bytes, bytes]) -> bytes:
    return values.get(found[1], b"9" if found[1].endswith(b"PORT") else found[0])


def _called(found: re.Match[bytes]) -> bytes:
    encoded, octets, times, repeated = found.groups()
    if encoded is not None:
        return base64.b64encode(_unescaped(encoded))
    return _unescaped(octets) if octets is not None else _unescaped(repeated) * int(times)


def _unescaped(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]), text)


def _decoded(octets: bytes, attributes: bytes) -> bytes:
    if b"base64=" in attributes:
        return base64.b64decode(octets)
    if b"hex=" in attributes:
        return binascii.unhexlify(re.sub(rb"[^0-9A-Fa-f]", b"", octets))
    return octets[:-1] if b"nonewline=" in attributes else octets


class RawServer(Background):
    """Sends the reply that the path names, or 404, whatever the method, and closes the connection.

    Below ``/begun``, the first response for a path is half of an unrelated file.
    """

    def __init__(self) -> None:
        self._replies: dict[str, Reply] = {}
        self._begun: set[str] = set()
        served = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = 10  # seconds within which the request must arrive

            def handle(self) -> None:
                line = self.rfile.readline(_LINE_LIMIT)
                while self.rfile.readline(_LINE_LIMIT).strip():
                    pass
                with contextlib.suppress(OSError):  # the client has gone
                    self.connection.sendall(served.answer(line.decode("latin-1")))

        super().__init__(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler))

    def serve(self, replies: Iterable[Reply]) -> None:
        """Add these replies."""
        self._replies |= {reply.path: reply for reply in replies}

    def answer(self, request: str) -> bytes:
        """The response to a request with this first line."""
        target = [*request.split(), "", ""][1]
        path = urlsplit(target).path
        if path.startswith("/begun/"):
            if path not in self._begun:
                self._begun.add(path)
                return _HALF
            path = path.removeprefix("/begun")
        reply = self._replies.get(path)
        if reply is None and (number := _NUMBER.match(path)):
            reply = self._replies.get(f"/{int(number[1])}")
        return reply.octets if reply else _NOT_FOUND
