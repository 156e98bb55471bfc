"""A loopback HTTP/1.1 server that serves known bytes and misbehaves on purpose, one route per fault.

    with MisbehavingServer() as server:
        url = server.url("/cut/name.bin", size="8M", after="64K", times=2)
        ...
        assert file.read_bytes() == content("8M")
        assert server.bytes_sent == ...

The first segment of the path names the fault (``routes.py`` lists them). The query has its parameters, and those that
every route takes (``routing.Common``). Faults count requests by URL, including the query.
"""

import contextlib
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from servers import directed, gates, reluctant  # noqa: F401 - imported to register their routes
from servers.content import content, etag, http_date, modified, parse_size
from servers.listening import listen, refused_port
from servers.routes import ROUTES
from servers.routing import Ask, Memory, answer, find, message
from servers.wire import Hangup, Line, Reply, Request, asked_range, parse_head

__all__ = [
    "ROUTES",
    "MisbehavingServer",
    "Request",
    "content",
    "etag",
    "http_date",
    "modified",
    "parse_size",
    "refused_port",
]

_BACKLOG = 512
_MADE_BEFOREHAND = 64 << 20  # bytes; tests request only parts of larger files, if anything
_JOIN_TIMEOUT = 10.0  # seconds; a handler that takes longer is a bug in this server


