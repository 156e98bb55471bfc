"""A file never mixes two versions, and comes from the given URL. aria2 itself compares neither validators nor bytes."""

import functools
import hashlib
import logging
import os
import signal
import urllib.request
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from aria2.driving import Desk, downloaded
from rangefetch.aria2.backend import Aria2Backend
from rangefetch.aria2.remote import ask
from rangefetch.disk import provenance, state
from rangefetch.errors import BadAnswer, ContentChanged, DownloadError, TargetExists
from rangefetch.net.sources import Sources
from rangefetch.options import DownloadOptions
from rangefetch.transfer import governor
from rangefetch.transfer.download import Download
from servers.misbehaving import MisbehavingServer, content
from servers.routing import ROUTES, Ask, Route
from servers.wire import Reply
from support.files import MIB, names
from support.waiting import until

SIZE = 6 * MIB + 12_345
KINDS: dict[str, dict[str, Any]] = {
    "strong": {},
    "weak": {"etag": "weak"},
    "date": {"etag": "none"},
    "none": {"etag": "none", "mtime": 0},
}


def _steps(route: str, **parameters: Any) -> str:
    return ":".join([route, *(f"{name}={value}" for name, value in parameters.items())])


def _paused(desk: Desk, server: MisbehavingServer, target: Path, now: str, then: str, **options: Any) -> Download:
    """A download that was stopped after some MiB of ``now``. Its next requests get ``then``."""
    steps = "|".join([now] * 3)
    url = server.url("/script/x", size=SIZE, steps=steps, then=then)
    download = desk.begin(url, target, split=1, **options)
    until(lambda: downloaded(download) > 2 * MIB)
    desk.halt(download)
    while sum("/script/" in request.path for request in server.requests) < 3:
        _spend(url)
    return download


def _spend(url: str) -> None:
    """Make a request that uses up a step of the script."""
    request = urllib.request.Request(url, headers={"Range": "bytes=0-0"})
    with urllib.request.urlopen(request) as answer:
        answer.read()


# ---- Resuming ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("later", ["strong", "weak", "date", "none"])
def test_another_version_never_joins_what_was_saved(
    desk: Desk, server: MisbehavingServer, target: Path, kind: str, later: str
) -> None:
    now = _steps("slow", rate="4M", **KINDS[kind])
    download = _paused(desk, server, target, now, _steps("good", seed=1, **KINDS[later]))
    result = desk.wait(desk.begin_again(download))
    assert target.read_bytes() == content(SIZE, 1)
    assert result.resumed == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_version_is_gone_on_with(desk: Desk, server: MisbehavingServer, target: Path, kind: str) -> None:
    now = _steps("slow", rate="4M", **KINDS[kind])
    download = _paused(desk, server, target, now, _steps("good", **KINDS[kind]))
    assert desk.wait(desk.begin_again(download)).resumed > MIB
    assert target.read_bytes() == content(SIZE)


def test_a_strong_etag_that_disappears_is_another_version(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    download = _paused(desk, server, target, _steps("slow", rate="4M"), _steps("good", etag="none"))
    assert desk.wait(desk.begin_again(download)).resumed == 0
    assert target.read_bytes() == content(SIZE)


# ---- A complete part file ------------------------------------------------------------------------------------------


def test_a_whole_part_is_published_only_when_the_server_has_confirmed_it(
    desk: Desk, server: MisbehavingServer, target: Path
) -> None:
    steps = "|".join(["good", "good", *["status:code=503"] * 2])
    url = server.url("/script/x", size=SIZE, steps=steps, then="good")
    download = desk.begin(url, target, split=1, max_tries=1)
    with pytest.raises(DownloadError):
        desk.wait(download)
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]
    with pytest.raises(DownloadError):  # the server still cannot confirm it
        desk.wait(desk.begin_again(download))
    assert names(target.parent) == ["file.bin.part", "file.bin.part.json"]
    assert desk.wait(desk.begin_again(download)).resumed == SIZE
    assert target.read_bytes() == content(SIZE)


