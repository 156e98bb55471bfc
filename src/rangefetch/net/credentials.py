"""Decides which hosts get which user name, password or token, from the options and the netrc file.

What the user gives for a URL is sent to its origin and to the hosts in ``location_trusted``. An entry of a netrc file
is sent to the host that it names, even if a redirect leads there. The ``default`` entry is sent only to hosts that the
user named, never to the target of a redirect.
"""

from __future__ import annotations

import binascii
import os
import stat
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

from rangefetch.disk import system
from rangefetch.errors import LocalError
from rangefetch.importing import no_fork
from rangefetch.options import DownloadOptions

__all__ = ["Login", "bearer_token", "logins", "netrc_path", "read_regular", "split_userinfo"]

_LONGEST_TOKEN_BYTES = 64 << 10


class Login(NamedTuple):
    """A user name and password, as the engine's ``Profile`` takes them. An empty ``host`` means the origin of the URL.
    With ``any_scheme``, the first request has no credentials and the server chooses between Basic and Digest, as with
    curl's ``--anyauth``.
    """

    host: str
    user: str
    password: str
    any_scheme: bool


def split_userinfo(url: str) -> tuple[str, str]:
    """Return the URL without ``user:password@`` and fragment, and the Authorization value for the userinfo, or ""."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    bare = urlunsplit(parts._replace(netloc=host, fragment=""))
    if not at:
        return bare, ""
    # RFC 7617, section 2: there is a colon even without a password.
    user, _, password = userinfo.partition(":")
    # Bytes from the command line that are not UTF-8 are surrogates here (os.fsdecode).
    octets = (each.encode("utf-8", "surrogateescape") for each in (user, password))
    credentials = b":".join(map(unquote_to_bytes, octets))
    return bare, "Basic " + binascii.b2a_base64(credentials, newline=False).decode()


def logins(url: str, options: DownloadOptions, *, is_own: bool, authorized: bool) -> tuple[Login, ...]:
    """The logins for a source at ``url``. ``is_own``: it is at the origin for which the user gave ``auth``.
    ``authorized``: an Authorization header is sent already.

    Raises ``LocalError`` if the netrc file cannot be used.
    """
    own: list[Login] = []
    if options.auth is not None and is_own and not authorized:
        own.append(Login("", *options.auth, any_scheme=True))
    if not options.netrc:
        return tuple(own)
    entries = _read_netrc(netrc_path(options))
    default = entries.pop("default", None)
    host = (urlsplit(url).hostname or "").lower()
    if default is not None and not own and not authorized and host not in entries:
        own.append(Login("", *default, any_scheme=False))
    own_host = {host} if authorized or own else set()
    return (
        *own,
        *(Login(name, *entry, any_scheme=False) for name, entry in entries.items() if name not in own_host),
    )


def _read_netrc(path: Path) -> dict[str, tuple[str, str]]:
    """User name and password by host; empty if the file does not exist. Raises ``LocalError``."""
    with no_fork:
        import netrc
    try:
        found = netrc.netrc(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except netrc.NetrcParseError as error:
        # Not the error's own message, which may contain a password.
        raise LocalError(f"{path}: cannot read it: line {error.lineno} is malformed") from None
    except (OSError, UnicodeError) as error:
        raise LocalError(f"{path}: cannot read it: {error}") from None
    return {host.lower(): (login, password) for host, (login, _account, password) in found.hosts.items()}


def netrc_path(options: DownloadOptions) -> Path:
    """The path of the netrc file. Raises ``LocalError`` if others can read the file, or it is not a regular file."""
    if options.netrc is True:
        path = Path(os.environ.get("NETRC") or os.path.expanduser("~/.netrc"))  # noqa: PTH111 - no home: no file
    else:
        path = Path(os.fspath(options.netrc or ""))
    try:
        status = path.stat()
    except OSError:
        return path
    if not stat.S_ISREG(status.st_mode):
        raise LocalError(f"{path}: it is not a regular file")
    if not system.is_private(status):
        raise LocalError(f"{path}: other users can read it; run chmod 600 on it, or turn off netrc")
    return path


def bearer_token(options: DownloadOptions) -> str:
    """The token in the ``bearer_file``; "" if the option is not set. Raises ``LocalError``."""
    if not options.bearer_file:
        return ""
    try:
        token = read_regular(options.bearer_file)[:_LONGEST_TOKEN_BYTES].decode("ascii").strip()
        if not token or not token.isprintable() or " " in token:
            raise ValueError("there is no token in it")
    except (OSError, ValueError) as error:
        raise LocalError(f"{options.bearer_file}: cannot read a token from it: {error}") from None
    return token


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """The content of a regular file. Raises ``OSError``, also for anything else, such as a device, which might block
    or never end.
    """
    fd = system.open_file(path, os.O_RDONLY)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError("it is not a regular file")
        return file.read()
