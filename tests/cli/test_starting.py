"""A small file is not worth a slow start: modules that only some downloads need are loaded by those downloads."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from servers.misbehaving import MisbehavingServer, content
from support import children

HEAVY = {
    *("ast", "asyncio", "base64", "bz2", "concurrent.futures", "dataclasses", "email", "http.client"),
    *("http.cookiejar", "importlib.metadata", "importlib.resources", "inspect", "json", "logging", "lzma", "netrc"),
    *("numpy", "platformdirs", "psutil", "pycurl", "rich", "selectors", "shutil", "socket", "ssl", "subprocess"),
    *("tempfile", "traceback", "urllib.request", "xml"),
    *("rangefetch.aio", "rangefetch.aria2.backend", "rangefetch.bulk", "rangefetch.native.task"),
    *("rangefetch.running", "rangefetch.session", "sqlite3", "tomllib"),
}
# hashlib is allowed: a saved URL has a hash in place of its query.
MOST_MODULES = 176
"""Loading a module takes about a quarter of a millisecond, whether it is one of ours or of Python's."""

RUN = """
import sys
before = set(sys.modules)
from rangefetch.cli.main import run
status = run()
new = set(sys.modules) - before
print(status, len(new))
print(*sorted(new))
"""


@pytest.mark.parametrize("options", [["-q"], []], ids=["quiet", "plain lines"])
def test_a_small_file_loads_nothing_heavy(server: MisbehavingServer, place: Path, options: list[str]) -> None:
    done = children.run(RUN, *options, "-d", place, server.url("/good/file.bin", size=16384))
    assert (place / "file.bin").read_bytes() == content(16384), done.stderr
    path, counts, loaded = done.stdout.splitlines()
    status, count = map(int, counts.split())
    assert (path, status) == (str(place / "file.bin"), 0)
    assert set(loaded.split()) & HEAVY == set()
    assert count <= MOST_MODULES


def test_a_list_of_urls_loads_little_more(server: MisbehavingServer, place: Path) -> None:
    """Loads only the format of URL lists, and does not search for formats of other packages, which takes 20 ms."""
    (place / "list").write_text(
        f"# two of them\n{server.url('/good/a.bin', size=16384)}\n\n{server.url('/good/b.bin')}\n"
    )
    done = children.run(RUN, "-q", "-d", place, "-i", place / "list")
    assert (place / "a.bin").read_bytes() == content(16384), done.stderr
    status, count = map(int, done.stdout.splitlines()[-2].split())
    loaded = set(done.stdout.splitlines()[-1].split())
    assert status == 0
    assert loaded & (HEAVY - {"json"}) == set()
    assert {each for each in loaded if each.startswith("rangefetch.manifests.")} == {
        f"rangefetch.manifests.{each}" for each in ("formats", "item", "opening", "reading", "urls")
    }
    assert count <= MOST_MODULES + 14


def test_a_warning_is_heard_although_logging_comes_with_it(server: MisbehavingServer, place: Path) -> None:
    (place / "cookies").write_text("a.example\tFALSE\t/\tFALSE\t0\tname\tvalue\nno cookie\n")
    url = server.url("/good/file.bin", size=16384)
    done = children.run(RUN, "-d", place, "--load-cookies", place / "cookies", url)
    assert "warning: " in done.stderr
    assert "logging" in done.stdout.split()


def test_a_program_that_does_not_log_hears_warnings_on_stderr(server: MisbehavingServer, place: Path) -> None:
    """``logging`` prints warnings to stderr when it has not been configured."""
    (place / "cookies").write_text("a.example\tFALSE\t/\tFALSE\t0\tname\tvalue\nno cookie\n")
    done = children.run(
        """
        import sys
        from rangefetch import fetch
        assert "logging" not in sys.modules
        fetch(sys.argv[1], sys.argv[2], cookies=sys.argv[3])
        """,
        server.url("/good/file.bin", size=16384), place / "file.bin", place / "cookies",
    )  # fmt: skip
    assert str(place / "cookies") in done.stderr
    assert (place / "file.bin").stat().st_size == 16384


def test_a_collection_of_garbage_still_comes(place: Path) -> None:
    """The command delays collections while it starts, but memory must not grow without bounds in a long list."""
    done = children.run(
        """
        import gc, os, sys
        from rangefetch.cli import main
        os._exit = lambda status: print(status, gc.isenabled(), gc.get_threshold()[0])
        sys.argv = ["rangefetch", "--version"]
        main.main()
        """
    )
    assert done.stdout.splitlines()[-1] == "0 True 100000", sys.version
