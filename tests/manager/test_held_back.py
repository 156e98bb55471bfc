"""A download that is stopped before Python has handled its first response: bytes already written are kept."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rangefetch import DownloadManager, DownloadProgress, DownloadStatus
from rangefetch._engine import File
from rangefetch.native.backend import NativeBackend
from servers.misbehaving import MisbehavingServer, content
from support.downloads import QUICK
from support.files import MIB, names, read_state, saved_bytes
from support.waiting import until

# ``durable`` rules out a small file, of which no byte would arrive before it is known not to be small.
OPTIONS = QUICK | {"durable": True}
SIZE = 64 * MIB
CAME = 100_000


class Dispatcher:
    """Can hold the backend's thread just after it has given a file to the engine. It then handles nothing until bytes
    have arrived and either the next call is waiting or, with ``until_timers``, a timer is due."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_held = False
        self.until_timers = False
        self._given = threading.Event()
        self._called = threading.Event()
        add_file, call = NativeBackend.add_file, NativeBackend.call

        def add_and_wait(backend: NativeBackend, file: File) -> int:
            before = file.downloaded
            loop = add_file(backend, file)
            if self.is_held:
                until(lambda: file.answered and file.downloaded >= before + CAME)
                self._given.set()
                if self.until_timers:
                    until(lambda: backend._timers.next_s() == 0)
                else:
                    assert self._called.wait(10)
            return loop

        def call_and_tell(backend: NativeBackend, function: Callable[[], None]) -> bool:
            is_heard = call(backend, function)
            if self._given.is_set():
                self._called.set()
            return is_heard

        monkeypatch.setattr(NativeBackend, "add_file", add_and_wait)
        monkeypatch.setattr(NativeBackend, "call", call_and_tell)

    def wait_until_held(self) -> None:
        assert self._given.wait(10)

    def let_go(self) -> None:
        self.is_held = False
        self._called.set()


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dispatcher]:
    dispatcher = Dispatcher(monkeypatch)
    yield dispatcher
    dispatcher.let_go()


def stop_it(manager: DownloadManager, gid: str, how: str) -> DownloadProgress:
    match how:
        case "pause":
            manager.pause(gid)
        case "cancel":
            manager.cancel(gid)
        case "stop":
            manager.stop()
        case "timeout":
            until(lambda: manager.get_download_progress(gid).status is DownloadStatus.ERROR)
    return manager.get_download_progress(gid)


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("resumed", [False, True], ids=["begun", "resumed"])
@pytest.mark.parametrize("how", ["pause", "cancel", "stop", "timeout"])
def test_what_came_before_the_first_answer_was_dealt_with_is_kept(
    dispatcher: Dispatcher, server: MisbehavingServer, target: Path, how: str, resumed: bool, named: bool
) -> None:
    url = server.url("/slow/file.bin", size=SIZE, rate=MIB)
    options = OPTIONS | {"save_dir": target.parent, "filename": target.name if named else ""}
    before = 0
    if resumed:
        with DownloadManager("native") as first:
            gid = first.download(url, options)
            until(lambda: first.get_download_progress(gid).downloaded >= CAME)
        (data, _) = sorted(target.parent.iterdir())
        before = saved_bytes(data.with_suffix(""))
        assert before >= CAME
    dispatcher.is_held = True
    dispatcher.until_timers = how == "timeout"
    with DownloadManager("native") as manager:
        gid = manager.download(url, options | ({"total_timeout": 0.001} if how == "timeout" else {}))
        dispatcher.wait_until_held()
        progress = stop_it(manager, gid, how)
    data, state_file = sorted(target.parent.iterdir())
    assert state_file.name == f"{data.name}.json"
    assert saved_bytes(data.with_suffix("")) == progress.downloaded >= before + CAME
    written = data.read_bytes()
    saved = read_state(data.with_suffix(""))
    assert saved is not None
    assert written[: saved.partial.get(0, MIB)] == content(SIZE)[: saved.partial.get(0, MIB)]


def test_a_paused_one_goes_on_from_there(dispatcher: Dispatcher, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/file.bin", size=9 * MIB, steps="slow:rate=1M", then="good")
    dispatcher.is_held = True
    with DownloadManager("native") as manager:
        gid = manager.download(url, OPTIONS | {"save_dir": target.parent, "filename": target.name})
        dispatcher.wait_until_held()
        manager.pause(gid)
        dispatcher.let_go()
        kept = saved_bytes(target)
        manager.resume(gid)
        result = manager.wait(gid, timeout=30)
    assert result.resumed == kept >= CAME
    assert target.read_bytes() == content(9 * MIB)


@pytest.mark.parametrize("how", ["pause", "cancel", "stop"])
def test_nothing_counts_or_stays_where_another_file_has_the_name(
    dispatcher: Dispatcher, server: MisbehavingServer, target: Path, how: str
) -> None:
    target.write_bytes(b"another file")
    url = server.url("/disposition/x", size=SIZE, value=f'attachment; filename="{target.name}"')
    dispatcher.is_held = True
    with DownloadManager("native") as manager:
        gid = manager.download(url, OPTIONS | {"save_dir": target.parent, "max_download_limit": MIB})
        dispatcher.wait_until_held()
        assert stop_it(manager, gid, how).downloaded == 0
    assert names(target.parent) == [target.name]
    assert target.read_bytes() == b"another file"


@pytest.mark.parametrize("how", ["pause", "stop"])
def test_nothing_counts_or_stays_of_a_file_that_has_another_size_than_expected(
    dispatcher: Dispatcher, server: MisbehavingServer, target: Path, how: str
) -> None:
    url = server.url("/slow/x", size=SIZE, rate=MIB)
    dispatcher.is_held = True
    with DownloadManager("native") as manager:
        options = {"save_dir": target.parent, "filename": target.name, "expected_size": SIZE - 1}
        gid = manager.download(url, OPTIONS | options)
        dispatcher.wait_until_held()
        assert stop_it(manager, gid, how).downloaded == 0
    assert names(target.parent) == []


def test_files_that_are_to_go_go(dispatcher: Dispatcher, server: MisbehavingServer, target: Path) -> None:
    dispatcher.is_held = True
    with DownloadManager("native") as manager:
        gid = manager.download(
            server.url("/slow/x", size=SIZE, rate=MIB), OPTIONS | {"save_dir": target.parent, "filename": target.name}
        )
        dispatcher.wait_until_held()
        manager.cancel(gid, remove_files=True)
    assert names(target.parent) == []
