"""An expired link that ``refresh_url`` has renewed: what is sent to the new host, and what is kept."""

import base64
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadManager, DownloadStatus
from rangefetch.disk import state
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, downloaded, into, status_of
from support.files import MIB
from support.waiting import until

SECRETS = ("authorization", "cookie", "x-api-key")


def _elsewhere(server: MisbehavingServer, route: str, **parameters: Any) -> str:
    """A URL of the server with a host name other than that of the tests' other URLs."""
    return server.url(route, **parameters).replace("127.0.0.1", "localhost")


def _secrets(server: MisbehavingServer) -> set[tuple[str | None, ...]]:
    return {tuple(request.headers.get(name) for name in SECRETS) for request in server.requests}


@pytest.mark.parametrize("skip", [0, 2])
def test_a_new_link_to_another_origin_does_not_get_the_users_headers(
    manager: DownloadManager, server: MisbehavingServer, other_server: MisbehavingServer, target: Path, skip: int
) -> None:
    cookies = target.parent.parent / "cookies.txt"
    cookies.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tsecret\n")
    new = _elsewhere(other_server, "/good/new", size=SIZE)
    manager.download_and_wait(
        server.url("/status/x", code=403, size=SIZE, skip=skip),
        into(
            target,
            headers={"Authorization": "Bearer secret", "X-Api-Key": "secret"},
            cookies=cookies,
            refresh_url=lambda _: new,
            min_split_size="1M",
        ),
    )
    assert target.read_bytes() == content(SIZE)
    assert _secrets(server) == {("Bearer secret", "session=secret", "secret")}
    assert _secrets(other_server) == {(None, None, None)}


def test_a_new_link_at_the_same_origin_gets_them(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    new = server.url("/good/new", size=SIZE)
    manager.download_and_wait(
        server.url("/status/x", code=403, size=SIZE),
        into(target, headers={"Authorization": "Bearer secret"}, refresh_url=lambda _: new),
    )
    assert {request.headers.get("authorization") for request in server.requests} == {"Bearer secret"}


def test_the_userinfo_of_a_new_link_is_its_own(
    manager: DownloadManager, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    new = _elsewhere(other_server, "/good/new", size=SIZE).replace("://", "://new:word@")
    url = server.url("/status/x", code=403, size=SIZE).replace("://", "://old:word@")
    manager.download_and_wait(url, into(target, refresh_url=lambda _: new))

    def basic(user: str) -> str:
        return "Basic " + base64.b64encode(f"{user}:word".encode()).decode()

    assert {request.headers.get("authorization") for request in server.requests} == {basic("old")}
    assert {request.headers.get("authorization") for request in other_server.requests} == {basic("new")}


def test_progress_at_a_new_link_is_kept_by_a_pause(
    manager: DownloadManager, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    asked = []
    new = _elsewhere(other_server, "/slow/new", size=SIZE, rate="1M")

    def refresh(url: str) -> str:
        asked.append(url)
        return new

    url = server.url("/status/x", code=403, size=SIZE)
    gid = manager.download(url, into(target, refresh_url=refresh, split=2))
    until(lambda: downloaded(manager, gid) > 2 * MIB)
    manager.pause(gid)
    assert status_of(manager, gid) is DownloadStatus.PAUSED
    saved = state.load(target.with_name("file.bin.part.json"))
    assert (saved.url, [source.url for source in saved.sources]) == (url, [url])
    manager.resume(gid)
    result = manager.wait(gid)
    assert result.resumed > MIB
    assert target.read_bytes() == content(SIZE)
    assert set(asked) == {url}
