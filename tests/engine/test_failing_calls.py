"""System calls that fail once, at the worst moment: one clear error, and no mark on what is not there."""

from __future__ import annotations

import http.server
from pathlib import Path

import pytest

from engine import children
from engine.faults import with_faults
from helpers import MIB
from servers.background import Background, Handler
from servers.misbehaving import MisbehavingServer

PAUSED_AND_FAILED = """
    import errno, sys, time
    from engine.driving import Driver
    from engine.faults import fail, happened
    from rangefetch import _engine
    from servers.misbehaving import content

    url, size, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    octets = content(size)

    def marks_are_true(file):
        held = file.tag.octets
        for number, state in enumerate(bytes(file.blocks)):
            start = number * file.block_size
            length = file.block_size if state == 2 else file.partial[number]
            end = min(start + length, size)
            assert held[start:end] == octets[start:end], f"block {number} is marked, and wrong"

    with Driver(directory) as driver:
        file = driver.add(url, lanes=1, allocation="none", first_bytes=size)
        driver.until(lambda: file.downloaded > 1 << 20)
        file.limit = 1
        paused_at = -1
        while paused_at != file.downloaded:
            paused_at = file.downloaded
            time.sleep(0.1)
        fail("pwrite", errno.EIO)
        file.limit = 0
        driver.until(lambda: driver.kinds(file)[-1:] == ["FAILED"] or "DONE" in driver.kinds(file), 20)
        assert happened("pwrite") == 1
        marks_are_true(file)
        failed = driver.log[-1]
        assert failed.kind == "FAILED", driver.log
        assert (failed.fault, failed.errno) == (_engine.FAULTS["DISK"], errno.EIO), failed
        file.release()
        assert driver.end(file, 20).kind == "DONE"
        assert file.tag.octets == octets
    print("right")
"""


@pytest.mark.parametrize("route", ["/good", "/chunked-ranges"])
def test_a_write_that_fails_while_a_pause_ends_is_told_and_nothing_after_it_counts(
    server: MisbehavingServer, tmp_path: Path, route: str
) -> None:
    # libcurl before 8 swallows an error that is raised within curl_easy_pause, and hands over what follows.
    size = 24 * MIB
    done = children.run(PAUSED_AND_FAILED, server.url(route, size=size), size, tmp_path, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


A_NAME_THAT_HANGS = """
    import sys
    from engine.driving import Driver
    from engine.faults import fail, happened
    from servers.misbehaving import content

    url, size, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    with Driver(directory) as driver:
        fail("getaddrinfo", 3600)
        waiting = driver.add("http://hangs.invalid/a.bin")
        driver.until(lambda: happened("getaddrinfo"))
        other = driver.add(url)
        waiting.remove()
        assert driver.end(waiting).kind == "REMOVED"
        assert driver.end(other).kind == "DONE"
        assert other.tag.octets == content(size)
        # And one that is there when the engine ends.
        fail("getaddrinfo", 3600)
        driver.add("http://hangs-too.invalid/a.bin")
        driver.until(lambda: happened("getaddrinfo") == 2)
    print("right")
"""


def test_removing_a_file_whose_name_is_being_looked_up_stops_no_other(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    size = 8 * MIB
    done = children.run(A_NAME_THAT_HANGS, server.url("/good", size=size), size, tmp_path, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


WRITE_BACK = """
    import sys
    from engine.driving import Driver
    from engine.faults import happened

    url, size, block, directory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    count = -(-size // block)
    with Driver(directory) as driver:
        # All but the last block is there.
        blocks = b"\\2" * (count - 1) + b"\\0"
        file = driver.fill(url, size=size, block_size=block, blocks=blocks, allocation="none", lanes=1)
        print(file.requests, happened("sync_file_range"))
"""


class _Zeros(Handler):
    """Of a file of zeros, the range that is asked for."""

    protocol_version = "HTTP/1.1"
    size = 0

    def do_GET(self) -> None:
        start, last = (int(number) for number in self.headers["Range"].removeprefix("bytes=").split("-"))
        self.send_response(206)
        self.send_header("Content-Length", str(last + 1 - start))
        self.send_header("Content-Range", f"bytes {start}-{last}/{self.size}")
        self.end_headers()
        self.wfile.write(bytes(last + 1 - start))


@pytest.mark.parametrize(("size", "calls"), [(4 * MIB, 0), ((2 << 30) - 1, 0), (2 << 30, 1), (5 << 30, 1)])
def test_write_back_is_begun_for_huge_files_alone_once_a_range(tmp_path: Path, size: int, calls: int) -> None:
    handler = type("Zeros", (_Zeros,), {"size": size})
    with Background(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        url = f"http://127.0.0.1:{server.port}/zeros"
        done = children.run(WRITE_BACK, url, size, MIB, tmp_path, env=with_faults(tmp_path))
    assert (done.stdout, done.stderr) == (f"1 {calls}\n", "")


BLIND = """
    import errno, sys, time
    from engine.driving import Driver
    from engine.faults import fail, happened
    from servers.misbehaving import content

    url, size, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    with Driver(directory) as driver:
        fail("poll", errno.ENOMEM, 1 << 30)
        # Its transfer fails, too, but commands are heard.
        file = driver.add(url)
        file.remove()
        assert driver.end(file).kind == "REMOVED"
        before = happened("poll")
        time.sleep(1)
        assert 0 < happened("poll") - before < 250, happened("poll")
        fail("poll", 0, 0)
        driver.fill(url)
    print("right")
"""


def test_a_loop_that_cannot_wait_for_its_sockets_looks_from_time_to_time(
    server: MisbehavingServer, tmp_path: Path
) -> None:
    done = children.run(BLIND, server.url("/good", size=MIB), MIB, tmp_path, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")
