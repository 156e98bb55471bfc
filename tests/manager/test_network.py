"""A lost network costs no tries; the wait is visible and bounded, and downloads continue by themselves."""

import contextlib
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadStatus, RetryPolicy
from rangefetch.errors import ConnectionFailed, TimedOut
from rangefetch.net.network import Network
from rangefetch.transfer.failure import Curl
from rangefetch.transfer.retry import Kind, Row
from servers.misbehaving import MisbehavingServer, content
from support.downloads import downloaded, into, status_of
from support.files import MIB, names
from support.waiting import AT_ONCE, until

SIZE = 9 * MIB
POLICY = RetryPolicy(network_check=0.05, network_hosts=())


class Switch:
    """Replaces the check for a network; ``on`` is its result."""

    def __init__(self) -> None:
        self.on = True
        self.asked = 0
        self._lock = threading.Lock()

    def __call__(self, urls: object, told: bool) -> bool:
        with self._lock:
            self.asked += 1
        return self.on


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Switch:
    switch = Switch()
    monkeypatch.setattr("rangefetch.net.network.Network.is_there", switch)
    return switch


def _note(manager: DownloadManager, gid: str) -> str:
    return manager.get_download_progress(gid).note


def test_a_loss_is_announced_once_however_many_downloads_wait(
    server: MisbehavingServer, target: Path, switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    with DownloadManager(retry_policy=POLICY) as manager:
        gids = [
            manager.download(server.url("/shared-rate/x", size=SIZE, id=n), into(target, f"{n}.bin", split=2))
            for n in range(4)
        ]
        for times in (1, 2):
            until(lambda: all(not _note(manager, gid) and downloaded(manager, gid) > 0 for gid in gids))
            switch.on = False
            server.stop()
            until(lambda: all("network" in _note(manager, gid) for gid in gids))
            server.start()
            switch.on = True
            until(lambda: not any(_note(manager, gid) for gid in gids))
            for words in ("waiting for the network", "the network is back"):
                assert caplog.text.count(words) == times


@pytest.mark.parametrize("split", [1, 4])
def test_it_goes_on_by_itself_and_burns_no_try(
    server: MisbehavingServer, target: Path, switch: Switch, split: int
) -> None:
    with DownloadManager(retry_policy=POLICY) as manager:
        options = into(target, split=split, max_tries=2, min_split_size="1M")
        gid = manager.download(server.url("/slow/x", size=SIZE, rate="6M" if split == 1 else "2M"), options)
        until(lambda: downloaded(manager, gid) > MIB)
        switch.on = False
        server.stop()
        until(lambda: "network" in _note(manager, gid))
        asked = switch.asked
        time.sleep(0.5)
        assert status_of(manager, gid) is DownloadStatus.ACTIVE
        assert 3 <= switch.asked - asked <= 12
        # Not earlier: other lanes still had bytes to read when the first one found the network gone.
        kept = downloaded(manager, gid)
        server.start()
        time.sleep(0.1)
        assert downloaded(manager, gid) == kept
        switch.on = True
        until(lambda: not _note(manager, gid))
        result = manager.wait(gid, timeout=30)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == 0


def test_one_stream_that_lost_the_network_goes_on_when_it_is_back(
    server: MisbehavingServer, target: Path, switch: Switch
) -> None:
    # The system may report the lost network in the middle of a response, which cannot be continued.
    no_route = Row(Kind.NETWORK, "as if there were no route", codes=frozenset({Curl.PARTIAL_FILE}))
    switch.on = False
    url = server.url("/script/x", size=SIZE, steps="no-ranges+cut:after=1M", then="no-ranges")
    with DownloadManager(retry_policy=POLICY.first(no_route)) as manager:
        gid = manager.download(url, into(target))
        until(lambda: "network" in _note(manager, gid))
        switch.on = True
        assert manager.wait(gid, timeout=30).size == SIZE
    assert target.read_bytes() == content(SIZE)


def test_the_wait_is_bounded(server: MisbehavingServer, target: Path, switch: Switch) -> None:
    policy = RetryPolicy(network_check=0.05, network_wait=0.4, network_hosts=())
    with DownloadManager(retry_policy=policy) as manager:
        gid = manager.download(server.url("/slow/x", size=SIZE, rate="6M"), into(target, split=1))
        until(lambda: downloaded(manager, gid) > MIB)
        switch.on = False
        server.stop()
        until(lambda: "network" in _note(manager, gid))
        started = time.monotonic()
        with pytest.raises(ConnectionFailed):
            manager.wait(gid, timeout=2 * AT_ONCE)
        assert 0.3 < time.monotonic() - started < AT_ONCE
        # The data fetched so far is kept for the next try.
        assert len(names(target.parent)) == 2
        server.start()
        switch.on = True
        manager.retry(gid)
        assert manager.wait(gid, timeout=30).resumed > MIB
    assert target.read_bytes() == content(SIZE)


def test_a_slow_look_for_the_network_does_not_make_the_wait_longer(
    server: MisbehavingServer, target: Path, switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = RetryPolicy(network_check=0.05, network_wait=0.4, network_hosts=())
    ended = threading.Event()

    def look(_network: object, urls: object, told: bool) -> bool:
        switch.asked += 1
        if switch.asked > 1:
            ended.wait(60.0)
        return False

    monkeypatch.setattr("rangefetch.net.network.Network.is_there", look)
    with DownloadManager(retry_policy=policy) as manager:
        server.stop()
        gid = manager.download(server.url("/good/x", size=SIZE), into(target))
        with pytest.raises(ConnectionFailed):
            manager.wait(gid, timeout=AT_ONCE)
        ended.set()


@pytest.mark.parametrize("verb", ["pause", "cancel", "stop"])
def test_the_wait_can_be_ended_at_once(server: MisbehavingServer, target: Path, switch: Switch, verb: str) -> None:
    with DownloadManager(retry_policy=POLICY) as manager:
        server.stop()
        switch.on = False
        gid = manager.download(server.url("/good/x", size=SIZE), into(target))
        until(lambda: "network" in _note(manager, gid))
        started = time.monotonic()
        getattr(manager, verb)(*([] if verb == "stop" else [gid]))
        assert time.monotonic() - started < AT_ONCE
        assert status_of(manager, gid) is not DownloadStatus.ACTIVE
        assert not _note(manager, gid)


def test_a_server_that_is_down_while_the_network_is_there_burns_tries(
    server: MisbehavingServer, target: Path, switch: Switch
) -> None:
    server.stop()
    with DownloadManager(retry_policy=POLICY) as manager:
        gid = manager.download(server.url("/good/x", size=SIZE), into(target, max_tries=3))
        with pytest.raises(ConnectionFailed) as caught:
            manager.wait(gid, timeout=30)
    assert switch.asked == 3
    assert len(caught.value.tried) == 3


def test_a_checker_that_fails_does_not_leave_it_waiting_for_ever(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, urls: object, told: bool) -> bool:
        raise OSError("no interfaces can be listed here")

    monkeypatch.setattr("rangefetch.net.network.Network.is_there", broken)
    server.stop()
    with DownloadManager(retry_policy=POLICY) as manager:
        gid = manager.download(server.url("/good/x", size=SIZE), into(target, max_tries=2))
        with pytest.raises(rangefetch.DownloadError):
            manager.wait(gid, timeout=30)


# -- which servers are probed ---------------------------------------------------------------------------------------


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Makes ports on this machine that do not respond at all, not even with a refusal."""
    monkeypatch.setattr("rangefetch.net.network._CONNECT_S", 0.4)
    with contextlib.ExitStack() as stack:

        def make() -> str:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            # When the listen queue is full, the kernel drops further connection attempts.
            for _ in range(8):
                caller = stack.enter_context(socket.socket())
                caller.setblocking(False)
                caller.connect_ex(listener.getsockname())
            time.sleep(0.05)
            return f"127.0.0.1:{listener.getsockname()[1]}"

        yield make


def test_all_are_asked_at_once_and_silence_alone_says_nothing(
    silent: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rangefetch.net.network._CONNECT_S", 2.0)
    server, *hosts = (silent() for _ in range(4))
    network, url = Network(hosts), f"http://{server}/x"
    started = time.monotonic()
    assert network.is_there([url], told=False)
    assert 1.9 < time.monotonic() - started < 7.0, "one after the other they take eight seconds"
    monkeypatch.setattr("rangefetch.net.network._CONNECT_S", 0.4)
    assert not network.is_there([url], told=True)


def test_silence_of_who_has_answered_before_is_no_network(silent: Callable[[], str]) -> None:
    server, host = silent(), silent()
    network = Network([host])
    network.heard(f"http://{silent()}/")
    assert network.is_there([f"http://{server}/x"], told=False)
    network.heard(f"http://{server}/y")
    assert not network.is_there([f"http://{server}/x"], told=False)


def test_the_first_that_answers_is_enough(
    server: MisbehavingServer, silent: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rangefetch.net.network._CONNECT_S", 60.0)
    network = Network([silent(), f"127.0.0.1:{server.port}"])
    started = time.monotonic()
    assert network.is_there([f"http://{silent()}/x"], told=True)
    assert time.monotonic() - started < AT_ONCE


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the resolver says so without a network, too")
@pytest.mark.parametrize(("said", "there"), [(socket.EAI_NONAME, True), (socket.EAI_AGAIN, False)])
def test_a_name_server_that_knows_no_such_name_has_answered(
    monkeypatch: pytest.MonkeyPatch, said: int, there: bool
) -> None:
    def resolve(*_: object, **__: object) -> object:
        raise socket.gaierror(said, "said the resolver")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr("rangefetch.net.network._has_interface", lambda: True)
    assert Network([]).is_there(["https://example.org/x"], told=True) is there


def test_a_dead_server_in_a_closed_network_fails_after_its_tries(target: Path, silent: Callable[[], str]) -> None:
    policy = RetryPolicy(network_check=0.05, network_hosts=(silent(), silent()))
    with DownloadManager(retry_policy=policy) as manager:
        options = into(target, max_tries=2, connect_timeout=0.2, read_timeout=1.0)
        gid = manager.download(f"http://{silent()}/x", options)
        with pytest.raises(TimedOut) as caught:
            manager.wait(gid, timeout=30)
    assert len(caught.value.tried) == 2


def test_a_server_that_falls_silent_midway_is_waited_for(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DownloadManager(retry_policy=RetryPolicy(network_check=0.05, network_hosts=())) as manager:
        options = into(target, split=1, max_tries=2, read_timeout=0.5)
        gid = manager.download(server.url("/slow/x", size=SIZE, rate="6M"), options)
        until(lambda: downloaded(manager, gid) > MIB)
        # From now on, no probed port responds.
        monkeypatch.setattr("rangefetch.net.network._answers", lambda host, port: False)
        server.stop()
        until(lambda: "network" in _note(manager, gid))
        time.sleep(0.3)
        monkeypatch.undo()
        server.start()
        manager.wait(gid, timeout=30)
    assert target.read_bytes() == content(SIZE)


def test_neither_pause_nor_stop_waits_for_an_answer(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def slow(*_: object, **__: object) -> bool:
        asked.set()
        answered.wait(60)
        return False

    monkeypatch.setattr("rangefetch.net.network.Network.is_there", slow)
    server.stop()
    manager = DownloadManager(retry_policy=POLICY)
    manager.download(server.url("/good/x", size=SIZE), into(target))
    assert asked.wait(5)
    started = time.monotonic()
    manager.stop()
    assert time.monotonic() - started < AT_ONCE
    answered.set()


# -- a real network ------------------------------------------------------------------------------------------------

NUMBER = random.randrange(1 << 14)
"""Random, so that several runs of these tests on one machine do not collide."""
HOST, GUEST = (f"10.213.{NUMBER >> 6}.{(NUMBER & 63) * 4 + last}" for last in (1, 2))
OUTSIDE, INSIDE = f"rfo{NUMBER}", f"rfi{NUMBER}"
GUEST_PROGRAM = """
import sys, time
from rangefetch import DownloadManager, RetryPolicy
url, directory = sys.argv[1:]
policy = RetryPolicy(network_check=0.2, network_hosts=())
with DownloadManager(retry_policy=policy) as manager:
    options = {"save_dir": directory, "filename": "file.bin", "split": 2, "max_tries": 3, "retry_wait": 0.01,
               "read_timeout": 1.0, "connect_timeout": 1.0}
    gid = manager.download(url, options)
    while (progress := manager.get_download_progress(gid)).status == "active":
        print(progress.downloaded, progress.note, flush=True)
        time.sleep(0.05)
    print("end", manager.wait(gid).size, flush=True)
"""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace whose only link leads to ``HOST``."""
    name = f"rf{NUMBER}"
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux may make a network namespace")
    try:
        _ip("netns", "add", name)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no network namespace can be made here")
    try:
        try:
            _ip("-n", name, "link")
        except subprocess.SubprocessError:
            # ip mounts /sys in the namespace, which fails if the root directory is not a mount point (in a chroot).
            pytest.skip("no network namespace can be entered here")
        _ip("link", "add", OUTSIDE, "type", "veth", "peer", "name", INSIDE, "netns", name)
        _ip("address", "add", f"{HOST}/30", "dev", OUTSIDE)
        _ip("link", "set", OUTSIDE, "up")
        _ip("-n", name, "address", "add", f"{GUEST}/30", "dev", INSIDE)
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "set", INSIDE, "up")
        yield name
    finally:
        _ip("netns", "delete", name)
        subprocess.run(["ip", "link", "delete", OUTSIDE], check=False, capture_output=True)


def test_a_route_that_is_taken_away_and_comes_back(
    namespace: str, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = socket.create_server

    def on_the_host(address: tuple[str, int], **more: Any) -> socket.socket:
        return create((HOST, address[1]), **more)

    monkeypatch.setattr(socket, "create_server", on_the_host)
    seen: list[tuple[int, str]] = []
    with MisbehavingServer() as server:
        url = server.url("/slow/x", size=SIZE, rate="2M").replace("127.0.0.1", HOST)
        program = ["ip", "netns", "exec", namespace, sys.executable, "-c", GUEST_PROGRAM, url, str(target.parent)]
        environment = os.environ | {"PYTHONPATH": str(Path(rangefetch.__file__).parents[1])}
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=environment) as child:
            assert child.stdout is not None
            away_s = 0.0
            try:
                for line in child.stdout:
                    count, _, note = line.strip().partition(" ")
                    if count == "end":
                        seen.append((int(note), "end"))
                        continue
                    seen.append((int(count), note))
                    if not away_s and int(count) > 2 * MIB:
                        _ip("-n", namespace, "link", "set", INSIDE, "down")
                        away_s = time.monotonic()
                    elif away_s > 0 and note and time.monotonic() - away_s > 2.0:
                        _ip("-n", namespace, "link", "set", INSIDE, "up")
                        away_s = float("inf")
            finally:
                child.kill()
    assert seen[-1] == (SIZE, "end")
    assert "waiting for the network" in {note for _, note in seen}
    assert target.read_bytes() == content(SIZE)
