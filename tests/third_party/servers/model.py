"""The description of a server: where it comes from, how it is started, and what it can do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CHECKS", "Server"]

CHECKS = ("fetch", "resume", "many", "again", "stream")
"""The checks that a server goes through unless it lists its own; see ``test_servers``."""


@dataclass(frozen=True, eq=False)
class Server:
    """A program that serves a directory on a port of 127.0.0.1 for as long as it runs.

    These marks are replaced in ``command``, ``files`` and ``environment``: ``@PORT@`` by the port, ``@ROOT@`` by the
    directory to serve, ``@WORK@`` by the server's working directory, ``@PACKAGES@`` by the directory of its packages
    from PyPI or npm, ``@PYTHON@`` by this Python, ``@ORIGIN@`` by the port of a server that serves the same files over
    http, and ``@CERTIFICATE@``, ``@KEY@`` and ``@PEM@`` (both in one) by files for 127.0.0.1.
    """

    name: str
    command: str
    """Split into words as in a shell. The program must stay in the foreground."""
    debian: tuple[str, ...] = ()
    """The Debian packages it needs; the first is the server."""
    pypi: tuple[str, ...] = ()
    """The same from PyPI, as pip requirements."""
    npm: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    """Configuration files and programs, by name, to be written to its working directory."""
    environment: Mapping[str, str] = field(default_factory=dict)
    scheme: str = "http"
    proxy: bool = False
    """Whether it is a proxy, through which the files are fetched from the origin."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options for the downloads."""
    ranges: bool = True
    """Whether it serves byte ranges. If not, nothing of an interrupted download can be kept."""
    checks: tuple[str, ...] = CHECKS
    known: Mapping[str, str] = field(default_factory=dict)
    """The checks that are known to fail, with the reason. If one of them passes, that is an error in this table."""

    def __str__(self) -> str:
        return self.name
