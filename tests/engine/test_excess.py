"""A server that sends more than it announced: that transfer's bytes never count, whatever ends at the same time."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
from typing import Any, BinaryIO

import pytest

from engine.driving import Driver
from rangefetch._engine import FAULTS
from servers.background import Background
from servers.misbehaving import content
from support.files import MIB

pytestmark = pytest.mark.usefixtures("no_leaks")

SIZE = 2 * MIB
LAST = 1000
EXCESS = b"\xee" * LAST


class _Together(socketserver.BaseRequestHandler):
    """Sends the last bytes of the first two replies at the same moment; the second is longer than announced."""

    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(OSError), self.request.makefile("rb") as stream:
            while head := _head(stream):
                self._reply(head)

    def _reply(self, head: str) -> None:
        found = re.search(r"(?i)range: bytes=(\d+)-(\d+)", head)
        assert found is not None
        start, end = int(found[1]), int(found[2]) + 1
        number = self.server.number()
        excess = EXCESS if number == 1 else b""
        lines = [
            "HTTP/1.1 206 Partial Content",
            f"Content-Range: bytes {start}-{end - 1}/{SIZE}",
            f"Content-Length: {end - start + len(excess)}",
            'ETag: "same"',
            "\r\n",
        ]
        body = content(SIZE)[start:end]
        self.request.sendall("\r\n".join(lines).encode() + body[:-LAST])
        self.server.end_together(number, self.request, body[-LAST:] + excess)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Together)
        self._count = 0
        self._lock = threading.Lock()
        self._held: tuple[socket.socket, bytes] | None = None

    def number(self) -> int:
        with self._lock:
            self._count += 1
            return self._count - 1

    def end_together(self, number: int, line: socket.socket, octets: bytes) -> None:
        """Hold back the end of the first reply until the end of the second one is ready too."""
        with self._lock:
            if number == 0:
                self._held = line, octets
                return
            held, self._held = self._held, None
        if held is not None:
            held[0].sendall(held[1])
        line.sendall(octets)


def _head(stream: BinaryIO) -> str:
    lines: list[str] = []
    for line in stream:
        if line == b"\r\n":
            return "".join(lines)
        lines.append(line.decode("latin-1"))
    return ""


@pytest.mark.parametrize("again", range(5))
def test_it_does_not_count_when_another_transfer_brings_the_last_byte_meanwhile(driver: Driver, again: int) -> None:
    with Background(_Server()) as running:
        known: dict[str, Any] = {"size": SIZE, "block_size": MIB, "blocks": bytes(2), "least_bytes": 1}
        file = driver.add(f"http://127.0.0.1:{running.port}/x", lanes=2, first_bytes=MIB, **known)
        driver.until(lambda: {"FAILED", "DONE"} & set(driver.names(file)))
        failed = [event for event in driver.log if event.name == "FAILED"]
        assert {event.fault for event in failed} <= {FAULTS["OVERFLOW"]}
        if failed:
            file.release()
        assert driver.end(file).name == "DONE"
        assert file.downloaded == SIZE
        assert bytes(file.blocks) == b"\2\2"
        assert file.tag.octets == content(SIZE)
