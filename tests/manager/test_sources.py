"""Several URLs for one file: used at the same time, matched by size and digest, each with validators of its own."""

import base64
import hashlib
import itertools
from pathlib import Path

import pytest

from rangefetch import DownloadManager
from rangefetch.disk import state
from rangefetch.errors import DownloadError
from servers.misbehaving import MisbehavingServer, content, etag, http_date, modified
from servers.routing import ROUTES, Ask, Route
from servers.wire import Reply
from support.downloads import SIZE, fetch, into
from support.files import MIB, names, saved_bytes
from support.requests import sent
from support.waiting import until


def _digest(size: int | str, seed: int = 0, name: str = "sha-256") -> str:
    digest = hashlib.new(name.replace("-", ""), content(size, seed)).digest()
    return f"{name}=:{base64.b64encode(digest).decode()}:"


def _tagged(ask: Ask, reply: Reply, *, tag: str = "mirror") -> Reply:
    """A good server with ETags of its own."""
    headers = {name: value for name, value in ask.headers.items() if name != "if-range"}
    if ask.headers.get("if-range", f'"{tag}"') not in (f'"{tag}"', reply.headers["Last-Modified"]):
        headers.pop("range", None)
    reply = Ask(ask.method, ask.target, headers, ask.common, ask.memory).good()
    reply.headers["ETag"] = f'"{tag}"'
    return reply


@pytest.fixture(autouse=True)
def _tagged_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTES, "tagged", Route("tagged", _tagged, {}))


