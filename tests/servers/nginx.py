"""A real nginx on free ports of 127.0.0.1, as the current user, in a directory of its own."""

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from servers.listening import free_ports
from servers.tls import Certificates

__all__ = ["LogLine", "Nginx"]

_START_TIMEOUT = 10.0  # seconds
_STOP_TIMEOUT = 5.0  # seconds
_START_TRIES = 5  # a free port may be taken before nginx gets it

_LOG_FORMAT = (
    '{"method":"$request_method","path":"$request_uri","status":$status,"range":"$http_range",'
    '"bytes_sent":$bytes_sent,"body_bytes_sent":$body_bytes_sent,"connection":$connection,'
    '"protocol":"$server_protocol","port":$server_port,"user_agent":"$http_user_agent"}'
)

_CONFIGURATION = """
daemon off;
{user}
worker_processes {workers};
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
events {{ worker_connections 4096; }}
http {{
    log_format counts escape=json '{log_format}';
    access_log {prefix}/access.log counts;
    default_type application/octet-stream;
    client_body_temp_path {prefix}/temp;
    proxy_temp_path {prefix}/temp;
    fastcgi_temp_path {prefix}/temp;
    uwsgi_temp_path {prefix}/temp;
    scgi_temp_path {prefix}/temp;
    sendfile {sendfile};
    tcp_nopush on;
    autoindex off;
    keepalive_requests 1000000;
    limit_conn_zone $binary_remote_addr zone=clients:1m;
    {options}
    server {{
        server_name localhost;
        root {prefix}/root;
        {listeners}
    }}
}}
"""


@dataclass(frozen=True)
class LogLine:
    """One answered request, as nginx's access log has it."""

    method: str
    path: str
    status: int
    range: str
    """The Range header; empty: there was none."""
    bytes_sent: int
    """With the headers."""
    body_bytes_sent: int
    connection: int
    protocol: str
    """``HTTP/1.1`` or ``HTTP/2.0``."""
    port: int
    user_agent: str


