"""No argument can inject a header line or a command: it causes one error, before any request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from backends.conftest import Make
from rangefetch import DownloadManager, aio
from servers.ftp import FtpServer
from servers.misbehaving import MisbehavingServer
from support.command_line import errors, run
from support.files import names

BREAKS = ["\r\nX-Mine: 1", "\nX-Mine: 1", "\rX-Mine: 1", "\0X-Mine: 1", "\r\n\r\nGET /other HTTP/1.1"]

OPTIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "the value of a header": lambda broken: {"headers": {"X-A": f"b{broken}"}},
    "the name of a header": lambda broken: {"headers": {f"X-A{broken}": "b"}},
    "a header line": lambda broken: {"headers": [f"X-A: b{broken} "]},
    "a cookie": lambda broken: {"headers": {"Cookie": f"a=b{broken}"}},
    "the referer": lambda broken: {"headers": {"Referer": f"http://h/{broken}"}},
    "the user agent": lambda broken: {"user_agent": f"me{broken}"},
    "the proxy": lambda broken: {"proxy": f"http://127.0.0.1:9{broken}"},
    "the user at the proxy": lambda broken: {"proxy": f"http://me{broken}:x@127.0.0.1:9"},
    "what needs no proxy": lambda broken: {"no_proxy": f"h{broken}"},
    "the user": lambda broken: {"auth": (f"me{broken}", "x")},
    "the password": lambda broken: {"auth": ("me", f"x{broken}")},
    "a mirror": lambda broken: {"mirrors": [f"http://127.0.0.1:9/{broken}"]},
    "a trusted host": lambda broken: {"location_trusted": [f"h{broken}"]},
    "an address": lambda broken: {"bind_address": f"127.0.0.1{broken}"},
    "a name": lambda broken: {"filename": f"x{broken}"},
}
URLS: list[Callable[[str, str], str]] = [
    lambda url, broken: f"{url}{broken}",
    lambda url, broken: f"{url}?a={broken}",
    lambda url, broken: f"{url}#{broken}",
    lambda url, broken: url.replace("://", f"://me{broken}:x@"),
    lambda url, broken: url.replace("://", f"://me:x{broken}@"),
    lambda url, broken: url.replace("127.0.0.1", f"127.0.0.1{broken}"),
]


@pytest.fixture
def server(server: MisbehavingServer) -> Iterator[MisbehavingServer]:
    """A server that must never receive a request."""
    yield server
    assert server.connections == 0


def _refused(function: Callable[..., object], *arguments: Any, **options: Any) -> None:
    """Check that the call raises one error with a printable, one-line message."""
    with pytest.raises(ValueError, match=r"^[a-z_]+(\[0\])?: ") as caught:
        function(*arguments, **options)
    assert str(caught.value).isprintable(), str(caught.value)


def _wrong_options() -> list[dict[str, Any]]:
    return [make(broken) for make in OPTIONS.values() for broken in BREAKS]


def _wrong_urls(url: str) -> list[str]:
    return [make(url, broken) for make in URLS for broken in BREAKS]


def test_no_option_of_a_download(manager: DownloadManager, server: MisbehavingServer, target: Path) -> None:
    for options in _wrong_options():
        _refused(manager.download, server.url("/good"), {"save_dir": target.parent} | options)
        _refused(DownloadManager, defaults=options)
    for url in _wrong_urls(server.url("/good")):
        _refused(manager.download, url, {"save_dir": target.parent})
    assert manager.list_downloads() == []
    assert names(target.parent) == []


def test_no_option_that_is_changed_later(manager: DownloadManager, target: Path) -> None:
    # Nothing listens on this port.
    gid = manager.download("http://127.0.0.1:9/x", {"save_dir": target.parent, "max_tries": 0})
    manager.pause(gid)
    for options in _wrong_options():
        _refused(manager.change_options, gid, **options)
    manager.cancel(gid, remove_files=True)


def test_no_other_way_of_asking(server: MisbehavingServer, target: Path) -> None:
    async def wait_for_it(url: str, options: dict[str, Any]) -> None:
        await aio.fetch(url, target, **options)

    good = server.url("/good")
    asked = [(good, options) for options in _wrong_options() if "filename" not in options]
    for url, options in [*asked, *((each, {}) for each in _wrong_urls(good))]:
        _refused(rangefetch.fetch, url, target, **options)
        _refused(rangefetch.fetch_many, [url], target.parent, **options)
        _refused(rangefetch.fetch_many, [(url, options)], target.parent)
        _refused(asyncio.run, wait_for_it(url, options))
        if "mirrors" not in options:
            _refused(rangefetch.head, url, **options)
            _refused(rangefetch.stream, url, **options)
    assert names(target.parent) == []


@pytest.mark.parametrize("broken", ["\r\nX-Mine: 1", "\nX-Mine: 1", "\rX-Mine: 1"])
def test_no_word_of_the_command(server: MisbehavingServer, tmp_path: Path, broken: str) -> None:
    url = server.url("/good")
    for words in (
        ["--header", f"X-A: b{broken}", url],
        ["--user-agent", f"me{broken}", url],
        ["--referer", f"http://h/{broken}", url],
        ["--proxy", f"http://me{broken}@127.0.0.1:9", url],
        ["--http-user", f"me{broken}", "--http-passwd", "x", url],
        ["--mirror", f"{url}{broken}", url],
        [f"{url}{broken}"],
    ):
        said = run(tmp_path, "-o", "file", *words)
        assert said.returncode == 2, said
        assert len(errors(said)) == 1
    assert names(tmp_path) == []


@pytest.mark.parametrize("broken", ["\\r\\nX-Mine: 1", "\\u0000X-Mine: 1"])
def test_no_line_of_a_file(server: MisbehavingServer, tmp_path: Path, broken: str) -> None:
    configuration = tmp_path / "config.toml"
    configuration.write_text(f'user-agent = "me{broken}"\n')
    said = run(tmp_path, "--conf-path", configuration, "-o", "file", server.url("/good"))
    assert (said.returncode, len(errors(said))) == (2, 1), said
    token = tmp_path / "token"
    token.write_text(f"abc{json.loads(chr(34) + broken + chr(34))}")
    said = run(tmp_path, "--bearer-file", token, "-o", "file", server.url("/good"))
    assert said.returncode != 0
    assert len(errors(said)) == 1
    assert names(tmp_path) == ["config.toml", "token"]


def test_nothing_in_a_session(manage: Make, server: MisbehavingServer, tmp_path: Path) -> None:
    def entry(number: int, url: str, options: dict[str, Any]) -> dict[str, Any]:
        given = {"save_dir": str(tmp_path), "filename": f"f{number}"} | options
        gid, name = f"{number:016x}", f"f{number}"
        return {"gid": gid, "url": url, "status": "waiting", "filename": name, "options": given, "begun": False}

    url = server.url("/good")
    wrong = [(url, options) for options in _wrong_options()]
    wrong += [(each, {}) for each in _wrong_urls(url)]
    path = tmp_path / "session"
    entries = [entry(number, each, options) for number, (each, options) in enumerate(wrong)]
    path.write_text(json.dumps({"version": 1, "downloads": entries}))
    path.chmod(0o600)
    with manage(session_file=path) as manager:
        assert manager.list_downloads() == []


@pytest.mark.parametrize("octet", ["%0d%0a", "%0A", "%0D", "%00"])
@pytest.mark.parametrize("url", ["ftp://127.0.0.1:{0}/a{1}DELE%20b", "ftp://me{1}DELE%20b:x@127.0.0.1:{0}/a"])
def test_no_url_of_ftp_is_a_command(make: Make, target: Path, url: str, octet: str) -> None:
    """aria2 decodes the URL before it sends parts of it as command lines."""
    with FtpServer(b"x" * 100) as ftp:
        given = url.format(ftp.port, octet)
        _refused(make("aria2").download, given, {"save_dir": target.parent})
        assert ftp.commands == []
