"""aria2p's own tests, run with an aria2c that our backend starts, configures and watches (``Aria2Daemon``).

aria2p's fixture starts an aria2c of its own. Here that is our daemon, and the downloads in aria2p's session files are
added through RPC, with the same ids. Tests that need a configuration other than ours are skipped.
"""

import sys
from pathlib import Path
from typing import Any

import aria2p
import pytest

from rangefetch.aria2.config import DaemonConfig
from rangefetch.aria2.daemon import Aria2Daemon

_SECRET = "third-party"


class OurDaemon:
    """Replaces aria2p's class ``Aria2Server``."""

    def __init__(
        self,
        tmp_dir: Path,
        port: int,
        config: Any = None,
        session: str | Path | list[str] | None = None,
        secret: str = "",
    ) -> None:
        if config or secret:
            pytest.skip("needs an aria2c with another configuration")
        self.tmp_dir = tmp_dir
        self._session = session
        self._daemon = Aria2Daemon(
            DaemonConfig(rpc_port=port, rpc_secret=_SECRET, state_dir=tmp_dir.parent / f"state-{port}")
        )

    def start(self) -> None:
        self._daemon.start()
        self.port = self._daemon.port
        self.client = aria2p.Client(port=self.port, secret=_SECRET, timeout=20)
        self.api = aria2p.API(self.client)
        # As in aria2p's default.conf: files must still be downloading when a test looks a tenth of a second later.
        theirs = {"max-download-limit": "10000", "max-concurrent-downloads": "2"}
        self.client.change_global_option({"dir": str(self.tmp_dir), **theirs})
        tests = sys.modules["tests"]
        lines = self._session or []
        if not isinstance(lines, list):
            lines = (tests.SESSIONS_DIR / lines).read_text().splitlines()
        for uris, options in _entries(lines):
            self.client.add_uri(uris, options)

    def kill(self) -> None:
        self._daemon.stop()

    terminate = wait = kill

    def destroy(self, *, force: bool = False) -> None:
        self.kill()

    def __enter__(self) -> "OurDaemon":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _entries(lines: list[str]) -> list[tuple[list[str], dict[str, str]]]:
    """The entries of an aria2 input file: a line of URIs, followed by indented lines with their options."""
    entries: list[tuple[list[str], dict[str, str]]] = []
    for line in lines:
        if line.startswith((" ", "\t")):
            name, _, value = line.strip().partition("=")
            entries[-1][1][name] = value
        elif line.strip():
            entries.append((line.split("\t"), {}))
    return entries


def pytest_collection_modifyitems() -> None:
    """Replace the class in each of aria2p's test modules, which have imported it by now."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "tests" and hasattr(module, "Aria2Server"):
            module.Aria2Server = OurDaemon  # type: ignore[attr-defined]  # replaced in a module of another's tests