def test_a_whole_part_of_another_version_is_not_published(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    weak = "etag=none:mtime=0"
    steps = "|".join([f"good:{weak}", f"good:{weak}", "status:code=503"])
    url = server.url("/script/x", size=SIZE, steps=steps, then=f"good:{weak}:seed=1")
    download = desk.begin(url, target, split=1, max_tries=1)
    with pytest.raises(DownloadError):
        desk.wait(download)
    desk.wait(desk.begin_again(download))
    assert target.read_bytes() == content(SIZE, 1)


# ---- While it runs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_changes_while_it_is_fetched_is_one_version(
    desk: Desk, server: MisbehavingServer, target: Path, kind: str
) -> None:
    old = _steps("slow", rate="4M", **KINDS[kind])
    steps = "|".join([old, old, old])
    url = server.url("/script/x", size=SIZE, steps=steps, then=_steps("good", seed=1, **KINDS[kind]))
    desk.fetch(url, target, split=4, min_split_size="1M")
    assert target.read_bytes() == content(SIZE, 1)


def _kill(desk: Desk, url: str) -> None:
    backend = desk.backend
    assert isinstance(backend, Aria2Backend)
    (daemon,) = backend._daemons.values()
    os.kill(daemon.pid, signal.SIGKILL)


def _have_the_host_rest(desk: Desk, url: str) -> None:
    governor.rest(governor.host_of_connection(url, DownloadOptions()), 1.0)


@pytest.mark.parametrize("interrupt", [_kill, _have_the_host_rest])
def test_what_comes_after_an_interruption_on_the_way_is_a_further_response(
    own_desk: Desk, server: MisbehavingServer, target: Path, interrupt: Callable[[Desk, str], None]
) -> None:
    # The first request and aria2's get the old version. Only the bytes of the versions differ.
    old = _steps("slow", rate="1M", **KINDS["none"])
    url = server.url("/script/x", size=SIZE, steps=f"{old}|{old}", then=_steps("good", seed=1, **KINDS["none"]))
    download = own_desk.begin(url, target, split=1)
    until(lambda: downloaded(download) > MIB)
    interrupt(own_desk, url)
    own_desk.wait(download)
    assert target.read_bytes() == content(SIZE, 1)


# ---- Bodies that are not what the headers say -----------------------------------------------------------------------


def test_a_part_that_is_sent_as_the_whole_is_not_published(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    with pytest.raises(DownloadError):
        desk.fetch(server.url("/good/x", size=MIB), target, expected_size=SIZE)
    assert "file.bin" not in names(target.parent)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("none", f"{MIB} bytes as the whole file, which had {SIZE} before"), ("strong", "a response without a validator")],
)
def test_a_body_shorter_than_the_file_was_is_not_all_of_it_after_starting_over_either(
    desk: Desk, server: MisbehavingServer, target: Path, kind: str, words: str
) -> None:
    # The first request; a transfer that breaks off; the first request again, which shows another file; then fewer
    # bytes than the file had.
    first, broken = _steps("good", **KINDS[kind]), _steps("cut", after=MIB, **KINDS[kind])
    other = _steps("good", seed=1, size=SIZE + 1, **KINDS[kind])
    less = _steps("no-ranges", size=MIB, **KINDS["none"])
    url = server.url("/script/x", size=SIZE, steps=f"{first}|{broken}|{other}", then=less)
    error = desk.fails(BadAnswer, url, target, split=1, max_tries=2)
    assert words in str(error)
    assert "file.bin" not in names(target.parent)


def _with_a_long_etag(ask: Ask, reply: Reply) -> Reply:
    reply.headers["ETag"] = '"' + "x" * state.MOST_VALIDATOR_BYTES + '"'
    return reply


@pytest.mark.parametrize("split", [1, 8])
def test_a_validator_too_long_to_be_saved_makes_one_stream(
    desk: Desk, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, split: int
) -> None:
    monkeypatch.setitem(ROUTES, "long-etag", Route("long-etag", _with_a_long_etag, {}))
    url = server.url("/long-etag/x", size=SIZE)
    remote = ask(Sources(url)[0], DownloadOptions())
    assert (remote.size, remote.ranged, remote.identity.etag) == (SIZE, False, "")
    result = desk.fetch(url, target, split=split, min_split_size="1M")
    assert target.read_bytes() == content(SIZE)
    assert result.identity == "one response"


# ---- Mirrors -------------------------------------------------------------------------------------------------------


