"""Proxies for the tests: simple ones in threads of this process, and a real squid."""

import abc
import base64
import contextlib
import hashlib
import http.client
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from servers.listening import listen
from support.ports import PORTS

__all__ = ["HttpProxy", "Socks5", "Squid"]

_HELPER = Path("/usr/lib/squid/basic_ncsa_auth")
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_SQUID = shutil.which("squid") or shutil.which("squid", path="/usr/sbin:/usr/local/sbin") or ""


class _Proxy(abc.ABC):
    """Runs tunnels in threads of this process; a context manager. ``asked`` lists the hosts that clients named.

    All tunnels connect to ports of this machine: to ``to``, or if that is 0, to the port that the client named.
    """

    def __init__(self, to: int = 0) -> None:
        self.asked: list[str] = []
        self._to = to
        self._listener = listen()
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(5)

    @abc.abstractmethod
    def _understand(self, client: socket.socket, stream: BinaryIO) -> tuple[str, int] | None:
        """The host and port that a new client asks for; None if it was refused."""

    @abc.abstractmethod
    def _agree(self, client: socket.socket) -> None:
        """Tell the client that the tunnel is established."""

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._begin(self._serve, client)

    def _begin(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        self._open.update(arguments)
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, IndexError, ValueError), client.makefile("rb") as stream:
            place = self._understand(client, stream)
            if place is None:
                client.close()
                return
            host, port = place
            self.asked.append(host)
            origin = socket.create_connection(("127.0.0.1", self._to or port))
            self._agree(client)
            self._begin(self._pump, origin, client)
            self._pump(client, origin)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class HttpProxy(_Proxy):
    """Supports only CONNECT (RFC 9110, section 9.3.6)."""

    def _understand(self, client: socket.socket, stream: BinaryIO) -> tuple[str, int] | None:
        method, place, _ = stream.readline().split()
        while stream.readline().strip():
            pass
        if method != b"CONNECT":
            client.sendall(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n")
            return None
        host, _, port = place.decode().rpartition(":")
        return host, int(port)

    def _agree(self, client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")


class Socks5(_Proxy):
    """SOCKS5 (RFC 1928) with user and password (RFC 1929)."""

    def __init__(self, user: str = "", password: str = "", *, to: int = 0) -> None:
        super().__init__(to)
        self._account = f"{user}:{password}" if user else ""

    def _understand(self, client: socket.socket, stream: BinaryIO) -> tuple[str, int] | None:
        methods = stream.read(stream.read(2)[1])
        method = 2 if self._account else 0
        client.sendall(bytes([5, method if method in methods else 0xFF]))
        if method:
            stream.read(1)
            account = b":".join(stream.read(stream.read(1)[0]) for _ in range(2)).decode()
            client.sendall(bytes([1, account != self._account]))
            if account != self._account:
                return None
        kind = stream.read(4)[3]
        match kind:
            case 1:
                host = socket.inet_ntop(socket.AF_INET, stream.read(4))
            case 4:
                host = socket.inet_ntop(socket.AF_INET6, stream.read(16))
            case _:
                host = stream.read(stream.read(1)[0]).decode()
        return host, int.from_bytes(stream.read(2), "big")

    def _agree(self, client: socket.socket) -> None:
        client.sendall(bytes([5, 0, 0, 1, 0, 0, 0, 0, 0, 0]))


class Squid:
    """A squid that requires ``user`` and ``password``, and tunnels to any port; a context manager."""

    def __init__(self, directory: Path, user: str, password: str) -> None:
        self.port = next(PORTS)
        self._account = base64.b64encode(f"{user}:{password}".encode()).decode()
        directory.chmod(0o755)
        accounts = directory / "accounts"
        accounts.write_text(f"{user}:{hashlib.md5(password.encode()).hexdigest()}\n")
        self._config = directory / "squid.conf"
        self._told = directory / "cache.log"
        self.log = directory / "access.log"
        self.log.touch(mode=0o666)
        self.log.chmod(0o666)
        lines = [
            f"http_port 127.0.0.1:{self.port}",
            f"auth_param basic program {_HELPER} {accounts}",
            "auth_param basic children 1",
            "acl known proxy_auth REQUIRED",
            "http_access allow known",
            "http_access deny all",
            f"access_log stdio:{self.log}",
            f"cache_log {self._told}",
            "cache deny all",
            "pid_filename none",
            "shutdown_lifetime 0 seconds",
            f"coredump_dir {directory}",
        ]
        self._config.write_text("\n".join([*lines, ""]))
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def available() -> bool:
        return bool(_SQUID) and _HELPER.exists()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            # Squids with the same name share their memory segments, so each gets its own name.
            [_SQUID, "-N", "-n", f"squid{self.port}", "-f", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
        )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._lets_in():
                return self
            time.sleep(0.05)
        status = self._process.poll()
        self.__exit__(None, None, None)
        raise RuntimeError(f"squid does not start (status {status}):\n{self._said()}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()  # squid removes its shared memory on SIGTERM
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _lets_in(self) -> bool:
        """Whether it accepts the account. Its authentication helper starts only after it listens."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(client):
            try:
                # Nothing listens on this port; squid reports that only to clients that it has authenticated.
                client.request("GET", "http://127.0.0.1:1/", headers={"Proxy-Authorization": f"Basic {self._account}"})
                return client.getresponse().status != 407
            except (OSError, http.client.HTTPException):
                return False

    def _said(self) -> str:
        return self._told.read_text() if self._told.exists() else ""

    def tunnels(self) -> list[str]:
        """The targets of CONNECT requests, as ``host:port``."""
        fields = [line.split() for line in self.log.read_text().splitlines()]
        return [each[6] for each in fields if each[5] == "CONNECT" and each[3].endswith("/200")]