class Nginx:
    """nginx serving :attr:`root`; a context manager.

    With ``certificates`` it listens on an https port (HTTP/1.1) and on one with HTTP/2 too. ``limit_rate`` is
    bytes per second for each reply, in nginx's notation (``4m``); ``limit_conn`` is how many requests of one client
    are answered at a time (others get 503); ``options`` are more lines for the ``http`` block.
    """

    def __init__(
        self,
        *,
        certificates: Certificates | None = None,
        limit_rate: str = "",
        limit_conn: int = 0,
        sendfile: bool = True,
        workers: int = 2,
        options: str = "",
    ) -> None:
        self.certificates = certificates
        self.http_port = self.https_port = self.http2_port = 0
        self._limit_rate = limit_rate
        self._limit_conn = limit_conn
        self._sendfile = sendfile
        self._workers = workers
        self._options = options
        self._prefix = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @staticmethod
    def available() -> bool:
        """Whether there is an nginx to start."""
        return _binary() is not None

    @staticmethod
    def version() -> tuple[int, ...]:
        """The version of nginx: ``(1, 22, 1)``."""
        shown = subprocess.run([_binary() or "nginx", "-v"], capture_output=True, text=True, check=True).stderr
        match = re.search(r"nginx/(\d+)\.(\d+)\.(\d+)", shown)
        return tuple(map(int, match.groups())) if match else (0,)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def root(self) -> Path:
        """The directory that is served."""
        return self._prefix / "root"

    def url(self, path: str) -> str:
        """A URL over plain HTTP/1.1."""
        return f"http://127.0.0.1:{self.http_port}{path}"

    def https_url(self, path: str) -> str:
        """A URL over TLS where only HTTP/1.1 is offered."""
        return f"https://127.0.0.1:{self.https_port}{path}"

    def http2_url(self, path: str) -> str:
        """A URL over TLS where HTTP/2 is offered too."""
        return f"https://127.0.0.1:{self.http2_port}{path}"

    def write(self, path: str, data: bytes) -> Path:
        """Writes a file under the root, creating directories as needed."""
        file = self.root / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        return file

    def log(self, at_least: int = 0, timeout: float = 2.0) -> list[LogLine]:
        """The requests answered since the start or :meth:`clear_log`.

        nginx writes a line after it has sent the reply, so the client may have the reply before the line is there:
        ``at_least`` waits until there are that many lines.
        """
        deadline = time.monotonic() + timeout
        while True:
            # Leave out a line that is still being written.
            whole, _, _ = (self._prefix / "access.log").read_bytes()[self._log_start :].rpartition(b"\n")
            lines = [LogLine(**json.loads(line)) for line in whole.splitlines()]
            if len(lines) >= at_least or time.monotonic() > deadline:
                return lines
            time.sleep(0.005)

    def clear_log(self) -> None:
        """Forgets the requests so far."""
        self._log_start = (self._prefix / "access.log").stat().st_size

    def start(self) -> Self:
        """Returns when nginx answers; raises ``RuntimeError`` with its error log if it does not."""
        self._prefix = Path(tempfile.mkdtemp(prefix="nginx-"))
        for directory in ("root", "temp"):
            (self._prefix / directory).mkdir()
        for tries_left in reversed(range(_START_TRIES)):
            self._launch()
            if self._answers():
                self.log(at_least=1)
                self.clear_log()
                return self
            errors = (self._prefix / "error.log").read_text()
            self._end_process()
            if "Address already in use" not in errors or not tries_left:
                break
        shutil.rmtree(self._prefix)
        raise RuntimeError(f"nginx does not start:\n{errors}")

    def stop(self) -> None:
        """Stops nginx and removes its directory. May be called twice."""
        if self._process is not None:
            self._end_process()
            shutil.rmtree(self._prefix)

    def _launch(self) -> None:
        self.http_port, self.https_port, self.http2_port = free_ports(3)
        configuration = self._prefix / "nginx.conf"
        configuration.write_text(self._configuration())
        # The log used until the configuration is read.
        early_log = ["-e", f"{self._prefix}/error.log"] if self.version() >= (1, 19, 5) else []
        self._process = subprocess.Popen(
            [_binary() or "nginx", "-p", str(self._prefix), "-c", str(configuration), *early_log],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C goes only to the tests, which then stop nginx
        )

    def _configuration(self) -> str:
        listeners = [f"listen 127.0.0.1:{self.http_port} backlog=1024;"]
        if self.certificates:
            listeners += [
                f"listen 127.0.0.1:{self.https_port} ssl;",
                # The parameter http2 has been deprecated since 1.25.1, which introduced a directive instead. The
                # directive would apply to both ports; the warning is harmless.
                f"listen 127.0.0.1:{self.http2_port} ssl http2;",
                f"ssl_certificate {self.certificates.certificate};",
                f"ssl_certificate_key {self.certificates.key};",
            ]
        options = [self._options]
        if self._limit_rate:
            options.append(f"limit_rate {self._limit_rate};")
        if self._limit_conn:
            options.append(f"limit_conn clients {self._limit_conn};")
        return _CONFIGURATION.format(
            user=_user_directive(),
            workers=self._workers,
            prefix=self._prefix,
            log_format=_LOG_FORMAT,
            sendfile="on" if self._sendfile else "off",
            options="\n    ".join(options),
            listeners="\n        ".join(listeners),
        )

    def _answers(self) -> bool:
        """Waits until nginx answers; False if it has ended or takes too long."""
        deadline = time.monotonic() + _START_TIMEOUT
        while self._process and self._process.poll() is None and time.monotonic() < deadline:
            # The file exists only once nginx has its ports; before that, another process might be answering.
            if (self._prefix / "nginx.pid").exists():
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.http_port)) as connection:
                    connection.request("HEAD", "/")
                    connection.getresponse().read()
                    return True
            time.sleep(0.005)
        return False

    def _end_process(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)  # its workers too
            self._process.wait()
        self._process = None


def _binary() -> str | None:
    """nginx in PATH, or in the directory where distributions install it, which is often not in a user's PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin")


def _user_directive() -> str:
    """Started by root, nginx would run its workers as nobody, who may not read our files."""
    if os.geteuid() != 0:
        return ""
    import grp  # missing on Windows, where this module is imported but never starts nginx
    import pwd

    return f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(0).gr_name};"
