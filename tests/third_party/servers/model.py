"""What there is to say of a server: where it comes from, how it is started, what it can do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CHECKS", "Server"]

CHECKS = ("fetch", "resume", "many", "again", "stream")
"""What every server is tried with; see ``test_servers``."""


@dataclass(frozen=True, eq=False)
class Server:
    """A program that serves a directory on a port of 127.0.0.1 for as long as it runs.

    In ``command``, ``files`` and ``environment`` these marks are replaced: ``@PORT@`` by the port, ``@ROOT@`` by the
    directory to serve, ``@WORK@`` by the one the server runs in, ``@PACKAGES@`` by the one with the packages of PyPI or
    npm, ``@PYTHON@`` by this Python, ``@ORIGIN@`` by the port of a server that serves the same files over http, and
    ``@CERTIFICATE@``, ``@KEY@`` and ``@PEM@`` (both in one) by files for 127.0.0.1.
    """

    name: str
    command: str
    """Words as in a shell. It must stay in the foreground."""
    debian: tuple[str, ...] = ()
    """The packages it needs; the first is the server."""
    pypi: tuple[str, ...] = ()
    """The same as requirements of pip."""
    npm: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Configurations and programs, by name, which are put in the directory that it runs in."""
    environment: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "http"
    proxy: bool = False
    """It is the proxy through which the origin is asked."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the downloads."""
    ranges: bool = True
    """Whether it sends parts of a file; else nothing of an interrupted download can be kept."""
    checks: tuple[str, ...] = CHECKS
    known: Mapping[str, str] = field(default_factory=dict)
    """The checks that fail, each with the reason. One that passes nevertheless is an error in this table."""

    def __str__(self) -> str:
        return self.name
