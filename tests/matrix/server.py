"""A server on its own thread that sends whatever it is told: HTTP/1.1 and HTTP/2, plain and over TLS.

It serves one :class:`~matrix.run.Run` at a time. Requests for another run, or after a run is over, get 404.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Literal, Self, TypeVar

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from matrix.answers import Answer, Ask
from matrix.run import Fault, Place, Run
from servers.background import all_ended
from servers.tls import Certificates

__all__ = ["PROTOCOLS", "Server"]

PROTOCOLS = ("http", "https", "h2")
_PROXY = ("proxy", False)
_PIECE = 32 << 10
_H2_PIECE = 16 << 10
_NO_LINGER = struct.pack("ii", 1, 0)
T = TypeVar("T")


class _Over(Exception):
    """This connection is over."""


class Server:
    """Listens on a port for each of ``PROTOCOLS``, twice (``mirror``), and on one for clients that want a proxy."""

    def __init__(self, certificates: Certificates, foreign: Certificates) -> None:
        self.certificates = certificates
        self._contexts = {False: _context(certificates), True: _context(foreign)}
        self._foreign = False
        self.run: Run | None = None
        self.ports: dict[tuple[str, bool], int] = {}
        self._tokens = itertools.count(1)
        self._servers: dict[tuple[str, bool], asyncio.Server] = {}
        self._reserved: list[socket.socket] = []
        self._restarting: asyncio.Task[None] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="matrix-server")

    def __enter__(self) -> Self:
        self._thread.start()
        self.do(self._listen())
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's thread and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def begin(self, protocol: str, fault: Fault, place: Place, times: int) -> Run:
        """Start a run, to which requests belong from now on."""
        self.run = Run(self, f"{next(self._tokens)}", protocol, fault, place, times)
        return self.run

    def end(self) -> None:
        """End the run: close its connections and end its tasks."""
        if self.run is not None:
            self.run.over.set()
            self.heal()
        self.do(self._drop())
        self.run = None

    def heal(self) -> None:
        """Restore the certificate and the ports."""
        self._foreign = False
        self.do(self._is_restarted())

    async def _is_restarted(self) -> None:
        if self._restarting is not None:
            await self._restarting
        if not self._servers[_PROXY].is_serving():
            await self._listen_at(_PROXY)

    def url(self, run: Run, protocol: str = "", mirror: bool = False, host: str = "127.0.0.1") -> str:
        """The URL of the run's file, over the run's protocol unless another one is named."""
        protocol = protocol or run.protocol
        scheme = "http" if protocol == "http" else "https"
        return f"{scheme}://{host}:{self.ports[protocol, mirror]}/{run.token}/file.bin"

    def proxy(self, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.ports[_PROXY]}"

    # -- what faults do to all of it; on the server's thread ---------------------------------------------------

    def show_foreign_certificate(self) -> None:
        """Show a certificate that the client does not trust to new connections, and end the existing ones."""
        self._foreign = True
        self.abort_all()

    def abort_all(self) -> None:
        for writer in list(self._writers):
            _reset(writer)

    def end_proxy(self) -> None:
        """Shut down the proxy until :meth:`heal`."""
        self._servers[_PROXY].close()
        self.abort_all()

    def restart(self, seconds: float) -> None:
        """Reset all connections, and refuse new ones for ``seconds``."""
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.get_running_loop().create_task(self._restart(seconds))

    async def _restart(self, seconds: float) -> None:
        for server in self._servers.values():
            server.close()
        self.abort_all()
        await asyncio.sleep(seconds)
        await self._listen()

    # -- connections -------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        for key in (*itertools.product(PROTOCOLS, (False, True)), _PROXY):
            await self._listen_at(key)

    async def _listen_at(self, key: tuple[str, bool]) -> None:
        protocol, mirror = key
        serve: Callable[..., Coroutine[Any, Any, None]] = {"h2": self._serve_h2, "proxy": self._serve_proxy}.get(
            protocol, self._serve_h1
        )
        context = None
        if protocol in ("https", "h2"):
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self.certificates.certificate, self.certificates.key)
            context.set_alpn_protocols(["h2" if protocol == "h2" else "http/1.1"])
            context.sni_callback = self._choose_certificate
        if key not in self.ports:
            self.ports[key] = self._reserve()
        self._servers[key] = await asyncio.start_server(
            self._accepter(serve, mirror), "127.0.0.1", self.ports[key], ssl=context, reuse_port=True
        )

    def _reserve(self) -> int:
        """Reserve a port, which stays ours while nothing listens on it."""
        reserved = socket.socket()
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        self._reserved.append(reserved)
        return int(reserved.getsockname()[1])

    def _choose_certificate(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        if self._foreign:
            connection.context = self._contexts[True]

    async def _close(self) -> None:
        for server in self._servers.values():
            server.close()
        for reserved in self._reserved:
            reserved.close()
        await self._drop()
        await all_ended()

    async def _drop(self) -> None:
        """End every connection."""
        for task in list(self._tasks):
            task.cancel()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepter(
        self, serve: Callable[..., Coroutine[Any, Any, None]], mirror: bool
    ) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            self._writers.add(writer)
            seated = self.run if not mirror else None
            if seated is not None:
                seated.seats += 1
            try:
                if seated is not None and 0 < seated.connections_at_most < seated.seats:
                    await self._turn_away(seated, reader, writer)
                await serve(reader, writer, mirror)
            except (_Over, OSError, asyncio.IncompleteReadError, asyncio.CancelledError, h2.exceptions.ProtocolError):
                pass
            finally:
                if seated is not None:
                    seated.seats -= 1
                self._writers.discard(writer)
                self._tasks.discard(task)
                with contextlib.suppress(Exception):
                    writer.close()

        return accept

    async def _turn_away(self, run: Run, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Refuse a connection because there are too many."""
        if run.over_limit == "reset":
            _reset(writer)
            raise _Over
        while run.over_limit == "unserved" and 0 < run.connections_at_most < run.seats:
            await asyncio.sleep(0.01)
            if reader.at_eof():
                raise _Over

    def _answer(
        self, protocol: Literal["h1", "h2"], method: str, path: str, headers: dict[str, str], mirror: bool
    ) -> tuple[Ask | None, Answer]:
        run = self.run
        if run is None or path.split("/")[1:2] != [run.token]:
            return None, Answer(404)
        if mirror:
            spare = Run(self, run.token, run.protocol, Fault("none"), run.place, 0, run.node)
            answer = spare.good(spare.ask(protocol, method, path, headers))
            run.versions |= spare.versions
            return None, answer
        ask = run.ask(protocol, method, path, headers)
        if run.over_limit == "503" and 0 < run.connections_at_most < run.seats:
            return ask, Answer(503)
        return ask, run.answer(ask)

    async def _send_body(
        self, answer: Answer, piece: int, counted: bool, send: Callable[[memoryview], Coroutine[Any, Any, None]]
    ) -> None:
        """Send the body up to the point where it is to stop."""
        octets = memoryview(bytes(answer.body) + answer.tail if answer.tail else answer.body)
        if answer.stop_after is not None:
            octets = octets[: answer.stop_after]
        if answer.pace:
            piece = max(1, min(piece, answer.pace // 10))
        for at in range(0, len(octets), piece):
            part = octets[at : at + piece]
            if self.run is not None and counted:
                await self.run.permit(len(part))
            if answer.pace:
                await asyncio.sleep(len(part) / answer.pace)
            await send(part)

    # -- HTTP/1.1 ----------------------------------------------------------------------------------------------

    async def _serve_h1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mirror: bool) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head[:-4].split("\r\n")
            method, target, _ = first.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            path = "/" + target.partition("://")[2].partition("/")[2] if "://" in target else target
            ask, answer = self._answer("h1", method, path, headers, mirror)
            try:
                await self._send_h1(answer, method, reader, writer, counted=ask is not None)
            finally:
                if ask is not None:
                    ask.over = True

    async def _send_h1(
        self, answer: Answer, method: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool
    ) -> None:
        await asyncio.sleep(answer.delay_s)
        if answer.silent or answer.stop_after == -1:
            await self._stop(answer if not answer.silent else Answer(stop="stall"), reader, writer)
        if answer.raw is not None:
            writer.write(answer.raw)
            await writer.drain()
            raise _Over
        writer.write(answer.preface + _head(answer))

        async def send(part: memoryview) -> None:
            if answer.chunked:
                writer.write(answer.chunk(len(part)))
            writer.write(part)
            if answer.chunked:
                writer.write(b"\r\n")
            await writer.drain()

        if method != "HEAD":
            await self._send_body(answer, _PIECE, counted, send)
            if answer.stop_after is not None and answer.stop_after < len(answer.body) + len(answer.tail):
                await self._stop(answer, reader, writer)
            if answer.chunked and answer.ended:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
        if not answer.ended:
            await self._stop(Answer(stop="stall"), reader, writer)
        if answer.close or answer.silently_closed:
            raise _Over

    async def _stop(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Break off the answer, which ends the connection."""
        if answer.stop == "reset":
            _reset(writer)
        elif answer.stop == "stall":
            await reader.read(1)  # until the client leaves
        raise _Over

    # -- HTTP/2 ------------------------------------------------------------------------------------------------

    async def _serve_h2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mirror: bool) -> None:
        await _H2(self, reader, writer, mirror).serve()

    # -- a proxy -----------------------------------------------------------------------------------------------

    async def _serve_proxy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _mirror: bool) -> None:
        """Serve tunnels and requests with an absolute URL, to this server's own ports."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        onto = target if method == "CONNECT" else target.partition("://")[2].partition("/")[0]
        there, onward = await asyncio.open_connection("127.0.0.1", int(onto.rpartition(":")[2]))
        self._writers.add(onward)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                onward.write(head)
            await asyncio.gather(_pump(reader, onward), _pump(there, writer))
        finally:
            self._writers.discard(onward)
            onward.close()


class _H2:
    """One HTTP/2 connection."""

    def __init__(
        self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mirror: bool
    ) -> None:
        config = h2.config.H2Configuration(
            client_side=False,
            header_encoding="latin-1",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = h2.connection.H2Connection(config)
        self._server, self._reader, self._writer, self._mirror = server, reader, writer, mirror
        self._window = asyncio.Event()
        self._streams: dict[int, asyncio.Task[None]] = {}
        self._ended = asyncio.Event()

    async def serve(self) -> None:
        self._h2.initiate_connection()
        self._flush()
        try:
            while not self._ended.is_set():
                octets = await self._reader.read(64 << 10)
                if not octets:
                    return
                for event in self._h2.receive_data(octets):
                    self._handle(event)
                self._flush()
        finally:
            for task in self._streams.values():
                task.cancel()
            await asyncio.gather(*self._streams.values(), return_exceptions=True)

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int() as number, headers=headers):
                found = dict(headers or [])
                task = asyncio.get_running_loop().create_task(self._stream(number, found))  # type: ignore[arg-type]  # h2 says that they may be text
                self._streams[number] = task
                task.add_done_callback(lambda _: self._streams.pop(number, None))
            case h2.events.StreamReset(stream_id=int() as number) if number in self._streams:
                self._streams[number].cancel()
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._window.set()
                self._window = asyncio.Event()
            case h2.events.ConnectionTerminated():
                self._ended.set()

    async def _stream(self, number: int, headers: dict[str, str]) -> None:
        ask, answer = self._server._answer("h2", headers[":method"], headers[":path"], headers, self._mirror)
        try:
            await self._send(number, answer, headers[":method"], counted=ask is not None)
        except (h2.exceptions.ProtocolError, OSError, _Over):
            pass
        finally:
            if ask is not None:
                ask.over = True

    async def _send(self, number: int, answer: Answer, method: str, *, counted: bool) -> None:
        await asyncio.sleep(answer.delay_s)
        if answer.silent or answer.stop_after == -1:
            await self._stop(number, "stall" if answer.silent else answer.stop)
        if answer.raw is not None:
            self._writer.write(answer.raw)
            await self._writer.drain()
            self._end_connection()
        headers = [(":status", str(answer.status)), *((name.lower(), value) for name, value in answer.headers)]
        if not answer.chunked:
            values = [str(len(answer.body) + len(answer.tail))] if answer.lengths is None else answer.lengths
            headers += [("content-length", value) for value in values]
        self._h2.send_headers(number, headers)
        self._flush()

        async def send(part: memoryview) -> None:
            while part:
                room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size, len(part))
                if room <= 0:
                    await self._window.wait()
                    continue
                self._h2.send_data(number, bytes(part[:room]))
                self._flush()
                await self._writer.drain()
                part = part[room:]

        if method != "HEAD":
            await self._server._send_body(answer, _H2_PIECE, counted, send)
            if answer.stop_after is not None and answer.stop_after < len(answer.body) + len(answer.tail):
                await self._stop(number, answer.stop)
        if not answer.ended:
            await self._stop(number, "stall")
        self._h2.end_stream(number)
        self._flush()

    async def _stop(self, number: int, how: str) -> None:
        match how:
            case "close":
                self._end_connection()
            case "reset":
                self._h2.reset_stream(number, 2)
                self._flush()
            case "stall":
                await asyncio.get_running_loop().create_future()  # until the client resets it, or leaves
            case "end":
                self._h2.end_stream(number)
                self._flush()
        raise _Over

    def _end_connection(self) -> None:
        self._writer.transport.abort()
        raise _Over


def _head(answer: Answer) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} Whatever".encode()]
    lines += [f"{name}: {value}".encode("latin-1") for name, value in answer.headers]
    if answer.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif answer.lengths is None:
        lines.append(b"Content-Length: %d" % (len(answer.body) + len(answer.tail)))
    else:
        lines += [f"Content-Length: {value}".encode() for value in answer.lengths]
    if answer.close:
        lines.append(b"Connection: close")
    return b"\r\n".join([*lines, *answer.lines, b"", b""])


def _context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates.certificate, certificates.key)
    return context


def _reset(writer: asyncio.StreamWriter) -> None:
    """Reset the connection instead of closing it."""
    found = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while octets := await reader.read(64 << 10):
            writer.write(octets)
            await writer.drain()
        writer.close()
