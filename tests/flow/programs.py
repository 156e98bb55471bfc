"""What the children of these tests run."""

import asyncio
import json
import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import rangefetch
from rangefetch import DownloadError, DownloadManager, _engine
from rangefetch.disk.target import Target
from rangefetch.native import backend
from rangefetch.transfer import keeping
from servers.content import content


def fetch(url: str, path: str, options: str = "{}") -> None:
    """Fetch, and print how many bytes were there already. Status 1 after an error, 130 after Ctrl-C."""
    try:
        result = rangefetch.fetch(url, path, **json.loads(options))
    except DownloadError as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    print(result.resumed)


def fetch_with_small_files(url: str, path: str, options: str) -> None:
    """``fetch`` in a process whose files have 8 MiB at most."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))
    fetch(url, path, options)


def fetch_where_a_save_fails(url: str, path: str, error: str) -> None:
    """``fetch`` on a disk whose first sync says "saving" and waits for a line, and then fails with that errno (0: it
    does not)."""
    real = os.fsync

    def fsync(fd: int) -> None:
        os.fsync = real
        print("saving", flush=True)
        sys.stdin.readline()
        if int(error):
            raise OSError(int(error), os.strerror(int(error)))
        real(fd)

    keeping._FIRST_SAVE_S = 0.0
    os.fsync = fsync  # type: ignore[assignment]  # replaced in a child
    fetch(url, path)


def fetch_on_two_loops(url: str, path: str, checksum: str = "") -> None:
    """Fetch by two loops, whether or not that pays, and save all the time; say so when something is lent, and how often
    another loop has helped."""
    real = _engine.File
    files: list[_engine.File] = []

    def on_two_loops(*arguments: Any, **options: Any) -> _engine.File:
        files.append(real(*arguments, **options, loops=2, lease_bytes=2 << 20))
        return files[-1]

    mock.patch.object(_engine, "File", on_two_loops).start()
    mock.patch.object(backend, "processors", return_value=2).start()
    keeping._FIRST_SAVE_S = keeping._SAVE_EVERY_S = 0.2
    target = Path(path)
    with DownloadManager() as manager:
        options = {"save_dir": target.parent, "filename": target.name, "checksum": checksum, "min_split_size": 1}
        gid = manager.download(url, {**options, "split": 8, "max_connection_per_server": 8})
        while not sum(file.leases for file in files):
            time.sleep(0.002)
        print("lent", flush=True)
        manager.wait(gid)
    print(sum(file.guests for file in files))


def end_while_it_runs(url: str, path: str, at_least: str) -> None:
    """End the interpreter, without a word to the manager, in the middle of a download."""
    manager = DownloadManager()
    target = Path(path)
    gid = manager.download(url, {"save_dir": target.parent, "filename": target.name})
    while manager.get_download_progress(gid).downloaded < int(at_least):
        time.sleep(0.002)
    print("ending", flush=True)


def end_after(url: str, path: str, what: str) -> None:
    """End the interpreter with nothing left to do."""
    if what == "a fetch":
        rangefetch.fetch(url, path)
    else:
        DownloadManager().start()
    # Until the last timer of what has ended is over, and everything sleeps.
    time.sleep(0.6)
    print("ending", flush=True)


def stop_while_it_begins_again(url: str, path: str) -> None:
    """Pause a download just when its part file is emptied because the remote file has changed."""
    logging.getLogger("rangefetch").addHandler(logging.NullHandler())
    reached, may_go_on, truncate = threading.Event(), threading.Event(), Target.truncate

    def slow_truncate(target: Target, size_bytes: int = 0) -> None:
        reached.set()
        may_go_on.wait(10)
        truncate(target, size_bytes)

    Target.truncate = slow_truncate  # type: ignore[assignment, method-assign]  # replaced in a child
    manager, target = DownloadManager(), Path(path)
    gid = manager.download(url, {"save_dir": target.parent, "filename": target.name})
    reached.wait(10)
    pausing = threading.Thread(target=manager.pause, args=(gid,), daemon=True)
    pausing.start()
    pausing.join(0.2)
    may_go_on.set()
    deadline = time.monotonic() + 3
    while manager.get_download_progress(gid).status == "active" and time.monotonic() < deadline:
        time.sleep(0.002)
    print(manager.get_download_progress(gid).status, flush=True)
    os._exit(0)


def fork_midway(url: str, path: str, child_url: str, child_path: str, size: str) -> None:
    """Fork in the middle of a download; both processes go on with their own."""
    target = Path(path)
    with DownloadManager() as manager:
        gid = manager.download(url, {"save_dir": target.parent, "filename": target.name})
        while manager.get_download_progress(gid).downloaded == 0:
            time.sleep(0.002)
        forked = os.fork()
        if forked == 0:
            result = rangefetch.fetch(child_url, child_path)
            right = result.path.read_bytes() == content(size)
            sys.exit(0 if right else 3)
        _, status = os.waitpid(forked, 0)
        manager.wait(gid, timeout=30)
    right = target.read_bytes() == content(size)
    print(os.waitstatus_to_exitcode(status), right)


def fork_during_an_import(url: str, path: str, child_url: str, child_path: str, size: str) -> None:
    """Fork just while one of the package's threads has half of a module; both processes go on with their own."""
    imports = threading.Event()

    class Slow:
        """Takes its time to find what ``email.utils`` is made of."""

        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "email._parseaddr":
                imports.set()
                time.sleep(0.3)

    for name in ("email.utils", "email._parseaddr"):  # which something else may have imported
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Slow())
    target = Path(path)
    with DownloadManager() as manager:
        gid = manager.download(url, {"save_dir": target.parent, "filename": target.name})
        imports.wait(20)
        forked = os.fork()
        if forked == 0:
            result = rangefetch.fetch(child_url, child_path)
            sys.exit(0 if result.path.read_bytes() == content(size) else 3)
        _, status = os.waitpid(forked, 0)
        manager.wait(gid, timeout=30)
    print(os.waitstatus_to_exitcode(status), target.read_bytes() == content(size))