def test_a_mirror_with_other_bytes_is_left_out_and_named(
    desk: Desk,
    server: MisbehavingServer,
    other_server: MisbehavingServer,
    target: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "rangefetch")
    mirror = other_server.url("/good/x", size=SIZE, seed=1)
    url = server.url("/shared-rate/x", size=SIZE, rate="1M")
    desk.fetch(url, target, mirrors=[mirror], min_split_size="1M")
    assert target.read_bytes() == content(SIZE)
    assert f"the mirror {mirror} is left out" in caplog.text
    assert other_server.bytes_sent < MIB


def test_a_mirror_with_the_same_bytes_is_used(
    desk: Desk, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    # With another host name, because aria2 treats all ports of a host as one server.
    mirror = other_server.url("/good/x", size=SIZE).replace("127.0.0.1", "localhost")
    url = server.url("/shared-rate/x", size=SIZE, rate="768K")
    result = desk.fetch(url, target, mirrors=[mirror], min_split_size="1M", max_connection_per_server=2)
    assert target.read_bytes() == content(SIZE)
    assert result.sources == (url, mirror)
    assert other_server.bytes_sent > MIB


def test_mirrors_that_the_server_names_are_compared_with_it(
    desk: Desk, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    link = f"Link: <{other_server.url('/good/x', size=SIZE, seed=1)}>; rel=duplicate; pri=1"
    try:
        desk.fetch(server.url("/slow/x", size=SIZE, rate="2M", header=link), target, min_split_size="1M")
    except ContentChanged:
        assert "file.bin" not in names(target.parent)
    else:
        assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("size", [SIZE, SIZE + MIB])
def test_a_mirror_that_answers_first_does_not_decide_what_the_file_is(
    desk: Desk, server: MisbehavingServer, other_server: MisbehavingServer, target: Path, size: int
) -> None:
    mirror = other_server.url("/good/x", size=size, seed=1)
    desk.fetch(server.url("/status/x", size=SIZE, code=503, times=2), target, mirrors=[mirror])
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("code", [404, 503])
def test_where_the_url_never_answers_its_mirrors_may(
    desk: Desk,
    server: MisbehavingServer,
    other_server: MisbehavingServer,
    target: Path,
    code: int,
) -> None:
    mirror = other_server.url("/good/x", size=SIZE)
    result = desk.fetch(server.url("/status/x", code=code), target, mirrors=[mirror], max_tries=2)
    assert target.read_bytes() == content(SIZE)
    assert result.sources == (mirror,)


@pytest.mark.parametrize("size", [SIZE, SIZE + MIB])
def test_a_mirror_does_not_undo_what_the_url_has_given(
    desk: Desk, server: MisbehavingServer, other_server: MisbehavingServer, target: Path, size: int
) -> None:
    mirror = other_server.url("/good/x", size=size, seed=1)
    download = _paused(
        desk, server, target, _steps("slow", rate="4M"), "status:code=404", mirrors=[mirror], max_tries=2
    )
    with pytest.raises(ContentChanged, match="no URL or mirror still has"):
        desk.wait(desk.begin_again(download))
    assert state.load(target.with_name("file.bin.part.json")).written_bytes > MIB


# ---- Files that already have the name -------------------------------------------------------------------------------


def test_a_file_of_the_same_size_and_time_is_not_the_same(
    desk: Desk, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (server.url("/good/x", size=SIZE, etag="none", id=number) for number in (1, 2))
    desk.fetch(first, target)
    desk.fails(TargetExists, second, target)  # the file was just written from another URL
    monkeypatch.setattr(provenance, "_written", {})
    assert desk.fetch(second, target).already_complete
    octets = bytearray(target.read_bytes())
    octets[MIB:] = bytes(255 - octet for octet in octets[MIB:])
    modified = target.stat().st_mtime
    target.write_bytes(octets)
    os.utime(target, (modified, modified))
    desk.fails(TargetExists, second, target)
    assert target.read_bytes() == octets


def test_an_equal_size_without_a_date_is_settled_by_bytes(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/no-validator/x", size=SIZE)
    desk.fetch(url, target)
    assert desk.fetch(url, target).already_complete
    other = server.url("/no-validator/x", size=SIZE, seed=1)
    desk.fails(TargetExists, other, target)


def test_an_empty_file_without_a_date_is_there_the_second_time(
    desk: Desk, server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/empty/x", mtime=0)
    desk.fetch(url, target)
    assert desk.fetch(url, target).already_complete


# ---- Parts that are sent with status 200 ----------------------------------------------------------------------------


def _as_200(ask: Ask, reply: Reply, *, most: int = 0, bare: bool = False) -> Reply:
    """Sends a 206 response with status 200. A request without Range gets only ``most`` bytes, if that is given."""
    if most and reply.status == HTTPStatus.OK and ask.method == "GET":
        reply.body = reply.body[:most]
        reply.headers["Content-Range"] = f"bytes 0-{most - 1}/{ask.common.size}"
    reply.status = HTTPStatus.OK
    if bare:
        reply.headers.pop("Content-Range", None)
    return reply


@pytest.fixture
def _routes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, options in (("as-200", {}), ("part-200", {"most": 4 * MIB}), ("bare-200", {"bare": True})):
        fault = functools.partial(_as_200, **options)
        monkeypatch.setitem(ROUTES, name, Route(name, fault, {}))


@pytest.mark.usefixtures("_routes")
@pytest.mark.parametrize("route", ["as-200", "part-200", "bare-200"])
@pytest.mark.parametrize("kind", ["strong", "none"])
@pytest.mark.parametrize("split", [1, 8])
def test_a_part_with_status_200_is_never_the_whole(
    desk: Desk, server: MisbehavingServer, target: Path, route: str, kind: str, split: int
) -> None:
    url = server.url(f"/{route}/x", size=SIZE, **KINDS[kind])
    try:
        desk.fetch(url, target, split=split, min_split_size="1M", max_tries=2)
    except DownloadError:
        assert "file.bin" not in names(target.parent)
    else:
        assert target.read_bytes() == content(SIZE)


@pytest.mark.usefixtures("_routes")
@pytest.mark.parametrize(("route", "ranged"), [("as-200", True), ("part-200", True), ("bare-200", False)])
def test_the_size_is_that_of_the_whole(server: MisbehavingServer, route: str, ranged: bool) -> None:
    remote = ask(Sources(server.url(f"/{route}/x", size=SIZE))[0], DownloadOptions())
    assert (remote.size, remote.ranged) == (SIZE, ranged)


@pytest.mark.parametrize("size", [1, 2])
def test_a_file_of_one_byte_is_confirmed(desk: Desk, server: MisbehavingServer, target: Path, size: int) -> None:
    desk.fetch(server.url("/no-ranges/x", size=size), target)
    assert target.read_bytes() == content(size)


@pytest.mark.parametrize(
    "route", ["wrong-start", "wrong-total", "whole-206", "overflow", "short-body", "cut", "range-then-200"]
)
@pytest.mark.parametrize("kind", ["strong", "none"])
def test_wrong_answers_never_make_a_wrong_file(
    desk: Desk, server: MisbehavingServer, target: Path, route: str, kind: str
) -> None:
    url = server.url(f"/{route}/x", size=SIZE, times=6, **KINDS[kind])
    try:
        desk.fetch(url, target, split=4, min_split_size="1M", max_tries=3)
    except DownloadError:
        assert "file.bin" not in names(target.parent)
    else:
        assert target.read_bytes() == content(SIZE)


# ---- What the result says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "basis"),
    [
        ("strong", {}, "etag"),
        ("date", {}, "compared"),
        ("weak", {}, "compared"),
        ("none", {}, "compared"),
        ("none", {"split": 1}, "one response"),
        ("none", {"checksum": "sha-256=" + hashlib.sha256(content(SIZE)).hexdigest()}, "checksum"),
    ],
)
def test_how_identity_was_established(
    desk: Desk, server: MisbehavingServer, target: Path, kind: str, options: dict[str, Any], basis: str
) -> None:
    url = server.url("/good/x", size=SIZE, **KINDS[kind])
    result = desk.fetch(url, target, **{"min_split_size": "1M"} | options)
    assert result.identity in (basis, "last-modified" if kind == "date" else basis)


def test_a_file_of_mirrors_alone_says_so(
    desk: Desk, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    mirror = other_server.url("/good/x", size=SIZE)
    result = desk.fetch(server.url("/status/x", code=404), target, mirrors=[mirror])
    assert result.identity == "mirrors"