class MisbehavingServer:
    """A server in threads of this process, on a port of 127.0.0.1; a context manager.

    It may be started again after :meth:`stop`, on the same port: between the two, connections are refused.
    With ``tls`` it speaks HTTPS.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.port = port
        """0 until the first start, unless it was given."""
        self.connections = 0
        """Accepted since the start or :meth:`clear`."""
        self.serves_at_once = 0
        """So many connections are served at a time, the oldest first; the others are accepted and wait (0: all)."""
        self.serves_ever = 0
        """Of all connections since the start only so many are ever served; the others wait for ever (0: all)."""
        self.serves_any_path = False
        """A path that names no route is one of ``/good``."""
        self._tls = tls
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._memories: defaultdict[str, Memory] = defaultdict(Memory)
        self._accepted = 0
        self._queue: set[int] = set()  # connections that wait for their turn
        self._served = 0  # connections being served
        self._accepter: threading.Thread | None = None
        self._stop: socket.socket | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Listens; connections are accepted from now on."""
        if self._accepter is not None:
            raise RuntimeError("the server runs already")
        if self.port:  # the server is being restarted
            listener = socket.create_server(("127.0.0.1", self.port), backlog=_BACKLOG)
        else:
            listener = listen(_BACKLOG)
            self.port = listener.getsockname()[1]
        self._stop, stopping = socket.socketpair()
        self._accepter = threading.Thread(
            target=self._accept, args=(listener, stopping), name="misbehaving-accept", daemon=True
        )
        self._accepter.start()
        return self

    def stop(self) -> None:
        """Closes everything, including replies under way, and returns when no thread is left. May be called twice."""
        if self._accepter is None or self._stop is None:
            return
        self._stop.close()  # makes the other end readable, which every poll watches
        self._accepter.join(_JOIN_TIMEOUT)
        if self._accepter.is_alive():
            raise RuntimeError(f"connections of {self!r} do not end")
        self._accepter = self._stop = None

    def url(self, path: str, **parameters: str | float) -> str:
        """The absolute URL of a route with these parameters; ``ValueError`` if it does not take them.

        This also generates the file. If the first answer had to wait for that, the server would seem to be far away.
        """
        if parameters:
            encoded = urllib.parse.urlencode({name: str(value) for name, value in parameters.items()})
            path = f"{path}{'&' if '?' in path else '?'}{encoded}"
        try:
            _, common, _ = find(path)
        except LookupError as error:
            raise ValueError(str(error)) from None
        if common.size <= _MADE_BEFOREHAND:
            content(common.size, common.seed)
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}{path}"

    @property
    def requests(self) -> list[Request]:
        """The requests since the start or :meth:`clear`, in the order in which their heads arrived."""
        with self._lock:
            return list(self._requests)

    @property
    def bytes_sent(self) -> int:
        """Body bytes handed to sockets, for all :attr:`requests`."""
        return sum(request.bytes_sent for request in self.requests)

    def clear(self) -> None:
        """Forgets requests and counts. The faults' own counts stay; use another ``id=`` to start afresh."""
        with self._lock:
            self._requests.clear()
            self.connections = 0

    def wait_idle(self, timeout: float = 5.0) -> None:
        """Waits until no reply is under way, so that counts are final. ``TimeoutError`` if one still is."""
        deadline = time.monotonic() + timeout
        while not all(request.finished for request in self.requests):
            if time.monotonic() > deadline:
                raise TimeoutError(f"a reply is still under way after {timeout} s")
            time.sleep(0.002)

    def _accept(self, listener: socket.socket, stopping: socket.socket) -> None:
        handlers: list[threading.Thread] = []
        with listener, stopping:
            listener.setblocking(False)
            poller = select.poll()
            poller.register(listener, select.POLLIN)
            poller.register(stopping, select.POLLIN)
            while stopping.fileno() not in [fd for fd, _ in poller.poll()]:
                handlers = [handler for handler in handlers if handler.is_alive()]
                # A client may have left before it is accepted.
                with contextlib.suppress(OSError):
                    handlers.append(self._handle_next(listener, stopping))
            listener.close()
            for handler in handlers:
                handler.join()

    def _handle_next(self, listener: socket.socket, stopping: socket.socket) -> threading.Thread:
        sock, _ = listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls:
            sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        with self._lock:
            self.connections += 1
            self._accepted += 1
            number = self._accepted
        line = Line(sock, stopping)
        handler = threading.Thread(target=self._handle, args=(line, number), name=f"misbehaving-{number}", daemon=True)
        handler.start()
        return handler

    def _handle(self, line: Line, number: int) -> None:
        try:
            with self._turn(line, number):
                line.handshake()
                while True:
                    self._serve(line, number)
        except (Hangup, OSError):
            pass
        finally:
            line.close()

    @contextlib.contextmanager
    def _turn(self, line: Line, number: int) -> Iterator[None]:
        """Waits until the connection may be served."""
        with self._lock:
            self._queue.add(number)
        try:
            while not self._takes(number):
                line.pause(0.005)
            try:
                yield
            finally:
                with self._lock:
                    self._served -= 1
        finally:
            with self._lock:
                self._queue.discard(number)

    def _takes(self, number: int) -> bool:
        with self._lock:
            if self.serves_ever and number > self.serves_ever:
                return False
            if self.serves_at_once and (self._served >= self.serves_at_once or number > min(self._queue)):
                return False
            self._queue.discard(number)
            self._served += 1
            return True

    def _serve(self, line: Line, number: int) -> None:
        """Serve one request, from its head to the end of its reply."""
        head = line.read_head()
        try:
            method, target, headers = parse_head(head)
        except ValueError:
            method, target, headers = "", "", {"connection": "close"}
        request = Request(method, target, headers, None, number, time.monotonic())
        with self._lock:
            self._requests.append(request)
        reply = self._reply(request)
        reply.close |= headers.get("connection", "").lower() == "close"
        try:
            line.send(reply, request)
        finally:
            if reply.on_end:
                reply.on_end()
            request.finished = True

    def _reply(self, request: Request) -> Reply:
        # The target may have scheme and host, as in requests to a proxy.
        target = urllib.parse.urlsplit(request.path)._replace(scheme="", netloc="").geturl()
        if self.serves_any_path and target.removeprefix("/").partition("/")[0] not in ROUTES:
            target = f"/good{target}"
        try:
            route, common, own = find(target)
        except (LookupError, ValueError) as error:
            return message(404 if isinstance(error, LookupError) else 400, str(error))
        request.range = asked_range(request.headers.get("range", ""), common.size)
        if request.method not in ("GET", "HEAD"):
            reply = message(405, f"not {request.method}")
            reply.close = True  # because the request's body is not read
            return reply
        with self._lock:
            memory = self._memories[target]
        ask = Ask(request.method, target, request.headers, common, memory, connection=request.connection)
        return answer(ask, route, own)
