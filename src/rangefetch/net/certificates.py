"""Finds the CA certificates that servers are verified with: a file, a directory, or both.

The environment variables are those of OpenSSL (``SSL_CERT_FILE``, ``SSL_CERT_DIR``), curl (``CURL_CA_BUNDLE``) and
requests (``REQUESTS_CA_BUNDLE``, which may be a directory).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from rangefetch import records
from rangefetch.importing import no_fork
from rangefetch.logs import log as _log
from rangefetch.options import DownloadOptions

__all__ = ["Trust", "explain", "explain_file", "find_ca_file", "find_trust"]

# Where distributions keep the bundle: Debian, Fedora, openSUSE, FreeBSD, Alpine. The libcurl bundled with pycurl only
# knows Fedora's path.
_SYSTEM_CA_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
    "/etc/ssl/cert.pem",
)
_CONDA_CA_FILES = ("ssl/cacert.pem", "ssl/cert.pem")

_told: set[tuple[str, str]] = set()  # variables and their unusable values, of which the user has been warned
_lock = threading.Lock()


@records.dataclass(frozen=True, slots=True)
class Trust:
    """A ``file`` of certificates, and a ``directory`` of them as made by ``c_rehash``; empty: none.

    If both are empty, libcurl uses the system's trust store (macOS), or nothing was found.
    """

    file: str = ""
    directory: str = ""

    def __str__(self) -> str:
        return " and ".join(each for each in (self.file, self.directory) if each) or "the system's"


def find_trust(explicit: str = "") -> Trust:
    """The certificates named by the option, or else by the environment, or else the system's.

    ``SSL_CERT_DIR`` is used in addition to a file, as in OpenSSL. If a variable names something that does not exist, it
    is ignored with one warning per process: a variable left over from a removed environment must not break everything.
    """
    if explicit:
        return Trust(explicit)
    directory = _found("SSL_CERT_DIR", wants_directory=True)
    for name in ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        path = _found(name)
        if path and Path(path).is_dir():
            return Trust(directory=path)
        if path:
            return Trust(path, directory)
    return Trust(_systems_file(), directory)


def find_ca_file(explicit: str = "") -> str:
    """The file of :func:`find_trust`, or the system's if only a directory was named. For programs that accept no
    directory.
    """
    return find_trust(explicit).file or _systems_file()


def explain(options: DownloadOptions) -> str:
    """What to append to the message about a rejected server certificate."""
    return f" (verified with the certificates in {find_trust(os.fspath(options.ca_file))})"


def explain_file(options: DownloadOptions) -> str:
    """The same as ``explain``, for programs that accept no directory."""
    return f" (verified with the certificates in {find_ca_file(os.fspath(options.ca_file)) or Trust()})"


def _found(name: str, *, wants_directory: bool = False) -> str:
    """The value of a variable, if what it names exists; otherwise ""."""
    named = os.environ.get(name, "")
    # OpenSSL accepts a list of directories.
    paths = named.split(os.pathsep) if wants_directory else [named]
    if not named or any(Path(path).is_dir() or (not wants_directory and _is_file(path)) for path in paths if path):
        return named
    with _lock:
        is_known = (name, named) in _told
        _told.add((name, named))
    if not is_known:
        _log.warning("%s names %s, which is missing or unreadable; ignored", name, named)
    return ""


def _is_file(path: str) -> bool:
    # Do not open it: if it is a FIFO, its content can be read only once, and is for libcurl.
    return Path(path).exists() and os.access(path, os.R_OK)


def _systems_file() -> str:
    if sys.platform == "darwin":
        return ""
    return next((str(path) for path in _usual_files() if path.is_file()), "") or _certifis()


def _usual_files() -> Iterator[Path]:
    yield from map(Path, _SYSTEM_CA_FILES)
    for prefix in dict.fromkeys((os.environ.get("CONDA_PREFIX", ""), sys.prefix, sys.base_prefix)):
        if prefix:
            yield from (Path(prefix) / each for each in _CONDA_CA_FILES)


def _certifis() -> str:
    try:
        with no_fork:
            import certifi
    except ImportError:
        return ""
    return str(certifi.where())
