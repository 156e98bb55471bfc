"""Measures rangefetch as seen by a program that imports it: one measurement, in a process of its own.

    python inside.py MEASUREMENT KEYWORDS          KEYWORDS and the output are JSON

Only the work itself is timed, not the start and end of the interpreter.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

_BUSY = "x = 1\nwhile True: x = x * 3 % 1000003"


def fetch(url: str, directory: str, **options: Any) -> dict[str, float]:
    """Seconds, connections opened, and the largest number of simultaneous transfers seen."""
    import rangefetch

    most = 0

    def note(progress: rangefetch.DownloadProgress) -> None:
        nonlocal most
        most = max(most, progress.connections)

    # Load libcurl before the clock starts.
    with tempfile.TemporaryDirectory(dir=directory) as place, rangefetch.DownloadManager() as manager:
        begin = time.perf_counter()
        result = manager.download_and_wait(url, {"save_dir": place, **options}, on_progress=note)
        seconds = time.perf_counter() - begin
    return {"seconds": seconds, "connections": result.connections, "lanes": most, "size": result.size}


def beside_a_busy_loop(url: str, directory: str, where: str, **options: Any) -> dict[str, float]:
    """``fetch`` while a Python loop keeps the GIL of this process, or of another, busy."""
    if where == "thread":
        threading.Thread(target=exec, args=(_BUSY, {}), daemon=True).start()
        return fetch(url, directory, **options)
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", _BUSY]) as other:
        try:
            return fetch(url, directory, **options)
        finally:
            other.kill()


def limited(url: str, directory: str, limit: int, seconds: float, **options: Any) -> dict[str, float]:
    """Bytes per second under a limit, over ``seconds``, from one second after the download began."""
    import rangefetch

    with tempfile.TemporaryDirectory(dir=directory) as place, rangefetch.DownloadManager() as manager:
        gid = manager.download(url, {"save_dir": place, "max_download_limit": limit, **options})
        time.sleep(1.0)
        before, begin = manager.get_download_progress(gid).downloaded, time.perf_counter()
        time.sleep(seconds)
        after, end = manager.get_download_progress(gid).downloaded, time.perf_counter()
        manager.cancel(gid, remove_files=True)
    return {"rate": (after - before) / (end - begin)}


def after_the_last_byte(url: str, directory: str, checksum: str, **options: Any) -> dict[str, float]:
    """Seconds from the last byte to the result, and bytes per second up to then."""
    import rangefetch

    with tempfile.TemporaryDirectory(dir=directory) as place, rangefetch.DownloadManager() as manager:
        begin = time.perf_counter()
        gid = manager.download(url, {"save_dir": place, "checksum": checksum, **options})
        progress = manager.get_download_progress(gid)
        while not progress.total or progress.downloaded < progress.total:
            time.sleep(0.002)
            progress = manager.get_download_progress(gid)
        last_byte = time.perf_counter()
        size = manager.wait(gid).size
        end = time.perf_counter()
    return {"after": end - last_byte, "rate": size / (last_byte - begin)}


def on_loops(urls: list[str], directory: str, loops: int) -> dict[str, float]:
    """Seconds for several files at once, spread over that many loops."""
    from rangefetch import _engine
    from rangefetch.net import libcurl

    libcurl.load()
    engine = _engine.Engine(loops)
    profile = _engine.Profile([], [], [])
    poller = select.poll()
    poller.register(engine.fileno(), select.POLLIN)
    with tempfile.TemporaryDirectory(dir=directory) as place:
        fds = [os.open(f"{place}/{number}", os.O_RDWR | os.O_CREAT) for number in range(len(urls))]
        begin = time.perf_counter()
        for number, url in enumerate(urls):
            engine.add(_engine.File(fds[number], url, profile, lanes=8), number % loops)
        left = len(urls)
        while left:
            poller.poll()
            for event in engine.events():
                if event[0] == "FAILED":
                    raise RuntimeError(f"a transfer failed: {event}")
                left -= event[0] == "DONE"
        seconds = time.perf_counter() - begin
        engine.close()
        for fd in fds:
            os.close(fd)
    return {"seconds": seconds}


def small_files(folder_url: str, count: int, directory: str, way: str) -> dict[str, float]:
    """Seconds, and seconds of processor time, for the files 0.bin, 1.bin, ... of a folder: with ``fetch_many``, with a
    name for each file (``named``), with a ``manager``'s queue, or with ``fetch``, one after the other."""
    import rangefetch

    urls = [f"{folder_url}/{number}.bin" for number in range(count)]
    with tempfile.TemporaryDirectory(dir=directory) as place:
        begin, busy = time.perf_counter(), time.process_time()
        if way == "fetch_many":
            rangefetch.fetch_many(urls, place)
        elif way == "named":
            rangefetch.fetch_many([(url, f"file{number}") for number, url in enumerate(urls)], place)
        elif way == "manager":
            with rangefetch.DownloadManager() as manager:
                for gid in [manager.download(url, {"save_dir": place}) for url in urls]:
                    manager.wait(gid)
        else:
            for url in urls:
                rangefetch.fetch(url, save_dir=place)
        seconds, busy = time.perf_counter() - begin, time.process_time() - busy
        assert sum(1 for _ in os.scandir(place)) == count
    return {"seconds": seconds, "busy": busy}


_ALL = (fetch, beside_a_busy_loop, limited, after_the_last_byte, on_loops, small_files)

if __name__ == "__main__":
    measure = {each.__name__: each for each in _ALL}
    print(json.dumps(measure[sys.argv[1]](**json.loads(sys.argv[2]))), flush=True)
