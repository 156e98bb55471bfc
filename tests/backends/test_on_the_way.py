"""Cookies and other things that servers set on the way to a file, and a network that goes away, with either backend."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends.conftest import Make
from rangefetch import DownloadManager, RetryPolicy
from rangefetch.errors import ConnectionFailed
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, SMALL, into
from support.requests import paths
from support.waiting import AT_ONCE, until

LOCALHOST = {"proxy": "", "no_proxy": "*"}
POLICY = RetryPolicy(network_check=0.05, network_hosts=())


@pytest.fixture
def manager(manage: Make) -> DownloadManager:
    return manage()


def at_localhost(url: str) -> str:
    return url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("size", [SMALL, SIZE])
def test_a_cookie_wall_is_passed_once_for_a_list(
    manager: DownloadManager, server: MisbehavingServer, target: Path, size: int
) -> None:
    for number in range(3):
        url = server.url(f"/cookie-wall/{number}", size=size, seed=number, attributes="; Path=/")
        result = manager.download_and_wait(url, into(target, number))
        assert result.path.read_bytes() == content(size, number)
    assert sum(request.status == 302 for request in server.requests) == 1


def test_a_login_at_another_host_is_done_once_for_a_list(
    manager: DownloadManager, server: MisbehavingServer, other_server: MisbehavingServer, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login me password s3cret\n")
    netrc.chmod(0o600)
    known: dict[str, Any] = {"netrc": netrc, **LOCALHOST}
    login = at_localhost(other_server.url("/login/x", user="me", password="s3cret"))
    for number in range(3):
        url = server.url(f"/behind-login/{number}", size=SIZE, seed=number, at=login)
        result = manager.download_and_wait(url, into(tmp_path / "x", number, **known))
        assert result.path.read_bytes() == content(SIZE, number)
    assert paths(other_server) == ["login"]


def test_a_cookie_stays_with_its_host_and_with_its_credentials(
    manager: DownloadManager, server: MisbehavingServer, target: Path
) -> None:
    url = at_localhost(server.url("/cookie-wall/x", size=SMALL, attributes="; Path=/; Domain=localhost"))
    manager.download_and_wait(url, into(target, 1, **LOCALHOST))
    server.clear()
    manager.download_and_wait(server.url("/cookie-wall/y", size=SMALL), into(target, 2))
    manager.download_and_wait(server.url("/cookie-wall/y", size=SMALL, id=3), into(target, 3, headers={"X-User": "3"}))
    assert sum(request.status == 302 for request in server.requests) == 2


class Switch:
    """Says whether there is a network."""

    def __init__(self) -> None:
        self.on = True
        self.asked = 0
        self.is_slow = False
        self.over = threading.Event()

    def __call__(self, urls: object, told: bool) -> bool:
        self.asked += 1
        if self.asked > 1 and self.is_slow:
            self.over.wait(60.0)
        return self.on


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Switch]:
    switch = Switch()
    monkeypatch.setattr("rangefetch.net.network.Network.is_there", switch)
    yield switch
    switch.over.set()


def test_a_download_waits_for_the_network_and_burns_no_try(
    manage: Make, server: MisbehavingServer, target: Path, switch: Switch
) -> None:
    manager = manage(retry_policy=POLICY)
    server.stop()
    switch.on = False
    gid = manager.download(server.url("/good/x", size=SIZE), into(target, max_tries=2, retry_wait=0.01))
    until(lambda: switch.asked > 4)
    assert "network" in manager.get_download_progress(gid).note
    server.start()
    switch.on = True
    assert manager.wait(gid, timeout=30).size == SIZE
    assert target.read_bytes() == content(SIZE)
    assert not manager.get_download_progress(gid).note


def test_that_wait_is_bounded_however_long_a_look_takes(
    manage: Make, server: MisbehavingServer, target: Path, switch: Switch
) -> None:
    manager = manage(retry_policy=RetryPolicy(network_check=0.05, network_wait=0.4, network_hosts=()))
    server.stop()
    switch.on = False
    switch.is_slow = True
    gid = manager.download(server.url("/good/x", size=SIZE), into(target))
    with pytest.raises(ConnectionFailed):
        manager.wait(gid, timeout=AT_ONCE)


def test_a_download_that_waits_for_the_network_stops_at_once(
    manage: Make, server: MisbehavingServer, target: Path, switch: Switch
) -> None:
    manager = manage(retry_policy=POLICY)
    server.stop()
    switch.on = False
    gid = manager.download(server.url("/good/x", size=SIZE), into(target))
    until(lambda: "network" in manager.get_download_progress(gid).note)
    manager.cancel(gid)
    assert not manager.get_download_progress(gid).note
