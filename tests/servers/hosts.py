"""Many hosts: one port on all addresses of 127.0.0.0/8, each of which is a separate host to clients."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from types import TracebackType
from typing import Self

from servers.background import all_ended

__all__ = ["ManyHosts"]

_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d+)", re.IGNORECASE)


class ManyHosts:
    """Answers every path at every address with ``size`` bytes; requests for ``/silent/...`` are never answered.

    Nothing is answered until ``together`` requests have been waiting at the same time.
    """

    def __init__(self, *, size: int = 1000, together: int = 0) -> None:
        self.size = size
        self.most_requests = 0
        self.requests = 0
        self._together = together
        self._at_work = 0
        self._loop = asyncio.new_event_loop()
        self._enough: asyncio.Event
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="many-hosts", daemon=True)

    def url(self, host: int, path: str) -> str:
        """The URL of a file at the host with this number."""
        return f"http://127.{1 + host // 62_500}.{host // 250 % 250}.{1 + host % 250}:{self.port}/{path}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        self._enough = asyncio.Event()
        if not self._together:
            self._enough.set()
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "0.0.0.0", 0, backlog=2048))
        self.port: int = server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            server.close()
            self._loop.run_until_complete(all_ended())
            self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    await self._answer(head, reader, writer)
        finally:
            writer.transport.abort()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        if head.split()[1].startswith(b"/silent/"):
            await reader.read()
            return
        self._at_work += 1
        self.most_requests = max(self.most_requests, self._at_work)
        if self._at_work >= self._together:
            self._enough.set()
        try:
            if not self._enough.is_set() and not await self._are_enough(reader):
                return
        finally:
            self._at_work -= 1
        found = _RANGE.search(head)
        start, last = (int(found[1]), min(int(found[2]), self.size - 1)) if found else (0, self.size - 1)
        lines = ["HTTP/1.1 206 Partial Content" if found else "HTTP/1.1 200 OK", 'ETag: "1"']
        if found:
            lines.append(f"Content-Range: bytes {start}-{last}/{self.size}")
        lines.append(f"Content-Length: {last - start + 1}")
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + b"x" * (last - start + 1))
        await writer.drain()

    async def _are_enough(self, reader: asyncio.StreamReader) -> bool:
        """Wait until ``together`` requests have been there, or the client has left."""
        waits = [asyncio.ensure_future(reader.read(1)), asyncio.ensure_future(self._enough.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return self._enough.is_set()
