"""The functions that these tests run in child processes."""

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
    """Fetch, and print how many bytes an earlier run had left. Exit status 1 after an error, 130 after Ctrl-C."""
    try:
        result = rangefetch.fetch(url, path, **json.loads(options))
    except DownloadError as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    print(result.resumed)


def fetch_with_small_files(url: str, path: str, options: str) -> None:
    """``fetch`` in a process that cannot write more than 8 MiB to a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))
    fetch(url, path, options)


def fetch_where_a_save_fails(url: str, path: str, error: str) -> None:
    """``fetch``, where the first sync prints "saving", waits for a line on stdin, and then fails with the errno
    ``error`` (0: succeeds)."""
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
    """Fetch with two loops, whether or not that pays, and save often. Prints "lent" at the first lease, and at the end
    how often another loop has helped."""
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
    """End the interpreter in the middle of a download, without stopping the manager."""
    manager = DownloadManager()
    target = Path(path)
    gid = manager.download(url, {"save_dir": target.parent, "filename": target.name})
    while manager.get_download_progress(gid).downloaded < int(at_least):
        time.sleep(0.002)
    print("ending", flush=True)


def end_after(url: str, path: str, what: str) -> None:
    """End the interpreter when nothing is left to do."""
    if what == "a fetch":
        rangefetch.fetch(url, path)
    else:
        DownloadManager().start()
    # Wait until the last timer has expired and all threads sleep.
    time.sleep(0.6)
    print("ending", flush=True)


def stop_while_it_begins_again(url: str, path: str) -> None:
    """Pause a download while its part file is being truncated because the remote file has changed."""
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
    """Fork in the middle of a download; the parent completes it, and the child makes a download of its own."""
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
    """Fork while one of the package's threads is importing a module; then do the same as ``fork_midway``."""
    imports = threading.Event()

    class Slow:
        """Delays the import of ``email._parseaddr``, which ``email.utils`` needs."""

        def find_spec(self, name: str, path: object, target: object = None) -> None:
            if name == "email._parseaddr":
                imports.set()
                time.sleep(0.3)

    for name in ("email.utils", "email._parseaddr"):  # other code may have imported them
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
    """Fork in the middle of a download, and call a method of the parent's manager in the child."""
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
                    "change_options": lambda: manager.change_options(gid, split=1),
                    "limit": lambda: manager.limit(1),
                    "pause_all": manager.pause_all,
                    "resume_all": manager.resume_all,
                    "cancel_all": lambda: manager.cancel_all(remove_files=True),
                    "stop": manager.stop,
                }[verb]
            )
        _wait_for(forked)


def fork_in_a_callback(url: str, path: str) -> None:
    """Fork in ``on_progress`` of ``fetch``, and let the child return from it."""
    forked: list[int] = []

    def on_progress(_: object) -> None:
        if not forked:
            forked.append(os.fork())

    try:
        rangefetch.fetch(url, path, on_progress=on_progress)
    except RuntimeError as error:
        print(f"RuntimeError: {error}")
        sys.stdout.flush()
        os._exit(0)
    _wait_for(forked[0])


def _wait_for(forked: int) -> None:
    """Wait for a child, or say that it hangs."""
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
    """Fetch with ``first_places`` at the front of ``sys.path``, and save the state at every tick."""
    sys.path[:0] = [first_places]
    from rangefetch.transfer import keeping

    keeping._FIRST_SAVE_S = keeping._SAVE_EVERY_S = 0.0
    rangefetch.fetch(url, path)


def end_while_refresh_url_blocks(url: str, path: str) -> None:
    """End the interpreter while the caller's ``refresh_url`` is running and does not return."""
    manager = rangefetch.DownloadManager()

    def never(_: str) -> str:
        time.sleep(1000)
        return ""

    where = {"save_dir": Path(path).parent, "filename": Path(path).name, "refresh_url": never}
    gid = manager.download(url, where)
    while manager.get_download_progress(gid).waiting_for != "refresh_url":
        time.sleep(0.01)


def fork_and_stay(url: str, path: str) -> None:
    """Fork a child that does nothing, in the middle of a download, and print its process ID."""
    target = Path(path)
    manager = DownloadManager()
    gid = manager.download(url, {"save_dir": target.parent, "filename": target.name})
    while manager.get_download_progress(gid).downloaded < 1 << 20:
        time.sleep(0.01)
    _stay()


def fork_with_a_session(path: str) -> None:
    """The same, without a download but with a manager that has a session file."""
    with DownloadManager(session_file=path):
        _stay()


def _stay() -> None:
    child = os.fork()
    if child == 0:
        # Close its ends of the pipes, so that nobody waits for them.
        for fd in range(3):
            os.close(fd)
        time.sleep(600)
        os._exit(0)
    print(child, flush=True)
    time.sleep(600)


def fetch_from_many_hosts(how: str, listed: str, directory: str, most_files: str) -> None:
    """Fetch the listed URLs with at most ``most_files`` open files at a time, and print how many files arrived."""
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