def use_the_parents_manager(url: str, path: str, verb: str) -> None:
    """Fork in the middle of a download, and ask the parent's manager for something in the child."""
    target = Path(path)
    with DownloadManager() as manager:
        gid = manager.download(url, {"save_dir": target.parent, "filename": target.name})
        while manager.get_download_progress(gid).downloaded == 0:
            time.sleep(0.002)
        forked = os.fork()
        if forked == 0:
            _say_what_comes_of(
                {
                    "download": lambda: manager.download(url, {"save_dir": target.parent, "filename": "other"}),
                    "download_and_wait": lambda: manager.download_and_wait(url, {"save_dir": target.parent}),
                    "start": manager.start,
                    "wait": lambda: manager.wait(gid),
                    "pause": lambda: manager.pause(gid),
                    "resume": lambda: manager.resume(gid),
                    "stop": manager.stop,
                }[verb]
            )
        deadline = time.monotonic() + 5
        while os.waitpid(forked, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(forked, 9)
                os.waitpid(forked, 0)
                print("it hangs")
                break
            time.sleep(0.002)


def _say_what_comes_of(act: Callable[[], object]) -> None:
    try:
        act()
        print("nothing")
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
    sys.exit(0)


def fetch_slowly(url: str, path: str, first_places: str) -> None:
    """Fetch with these places before all others where modules are looked for; the state is saved at every tick."""
    sys.path[:0] = [first_places]
    from rangefetch.transfer import keeping

    keeping._FIRST_SAVE_S = keeping._SAVE_EVERY_S = 0.0
    rangefetch.fetch(url, path)


def end_while_refresh_url_blocks(url: str, path: str) -> None:
    """End the interpreter while a function of the caller's never returns."""
    manager = rangefetch.DownloadManager()

    def never(_: str) -> str:
        time.sleep(1000)
        return ""

    where = {"save_dir": Path(path).parent, "filename": Path(path).name, "refresh_url": never}
    gid = manager.download(url, where)
    while manager.get_download_progress(gid).waiting_for != "refresh_url":
        time.sleep(0.01)


def fork_and_stay(url: str, path: str) -> None:
    """Have a child that does nothing, in the middle of a download; print the child's number."""
    target = Path(path)
    manager = DownloadManager()
    gid = manager.download(url, {"save_dir": target.parent, "filename": target.name})
    while manager.get_download_progress(gid).downloaded < 1 << 20:
        time.sleep(0.01)
    _stay()


def fork_with_a_session(path: str) -> None:
    """The same, with a manager that has a session."""
    with DownloadManager(session_file=path):
        _stay()


def _stay() -> None:
    child = os.fork()
    if child == 0:
        # Nobody waits for its ends of the pipes.
        for fd in range(3):
            os.close(fd)
        time.sleep(600)
        os._exit(0)
    print(child, flush=True)
    time.sleep(600)


def fetch_from_many_hosts(how: str, listed: str, directory: str, most_files: str) -> None:
    """Fetch what is listed, with no more open files than that at a time; print how many came."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(most_files), int(most_files)))
    urls = Path(listed).read_text().splitlines()
    if how == "fetch":
        print(sum(rangefetch.fetch(url, f"{directory}/").size > 0 for url in urls))
    elif how == "fetch_many":
        print(len(rangefetch.fetch_many(urls, directory)))
    elif how == "asyncio":

        async def fetch_all() -> int:
            return len(await asyncio.gather(*(rangefetch.aio.fetch(url, f"{directory}/") for url in urls)))

        print(asyncio.run(fetch_all()))
    else:
        most = None if how == "manager" else 1000
        with DownloadManager(max_concurrent_downloads=most, defaults={"save_dir": directory}) as manager:
            print(sum(manager.wait(gid).size > 0 for gid in [manager.download(url) for url in urls]))
