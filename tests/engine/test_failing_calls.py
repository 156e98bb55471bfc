"""System calls that fail once, at the worst moment: there is one clear error, and no missing byte is marked written."""

from __future__ import annotations

import errno
import http.server
from pathlib import Path

import pytest

from servers.background import Background, Handler
from servers.misbehaving import MisbehavingServer
from support import children
from support.faults import with_faults
from support.files import MIB

PAUSED_AND_FAILED = """
    import errno, sys, time
    from engine.driving import Driver
    from support.faults import fail, happened
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
        driver.until(lambda: driver.names(file)[-1:] == ["FAILED"] or "DONE" in driver.names(file))
        assert happened("pwrite") == 1
        marks_are_true(file)
        failed = driver.log[-1]
        assert failed.name == "FAILED", driver.log
        assert (failed.fault, failed.errno) == (_engine.FAULTS["DISK"], errno.EIO), failed
        file.release()
        assert driver.end(file).name == "DONE"
        assert file.tag.octets == octets
    print("right")
"""


@pytest.mark.parametrize("route", ["/good", "/chunked-ranges"])
def test_a_write_that_fails_while_a_pause_ends_is_told_and_nothing_after_it_counts(
    server: MisbehavingServer, tmp_path: Path, route: str
) -> None:
    # libcurl before 8 swallows an error from a callback within curl_easy_pause, and delivers the data that follows.
    size = 24 * MIB
    url = server.url(route, size=size, rate="16M")  # so that it is not there before it is paused
    done = children.run(PAUSED_AND_FAILED, url, size, tmp_path, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


A_NAME_THAT_HANGS = """
    import sys
    from engine.driving import Driver
    from support.faults import fail, happened
    from servers.misbehaving import content

    url, size, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    with Driver(directory) as driver:
        fail("getaddrinfo", 3600)
        waiting = driver.add("http://hangs.invalid/a.bin")
        driver.until(lambda: happened("getaddrinfo"))
        other = driver.add(url)
        waiting.remove()
        assert driver.end(waiting).name == "REMOVED"
        assert driver.end(other).name == "DONE"
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
    from support.faults import happened

    url, size, block, directory = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    count = -(-size // block)
    with Driver(directory) as driver:
        # All but the last block is there.
        blocks = b"\\2" * (count - 1) + b"\\0"
        file = driver.fill(url, size=size, block_size=block, blocks=blocks, allocation="none", lanes=1)
        print(file.requests, happened("sync_file_range"))
"""


class _Zeros(Handler):
    """Serves the requested range of a file of zeros."""

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
    from support.faults import fail, happened
    from servers.misbehaving import content

    url, size, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    with Driver(directory) as driver:
        fail("poll", errno.ENOMEM, 1 << 30)
        # Its transfer fails, too, but commands are heard.
        file = driver.add(url)
        file.remove()
        assert driver.end(file).name == "REMOVED"
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


WITHOUT_LIBCURL = """
    import sys
    from engine.driving import Driver
    from support.faults import fail, happened
    from rangefetch.transfer.failure import Curl
    from rangefetch import _engine
    from servers.misbehaving import content

    url, size, directory, lanes = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    with Driver(directory) as driver:
        file = driver.add(url, lanes=lanes, first_bytes=1 << 20, least_bytes=1 << 20)
        driver.until(lambda: file.lanes_busy == lanes)
        fail("curl_multi_perform", 3)
        # Each of its transfers ends and is told of, once.
        driver.until(lambda: driver.names(file).count("FAILED") == lanes)
        assert happened("curl_multi_perform") == 1
        told = [event for event in driver.log if event.name == "FAILED"]
        assert {event.code for event in told} == {Curl.FAILED_INIT}, told
        assert {event.fault for event in told} == {_engine.FAULTS["NONE"]}, told
        assert file.lanes_busy == 0
        # Another file, and the same one once its lanes may go on, are none the worse.
        driver.fill(url)
        for _ in range(lanes):
            file.release()
        assert driver.end(file).name == "DONE"
        assert file.tag.octets == content(size)
    assert _engine.live_handles() == 0
    print("right")
"""


@pytest.mark.parametrize("lanes", [1, 4])
def test_a_libcurl_that_fails_as_a_whole_ends_the_transfers_that_it_had(
    server: MisbehavingServer, tmp_path: Path, lanes: int
) -> None:
    size = 8 * MIB
    url = server.url("/slow", size=size, rate=2 * MIB)
    done = children.run(WITHOUT_LIBCURL, url, size, tmp_path, lanes, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


DEAD_LIBCURL = """
    import sys
    from engine.driving import Driver
    from support.faults import fail
    from servers.misbehaving import content

    url, size, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    with Driver(directory) as driver:
        fail("curl_multi_perform", 3, 1 << 30)
        file = driver.add(url)
        driver.until(lambda: "FAILED" in driver.names(file))
        file.release()
        driver.until(lambda: driver.names(file).count("FAILED") == 2)
        file.remove()
        assert driver.end(file).name == "REMOVED"
        left = driver.add(url)  # for the engine's end
        driver.until(lambda: "FAILED" in driver.names(left))
        fail("curl_multi_perform", 0, 0)
        assert driver.fill(url).tag.octets == content(size)
    print("right")
"""


def test_with_a_libcurl_that_always_fails_commands_are_heard(server: MisbehavingServer, tmp_path: Path) -> None:
    done = children.run(DEAD_LIBCURL, server.url("/good", size=MIB), MIB, tmp_path, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


A_TRANSFER_THAT_CANNOT_BEGIN = """
    import sys
    from engine.driving import Driver
    from support.faults import fail, happened
    from rangefetch.transfer.failure import Curl
    from rangefetch import _engine
    from servers.misbehaving import content

    url, directory = sys.argv[1:3]
    size, lanes, skipped = map(int, sys.argv[3:])
    with Driver(directory) as driver:
        options = {"first_bytes": 1 << 20, "least_bytes": 1 << 20, "lanes": 1}
        if lanes == 1:
            fail("curl_multi_add_handle", 3, after=skipped)
            file = driver.add(url, **options)
        else:
            file = driver.add(url, **options)
            driver.until(lambda: "ANSWERED" in driver.names(file))
            fail("curl_multi_add_handle", 3, lanes - 1, after=skipped)
            file.lanes = lanes
        times = max(lanes - 1, 1)
        driver.until(lambda: driver.names(file).count("FAILED") == times)
        assert happened("curl_multi_add_handle") == times
        for event in [event for event in driver.log if event.name == "FAILED"]:
            assert event.code == Curl.OUT_OF_MEMORY, event
            assert event.text == _engine.error_text(event.code), event
            # What the handle knew of an earlier transfer is none of this one's.
            assert (event.status, event.fault, event.errno, event.headers) == (0, 0, 0, ""), event
            file.release()
        assert driver.end(file).name == "DONE"
        assert file.tag.octets == content(size)
    assert _engine.live_handles() == 0
    print("right")
"""


@pytest.mark.parametrize(
    ("route", "lanes", "skipped"),
    [("/slow", 1, 0), ("/slow", 1, 1), ("/slow", 4, 0), ("/redirect", 1, 1)],
    ids=["the first", "the second range", "ranges at once", "a redirect's"],
)
def test_a_transfer_that_libcurl_does_not_take_is_told_of_and_comes_once_more(
    server: MisbehavingServer, tmp_path: Path, route: str, lanes: int, skipped: int
) -> None:
    size = 8 * MIB
    url = server.url(route, size=size, **({"rate": 4 * MIB} if route == "/slow" else {}))
    arguments = (url, tmp_path, size, lanes, skipped)
    done = children.run(A_TRANSFER_THAT_CANNOT_BEGIN, *arguments, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


SMALL_FILES = """
    import errno, os, sys
    from engine.driving import Driver
    from support.faults import fail, happened
    from servers.misbehaving import content

    url, size, directory, call, failure = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
    place = os.path.join(directory, "files")
    os.mkdir(place)
    fd = os.open(place, os.O_RDONLY)
    with Driver(directory) as driver:
        fail(call, failure)
        files = [driver.small(url, fd, f"{number}.bin", host_lanes=1) for number in range(4)]
        ends = {"DONE", "HELD", "FAILED"}
        driver.until(lambda: all(ends.intersection(driver.names(file)) for file in files))
        assert happened(call) == 1
        # The first is Python's to give a place; of it there is nothing.
        heard = [driver.names(file) for file in files]
        assert heard[0][-1] in ("HELD", "FAILED"), heard
        assert heard[1:] == [["DONE"]] * 3, heard
        assert sorted(os.listdir(place)) == ["1.bin", "2.bin", "3.bin"]
        for name in os.listdir(place):
            with open(os.path.join(place, name), "rb") as file:
                assert file.read() == content(size)
    os.close(fd)
    print("right")
"""


@pytest.mark.parametrize(
    ("call", "failure", "size"),
    [
        ("openat", errno.EMFILE, 50_000),
        ("openat", errno.EOPNOTSUPP, 0),
        ("pwrite", errno.EIO, 50_000),
        ("curl_multi_add_handle", 3, 50_000),
    ],
)
def test_a_small_file_for_which_a_call_fails_is_held_and_the_others_go_on(
    server: MisbehavingServer, tmp_path: Path, call: str, failure: int, size: int
) -> None:
    url = server.url("/good", size=size)
    done = children.run(SMALL_FILES, url, size, tmp_path, call, failure, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


BLIND_AS_LIBCURL_IS = """
    import sys, time
    from engine.driving import Driver
    from support.faults import fail, happened
    from servers.misbehaving import content

    url, size, directory = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    with Driver(directory) as driver:
        began = time.monotonic()
        fail("curl_multi_poll", 3, 1 << 30)
        assert driver.fill(url).tag.octets == content(size)
        removed = driver.add(url)
        removed.remove()
        assert driver.end(removed).name in ("REMOVED", "DONE")
        # It looks every 10 ms, and not again and again.
        driver.until(lambda: happened("curl_multi_poll") > 20)
        assert happened("curl_multi_poll") <= (time.monotonic() - began) * 100 + 2
    print("right")
"""


def test_a_loop_whose_libcurl_cannot_wait_looks_from_time_to_time(server: MisbehavingServer, tmp_path: Path) -> None:
    done = children.run(BLIND_AS_LIBCURL_IS, server.url("/good", size=MIB), MIB, tmp_path, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")


NO_MEMORY_FOR_AN_EVENT = """
    import errno, sys
    from engine.driving import Driver
    from support.faults import fail, happened
    from rangefetch import _engine

    url, what, directory = sys.argv[1], sys.argv[2], sys.argv[3]
    with Driver(directory) as driver:
        profile = _engine.Profile([], [], [], read_timeout_s=1 if what == "fails" else 60)
        file = driver.add(url, profile=profile)
        driver.until(lambda: driver.names(file) == ["ANSWERED"])
        fail("realloc", errno.ENOMEM, 1 << 30)
        if what == "removed":
            file.remove()
        assert driver.end(file).name == "REMOVED"
        assert what == "removed" or happened("realloc")
        fail("realloc", 0, 0)
    print("right")
"""


@pytest.mark.parametrize("what", ["removed", "fails"])
def test_without_memory_for_an_event_the_last_one_is_told_all_the_same(
    server: MisbehavingServer, tmp_path: Path, what: str
) -> None:
    url = server.url("/stall", size=8 * MIB, after=100_000)
    done = children.run(NO_MEMORY_FOR_AN_EVENT, url, what, tmp_path, env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "right\n", "")
