"""Runs a server: installs, configures and starts it, and ends it with all its child processes."""

import contextlib
import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from servers.nginx import Nginx
from servers.tls import Certificates
from support.ports import PORTS
from third_party.obtaining import npm_directory, npm_package, pypi_directory, pypi_packages, unavailable
from third_party.servers.model import Server

__all__ = ["Running", "installed", "packages_of", "serving"]

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0
_START_TRIES = 2  # another process may take the port before the server does
_READY = "ready.txt"


class _NotStartedError(Exception):
    """The server did not start. The message includes its output."""


@dataclass(frozen=True)
class Running:
    """A server that is answering requests."""

    server: Server
    base: str
    """The URL of the directory."""
    options: dict[str, Any]
    """The options that a download from it needs."""

    def url(self, name: str) -> str:
        """The URL of one of the files."""
        return f"{self.base}/{name}"


@contextlib.contextmanager
def serving(server: Server, contents: Mapping[str, bytes], certificates: Certificates) -> Iterator[Running]:
    """Run the server with these files for the block. Skips the test if the server cannot be installed."""
    packages = installed(server)
    with contextlib.ExitStack() as stack:
        # Servers drop root privileges, so their files and directories must be accessible to others.
        directory = Path(tempfile.mkdtemp(prefix="third-party-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        directory.chmod(0o755)
        root = directory / "root"
        root.mkdir(mode=0o755)
        token = uuid.uuid4().hex
        for name, content in {_READY: token.encode(), **contents}.items():
            (root / name).write_bytes(content)
        origin = 0
        if any("@ORIGIN@" in text for text in _texts(server)) or server.proxy:
            nginx = stack.enter_context(Nginx())
            for file in root.iterdir():
                shutil.copy2(file, nginx.root / file.name)
            origin = nginx.http_port
        for tries_left in reversed(range(_START_TRIES)):
            work = directory / f"work{tries_left}"
            work.mkdir()
            work.chmod(0o777)
            marks = _marks(root, work, packages, origin, certificates)
            try:
                stack.enter_context(_process(server, marks, token))
                break
            except _NotStartedError:
                if not tries_left:
                    raise
        port = origin if server.proxy else marks["@PORT@"]
        options = dict(server.options)
        if server.proxy:
            options["proxy"] = f"http://127.0.0.1:{marks['@PORT@']}"
        if server.scheme == "https":
            options["ca_file"] = str(certificates.ca)
        yield Running(server, f"{server.scheme}://127.0.0.1:{port}", options)


def installed(server: Server) -> Path:
    """The directory of its packages, which are fetched if necessary. Skips the test if they are unavailable."""
    program = shlex.split(server.command)[0]
    if "@" not in program and not shutil.which(program, path=_path()):
        unavailable(f"{program} is not there: apt-get install {' '.join(server.debian)}")
    if server.pypi:
        pypi_packages(*_of_pypi(server))
    if server.npm:
        npm_package(*server.npm)
    return packages_of(server)


def packages_of(server: Server) -> Path:
    """Where its packages from PyPI or npm are, or will be; an arbitrary path if it needs none."""
    return npm_directory(*server.npm) if server.npm else pypi_directory(*_of_pypi(server))


def _of_pypi(server: Server) -> tuple[str, Sequence[str]]:
    return "server-" + re.sub(r"\W+", "-", server.name), server.pypi


def _marks(root: Path, work: Path, packages: Path, origin: int, certificates: Certificates) -> dict[str, str]:
    pem = work / "both.pem"
    pem.write_bytes(certificates.certificate.read_bytes() + certificates.key.read_bytes())
    key = work / "server.key"
    shutil.copyfile(certificates.key, key)
    certificate = work / "server.pem"
    shutil.copyfile(certificates.certificate, certificate)
    return {
        "@PORT@": str(next(PORTS)),
        "@ROOT@": str(root),
        "@WORK@": str(work),
        "@PACKAGES@": str(packages),
        "@PYTHON@": sys.executable,
        "@ORIGIN@": str(origin),
        "@CERTIFICATE@": str(certificate),
        "@KEY@": str(key),
        "@PEM@": str(pem),
    }


def _texts(server: Server) -> list[str]:
    return [server.command, *server.files.values(), *server.environment.values()]


@contextlib.contextmanager
def _process(server: Server, marks: Mapping[str, str], token: str) -> Iterator[None]:
    def filled(text: str) -> str:
        for mark, value in marks.items():
            text = text.replace(mark, value)
        return text

    work = Path(marks["@WORK@"])
    for name, text in server.files.items():
        (work / name).write_text(filled(text))
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"PATH": _path(), "HOME": str(work), "TMPDIR": str(work), "NODE_ENV": "production"}
    if server.pypi:
        environment["PYTHONPATH"] = marks["@PACKAGES@"]
    if server.npm:
        environment["NODE_PATH"] = str(Path(marks["@PACKAGES@"], "node_modules"))
    environment |= {name: filled(value) for name, value in server.environment.items()}
    with (work / "output").open("wb") as output:
        process = subprocess.Popen(
            [filled(word) for word in shlex.split(server.command)],
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not _answers(server, marks, token):
            if process.poll() is not None or time.monotonic() > deadline:
                said = (work / "output").read_text(errors="replace")[-4000:]
                raise _NotStartedError(f"{server.name} does not start (status {process.poll()}):\n{said}")
            time.sleep(0.05)
        yield
    finally:
        _end(process)


def _answers(server: Server, marks: Mapping[str, str], token: str) -> bool:
    """Whether it serves the file that we have just created, since another program may be answering at the port."""
    port = int(marks["@PORT@"])
    try:
        if server.scheme == "ftp":
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                return connection.recv(3) == b"220"
        if server.options.get("http_version") == "2":
            # http.client speaks only HTTP/1.1, which some servers do not.
            with (
                socket.create_connection(("127.0.0.1", port), 5) as plain,
                ssl._create_unverified_context().wrap_socket(plain),
            ):
                return True
        client = (
            http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=ssl._create_unverified_context())
            if server.scheme == "https"
            else http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        )
        with contextlib.closing(client):
            address = f"http://127.0.0.1:{marks['@ORIGIN@']}/{_READY}" if server.proxy else f"/{_READY}"
            client.request("GET", address)
            return bool(client.getresponse().read() == token.encode())
    except (OSError, http.client.HTTPException):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all its descendants, including those in other sessions."""
    family = [process.pid]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    alive = [psutil.Process(pid) for pid in family if psutil.pid_exists(pid)]
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


def _path() -> str:
    """The PATH, and after it the directories where distributions put servers, which a user's PATH often lacks."""
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"