def test_sources_are_used_at_once_and_the_faster_one_more(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    slow, fast = server.url("/slow/x", size="24M", rate="1M"), other_server.url("/slow/x", size="24M", rate="5M")
    result = fetch(slow, target, mirrors=[fast], max_connection_per_server=2, min_split_size="1M")
    assert target.read_bytes() == content("24M")
    assert set(result.sources) == {slow, fast}
    assert server.bytes_sent > MIB
    assert other_server.bytes_sent > 2 * server.bytes_sent


def test_one_url_given_twice_is_one_source(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE)
    result = fetch(url, target, mirrors=[url, url + "#part"])
    assert result.sources == (url,)


def test_each_source_has_validators_of_its_own(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    mirrors = [other_server.url("/tagged/x", size=SIZE, rate="8M", tag=tag) for tag in "ab"]
    result = fetch(server.url("/good/x", size=SIZE, rate="2M"), target, mirrors=mirrors, min_split_size="1M")
    assert target.read_bytes() == content(SIZE)
    assert len(result.sources) == 3
    assert {request.path[-1] for request in other_server.requests if request.bytes_sent} == {"a", "b"}


@pytest.mark.parametrize("more", [-1, 1, MIB])
def test_a_source_of_another_size_is_left_out(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path, more: int
) -> None:
    mirror = other_server.url("/good/x", size=SIZE + more)
    result = fetch(server.url("/good/x", size=SIZE, rate="8M"), target, mirrors=[mirror], min_split_size="1M")
    assert target.read_bytes() == content(SIZE)
    assert result.sources == (server.url("/good/x", size=SIZE, rate="8M"),)
    assert len(other_server.requests) <= 4


def test_a_source_whose_digest_is_not_the_one_asked_for_is_left_out(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    mirror = other_server.url("/good/x", size=SIZE, seed=1, header=f"Repr-Digest: {_digest(SIZE, 1)}")
    checksum = f"sha-256={hashlib.sha256(content(SIZE)).hexdigest()}"
    good = server.url("/good/x", size=SIZE, rate="8M")
    result = fetch(good, target, mirrors=[mirror], checksum=checksum, min_split_size="1M")
    assert target.read_bytes() == content(SIZE)
    assert result.checksum == checksum
    assert mirror not in result.sources


def test_sources_whose_digests_differ_are_never_mixed(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    first = server.url("/slow/x", size=SIZE, rate="4M", header=f"Repr-Digest: {_digest(SIZE)}")
    second = other_server.url("/good/x", size=SIZE, seed=1, header=f"Repr-Digest: {_digest(SIZE, 1)}")
    try:
        fetch(first, target, mirrors=[second], min_split_size="1M")
    except DownloadError:
        assert "file.bin" not in names(target.parent)
    else:
        assert target.read_bytes() in (content(SIZE), content(SIZE, 1))


def test_a_mirror_elsewhere_does_not_see_the_headers(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    here, there = server.url("/slow/x", size=SIZE, rate="4M"), other_server.url("/slow/x", size=SIZE, rate="4M")
    fetch(
        here, target, mirrors=[there, server.url("/good/x", size=SIZE)], headers={"X-Token": "s"}, min_split_size="1M"
    )
    assert target.read_bytes() == content(SIZE)
    assert {request.headers.get("x-token") for request in server.requests} == {"s"}
    assert {request.headers.get("x-token") for request in other_server.requests} == {None}


def test_a_bad_source_is_demoted_and_the_others_go_on(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    bad = other_server.url("/cut/x", size=SIZE, after="10K")
    good = server.url("/good/x", size=SIZE, rate="4M")
    fetch(good, target, mirrors=[bad], max_connection_per_server=2, min_split_size="1M", retry_wait=0.3)
    assert target.read_bytes() == content(SIZE)
    assert len(other_server.requests) < 40
    assert sent(server.requests) > SIZE // 2


def test_a_source_that_cannot_do_ranges_is_left_to_those_that_can(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    mirror = other_server.url("/no-ranges/x", size=SIZE)
    fetch(server.url("/good/x", size=SIZE, rate="8M"), target, mirrors=[mirror], min_split_size="1M")
    assert target.read_bytes() == content(SIZE)


def test_a_dead_source_beside_a_good_one_costs_no_time(server: MisbehavingServer, target: Path) -> None:
    for dead in ("http://127.0.0.1:1/x", "http://no-such-host.invalid/x"):
        fetch(dead, target, mirrors=[server.url("/good/x", size=SIZE)], overwrite=True, retry_wait=0.5)
        assert target.read_bytes() == content(SIZE)


def test_a_mirror_stands_in_when_the_last_try_brought_no_answer(server: MisbehavingServer, target: Path) -> None:
    mirror = server.url("/good/x", size=SIZE)
    result = fetch("http://127.0.0.1:1/x", target, mirrors=[mirror], max_tries=1)
    assert target.read_bytes() == content(SIZE)
    assert result.sources == (mirror,)


def test_a_state_keeps_the_validators_of_each_source(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    first, second = (
        server.url("/slow/x", size=SIZE, rate="2M"),
        other_server.url("/tagged/x", size=SIZE, rate="2M", tag="t"),
    )
    options = into(target, mirrors=[second], max_connection_per_server=1, min_split_size="1M")
    with DownloadManager() as manager:
        gid = manager.download(first, options)
        until(lambda: all(each.bytes_sent > 300_000 for each in (server, other_server)))
        manager.pause(gid)
        saved = {each.url: each for each in state.load(target.with_name("file.bin.part.json")).sources}
        assert (saved[first].etag, saved[second].etag) == (etag(SIZE), '"t"')
        assert saved[second].last_modified in ("", http_date(modified()))
        kept = saved_bytes(target)
    server.clear()
    other_server.clear()
    with DownloadManager() as manager:
        result = manager.download_and_wait(first, options)
    assert result.resumed == kept
    assert target.read_bytes() == content(SIZE)
    assert server.bytes_sent + other_server.bytes_sent < SIZE - kept + MIB


def test_a_mirror_that_has_changed_since_is_left_out(
    server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    first = server.url("/slow/x", size=SIZE, rate="4M")
    # Three samples and one range come from the file. Requests after the pause get another file.
    steps = "|".join(["slow:rate=2M"] * 4)
    second = other_server.url("/script/x", size=SIZE, steps=steps, then="good:seed=1")
    options = into(target, mirrors=[second], max_connection_per_server=1, min_split_size="1M")
    with DownloadManager() as manager:
        gid = manager.download(first, options)
        until(lambda: all(each.bytes_sent > 500_000 for each in (server, other_server)))
        manager.pause(gid)
        manager.resume(gid)
        result = manager.wait(gid, timeout=30)
    assert target.read_bytes() == content(SIZE)
    assert result.size == SIZE


# -- GitHub's mirrors ----------------------------------------------------------------------------------------------


def _asked(server: MisbehavingServer) -> list[str]:
    """The hosts of the requests that reached the server as a proxy, in order; successive duplicates are merged."""
    hosts = [request.path.split("/")[2] for request in server.requests]
    return [host for host, _ in itertools.groupby(hosts)]


def _proxied(server: MisbehavingServer, path: str, host: str = "github.com") -> tuple[str, str]:
    """A URL on ``host``, and the proxy through which to fetch it, which is the server."""
    url = server.url(path)
    base = f"http://127.0.0.1:{server.port}"
    return url.replace(base, f"http://{host}"), base


RULES = ["http://github.com/status/=http://mirror.example/good/", "http://second.example/"]


def test_a_url_of_github_is_asked_of_its_mirrors(server: MisbehavingServer, target: Path) -> None:
    url, proxy = _proxied(server, f"/status/x?code=404&size={SIZE}&skip=0&times=100")
    rules = ["http://github.com/status/x?code=404=http://mirror.example/good/x?id=", *RULES[1:]]
    result = fetch(url, target, proxy=proxy, use_github_mirror=True, github_mirrors=rules[:1], retry_wait=5.0)
    assert target.read_bytes() == content(SIZE)
    assert all(source.startswith("http://mirror.example/good/") for source in result.sources)
    assert set(_asked(server)) == {"github.com", "mirror.example"}


def test_mirrors_of_github_are_off_unless_asked_for(server: MisbehavingServer, target: Path) -> None:
    url, proxy = _proxied(server, "/status/x?code=503")
    with pytest.raises(DownloadError):
        fetch(url, target, proxy=proxy, github_mirrors=RULES, max_tries=2)
    assert _asked(server) == ["github.com"]


def test_other_hosts_have_no_mirrors_of_github(server: MisbehavingServer, target: Path) -> None:
    url, proxy = _proxied(server, "/status/x?code=404", host="example.org")
    with pytest.raises(DownloadError):
        fetch(url, target, proxy=proxy, use_github_mirror=True, github_mirrors=RULES)
    assert _asked(server) == ["example.org"]


def test_a_retry_asks_the_mirrors_again(server: MisbehavingServer, target: Path, manager: DownloadManager) -> None:
    url, proxy = _proxied(server, f"/status/x?code=404&size={SIZE}")
    rule = "http://github.com/status/x?code=404=http://mirror.example/status/x?code=404&times=1"
    options = into(target, proxy=proxy, use_github_mirror=True, github_mirrors=[rule])
    gid = manager.download(url, options)
    with pytest.raises(DownloadError):
        manager.wait(gid, timeout=30)
    manager.retry(gid)
    assert manager.wait(gid, timeout=30).path.read_bytes() == content(SIZE)
