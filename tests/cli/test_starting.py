"""A small file is not worth a long start: what only some downloads need is loaded by those that need it."""

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
# Not hashlib: what is kept of a URL with a query is a hash of it.
MOST_MODULES = 176
"""One of them takes a quarter of a millisecond, ours and Python's alike; there were 188 when this was written."""

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
    """Of the formats its own, and of what other packages have added nothing: to look for them takes 20 ms."""
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
    """As ``logging`` has it where nothing was configured."""
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
    """The command puts it off while it starts; a long list must not grow without bounds."""
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
