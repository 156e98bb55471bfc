"""The nginx that every peer downloads from, with a directory, ports and a certificate of its own."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["DELAY_S", "PORTS", "RATE", "Server", "ServerError", "make_certificate"]

DELAY_S = 0.1  # round trip, on the port ``delayed``
RATE = 4 << 20  # bytes per second on the two slow ports
PORTS = ("http", "https", "https2", "paced", "limit_rate", "allows4")

# Linux; the socket module has no name for it before Python 3.14.
_SO_MAX_PACING_RATE = 47

_CONFIG = """\
worker_processes {workers};
pid {prefix}/nginx.pid;
error_log {prefix}/error.log warn;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    default_type application/octet-stream;
    sendfile on;
    # The default of 1000 would make clients with few connections reconnect in the many-files scenario.
    keepalive_requests 100000;
    root {root};
    client_body_temp_path {prefix}/tmp;
    proxy_temp_path {prefix}/tmp;
    fastcgi_temp_path {prefix}/tmp;
    uwsgi_temp_path {prefix}/tmp;
    scgi_temp_path {prefix}/tmp;
    ssl_certificate {prefix}/leaf.pem;
    ssl_certificate_key {prefix}/leaf.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:ssl:1m;
    server {{ listen 127.0.0.1:{http}; }}
    server {{ listen 127.0.0.1:{https} ssl; }}
    server {{ listen 127.0.0.1:{https2} ssl http2; }}
    server {{ listen 127.0.0.1:{paced}; }}
    server {{ listen 127.0.0.1:{limit_rate}; limit_rate {rate}; }}
    limit_conn_zone $server_port zone=all:1m;
    server {{ listen 127.0.0.1:{allows4}; limit_conn all 4; limit_rate {rate}; }}
}}
"""

_OPENSSL_CA = """\
[req]
distinguished_name = name
x509_extensions = ca
[name]
[ca]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
subjectAltName = DNS:localhost,IP:127.0.0.1
extendedKeyUsage = serverAuth
authorityKeyIdentifier = keyid
"""


class ServerError(RuntimeError):
    """nginx or openssl is missing, or nginx did not start."""


def make_certificate(directory: Path) -> Path:
    """Create a temporary CA in ``directory``, and a certificate for 127.0.0.1; returns the CA's file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise ServerError("openssl is not installed; it makes the server's throw-away certificate")
    config = directory / "openssl.cnf"
    config.write_text(_OPENSSL_CA)

    def call(*arguments: str) -> None:
        done = subprocess.run([openssl, *arguments], cwd=directory, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ServerError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", "openssl.cnf")
    call("req", "-x509", *key, "-days", "2", "-subj", "/CN=bench CA", "-keyout", "ca.key", "-out", "ca.pem")
    call("req", *key, "-subj", "/CN=localhost", "-keyout", "leaf.key", "-out", "leaf.csr")
    sign = (
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-set_serial",
        "1",
        "-extfile",
        "openssl.cnf",
        "-extensions",
        "leaf",
    )
    call("x509", "-req", "-in", "leaf.csr", *sign, "-days", "2", "-out", "leaf.pem")
    return directory / "ca.pem"


class Server:
    """A running nginx; a context manager.

    The ports: ``http``; ``https``, with HTTP/1.1 only; ``https2``, which also offers HTTP/2; ``paced``, where the
    kernel limits every *connection* to ``RATE``; ``limit_rate``, where nginx limits every *request* to it; ``allows4``,
    which serves four requests at a time, each at that rate, and answers 503 to more; ``delayed``, which leads to
    ``http`` with a round trip of ``DELAY_S``.
    """

    def __init__(self, root: Path, prefix: Path) -> None:
        self.root = root
        self.prefix = prefix
        self.ca_file = prefix / "ca.pem"
        self.ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._delay: subprocess.Popen[str] | None = None

    def url(self, port: str, path: str) -> str:
        scheme = "https" if port.startswith("https") else "http"
        return f"{scheme}://127.0.0.1:{self.ports[port]}/{path}"

    def start(self) -> None:
        nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        if nginx is None:
            raise ServerError("nginx is not installed (apt install nginx-light, brew install nginx)")
        self.prefix.mkdir(parents=True, exist_ok=True)
        make_certificate(self.prefix)
        with contextlib.ExitStack() as sockets:
            # nginx takes over listening sockets whose numbers are in NGINX, as when its binary is upgraded. So no
            # other program can take a port meanwhile, and connections inherit the paced socket's option.
            listening = {port: sockets.enter_context(socket.socket()) for port in PORTS}
            for port, listener in listening.items():
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if port == "paced" and sys.platform == "linux":
                    listener.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, RATE)
                listener.bind(("127.0.0.1", 0))
                listener.listen(511)
                # nginx expects its predecessor to have done this: otherwise a worker that loses the race for a
                # connection would block in accept(), with all its other connections.
                listener.setblocking(False)
                self.ports[port] = listener.getsockname()[1]
            config = self.prefix / "nginx.conf"
            config.write_text(
                _CONFIG.format(
                    workers=min(2, os.cpu_count() or 1),
                    prefix=self.prefix,
                    root=self.root,
                    rate=RATE,
                    user="user root;" if os.geteuid() == 0 else "",
                    **self.ports,
                )
            )
            numbers = [listener.fileno() for listener in listening.values()]
            self._process = subprocess.Popen(
                [nginx, "-p", str(self.prefix), "-c", str(config), "-e", str(self.prefix / "error.log")],
                env={**os.environ, "NGINX": "".join(f"{number};" for number in numbers)},
                pass_fds=numbers,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            self._wait_until_it_answers()
            self._start_delay()
        except BaseException:
            self.stop()
            raise

    def _wait_until_it_answers(self, timeout: float = 10.0) -> None:
        assert self._process is not None
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._process.poll() is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=1)
            try:
                connection.request("HEAD", "/")
                connection.getresponse().read()
                return
            except OSError:
                time.sleep(0.05)
            finally:
                connection.close()
        log = self.prefix / "error.log"
        reason = log.read_text(errors="replace").strip() if log.exists() else ""
        raise ServerError(f"nginx did not start: {reason or 'it left no log'}")

    def _start_delay(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("delay.py")), str(self.ports["http"]), str(DELAY_S)]
        self._delay = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._delay.stdout is not None
        self.ports["delayed"] = int(self._delay.stdout.readline())

    def stop(self) -> None:
        if self._delay is not None:
            self._delay.communicate()  # it ends when its stdin does
            self._delay = None
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def main() -> None:
    """Serve the directory given on the command line until stdin ends; prints its URL."""
    with (
        tempfile.TemporaryDirectory(prefix="rangefetch-nginx-") as prefix,
        Server(Path(sys.argv[1]), Path(prefix)) as it,
    ):
        print(it.url("http", ""), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
