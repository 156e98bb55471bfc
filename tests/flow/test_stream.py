"""``rangefetch.stream``: a remote file as a file object, read in order, fed by parallel ranges, in bounded space."""

import gc
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadStatus, streaming
from rangefetch.errors import (
    BadAnswer,
    ChecksumMismatch,
    ContentChanged,
    DiskError,
    DownloadError,
    HttpStatusError,
    LocalError,
)
from rangefetch.manager import downloads_of
from rangefetch.shared import our_downloads
from rangefetch.transfer.sink import Sink
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, content
from servers.nginx import Nginx
from support.downloads import QUICK
from support.files import MIB, names
from support.waiting import AT_ONCE, until

SIZE = 40 * MIB + 12_345


def stream(url: str, **options: object) -> io.BufferedReader:
    return rangefetch.stream(url, **(QUICK | options))


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory for temporary files."""
    directory = tmp_path / "scratch"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def _known() -> set[str]:
    """The gids of all downloads that the process's manager knows."""
    return {each.gid for each in rangefetch.get_download_manager().list_downloads()}


def _read_all(file: io.BufferedReader, into: bytearray) -> None:
    while piece := file.read1(1 << 16):
        into += piece


@pytest.mark.parametrize("piece", [1, 4096, 1 << 20, -1])
def test_it_reads_like_an_open_file(server: MisbehavingServer, piece: int) -> None:
    size = 200_001 if piece == 1 else SIZE
    with stream(server.url("/good/x", size=size)) as file:
        assert file.readable()
        assert not file.writable()
        assert not file.seekable()
        expected, read = content(size), bytearray()
        while got := file.read(piece):
            read += got
        assert bytes(read) == expected
        assert file.read() == b""
        assert file.tell() == size
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_several_connections_feed_it(server: MisbehavingServer) -> None:
    with stream(server.url("/slow/x", size=SIZE, rate="8M"), split=8) as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(content(SIZE)).digest()
    assert server.connections > 2
    assert server.bytes_sent < SIZE + 6 * MIB


@pytest.mark.parametrize("route", ["no-ranges", "no-length", "chunked", "range-then-200"])
def test_a_server_without_ranges_is_read_too(server: MisbehavingServer, route: str) -> None:
    with stream(server.url(f"/{route}/x", size=9 * MIB)) as file:
        assert file.read() == content(9 * MIB)


def test_an_empty_file_is_one(server: MisbehavingServer) -> None:
    with stream(server.url("/good/x", size=0)) as file:
        assert file.read() == b""


def test_copyfileobj_copies_it(server: MisbehavingServer, target: Path) -> None:
    with stream(server.url("/good/x", size=SIZE)) as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy)
    assert target.read_bytes() == content(SIZE)


def test_tarfile_reads_a_compressed_archive_from_it(nginx: Nginx) -> None:
    inside = {f"directory/file-{n}.bin": content(MIB, n) for n in range(12)}
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as tar:
        for name, data in inside.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    assert archive.tell() > 8 * MIB, "else it would be one request"
    nginx.write("/archive.tar.gz", archive.getvalue())
    with stream(nginx.url("/archive.tar.gz")) as file, tarfile.open(fileobj=file, mode="r|gz") as tar:
        found = {}
        for entry in tar:
            file_in_it = tar.extractfile(entry)
            assert file_in_it is not None
            found[entry.name] = file_in_it.read()
    assert found == inside


# ---- Bounded room ------------------------------------------------------------------------------------------------


def test_no_more_comes_than_a_window_ahead_of_the_reader(
    server: MisbehavingServer, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sink, "window_bytes", 8 * MIB)
    with stream(server.url("/good/x", size=SIZE)) as file:
        file.read(1)
        time.sleep(0.7)
        assert server.bytes_sent < 16 * MIB
        assert file.read() == content(SIZE)[1:]


@pytest.mark.parametrize("route", ["good", "no-ranges"])
def test_the_space_behind_the_reader_is_given_back(
    server: MisbehavingServer, scratch: Path, monkeypatch: pytest.MonkeyPatch, route: str
) -> None:
    monkeypatch.setattr(Sink, "window_bytes", 8 * MIB)
    most = 0
    with stream(server.url(f"/{route}/x", size=SIZE)) as file:
        sink = file.raw._sink  # type: ignore[attr-defined]  # private: io.RawIOBase does not have it
        while file.read(MIB):
            most = max(most, os.fstat(sink.fd).st_blocks * 512)
        assert names(scratch) == []
    assert 0 < most < 26 * MIB


MEMORY = """
import resource, sys
import rangefetch
file = rangefetch.stream(sys.argv[1])
total = 0
while piece := file.read(1 << 20):
    total += len(piece)
file.close()
print(total, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(server: MisbehavingServer) -> None:
    figures = {}
    for size in (8 * MIB, 200 * MIB):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, server.url("/good/x", size=size)],
            env=os.environ | {"PYTHONPATH": str(Path(rangefetch.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
            timeout=50,
        )
        total, most_kib = map(int, done.stdout.split())
        assert total == size
        figures[size] = most_kib
    assert figures[200 * MIB] - figures[8 * MIB] < 30 << 10


# ---- Ends --------------------------------------------------------------------------------------------------------


def test_closing_it_early_stops_the_transfer_and_forgets_it(
    server: MisbehavingServer, valve: Valve, scratch: Path
) -> None:
    before = _known()
    file = stream(server.url("/valve/x", size=SIZE))
    assert file.read(1000) == content(SIZE)[:1000]
    assert _known() > before
    started = time.monotonic()
    file.close()
    file.close()
    assert time.monotonic() - started < AT_ONCE
    server.wait_idle()
    sent = server.bytes_sent
    time.sleep(0.2)
    assert server.bytes_sent == sent < SIZE
    assert _known() == before
    assert names(scratch) == []


def test_one_that_is_dropped_is_closed(server: MisbehavingServer, valve: Valve) -> None:
    before = _known()
    file = stream(server.url("/valve/x", size=SIZE))
    file.read(1)
    del file
    gc.collect()
    until(lambda: _known() == before)
    server.wait_idle()


def test_closing_from_another_thread_ends_a_read_that_waits(server: MisbehavingServer) -> None:
    raw = stream(server.url("/stall/x", size=SIZE, after=1000), read_timeout=15.0).raw
    ended: list[object] = []

    def read() -> None:
        try:
            while raw.read(1 << 16):
                pass
        except (DownloadError, ValueError, OSError) as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.3)
    raw.close()
    thread.join(3)
    assert not thread.is_alive()
    assert len(ended) == 1


def test_a_missing_file_is_an_error_at_the_first_read(server: MisbehavingServer) -> None:
    with stream(server.url("/status/x", code=404)) as file, pytest.raises(HttpStatusError) as caught:
        file.read(1)
    assert caught.value.status == 404


def test_what_had_come_is_read_before_the_error(server: MisbehavingServer) -> None:
    url = server.url("/cut/x", size=9 * MIB, after="3M", ranges=0)
    read = bytearray()
    with stream(url, max_tries=1) as file, pytest.raises(BadAnswer):
        _read_all(file, read)
    assert len(read) > MIB
    assert bytes(read) == content(9 * MIB)[: len(read)]


def test_faults_on_the_way_are_mended_unseen(server: MisbehavingServer) -> None:
    url = server.url("/script/x", size=SIZE, steps="good|cut:after=300K|reset:after=1M|status:code=503")
    with stream(url) as file:
        assert file.read() == content(SIZE)


def test_a_file_that_changes_after_its_beginning_was_read_is_never_mixed(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sink, "window_bytes", 8 * MIB)
    url = server.url("/script/x", size=SIZE, steps="slow:rate=4M", then="good:seed=1")
    with stream(url, split=1) as file:
        read = bytearray(file.read(MIB))
        with pytest.raises(ContentChanged):
            _read_all(file, read)
    assert bytes(read) == content(SIZE)[: len(read)]
    assert len(read) < SIZE


def test_a_checksum_is_proved_by_the_read_that_comes_to_the_end(server: MisbehavingServer) -> None:
    url, digest = server.url("/good/x", size=9 * MIB), hashlib.sha256(content(9 * MIB)).hexdigest()
    with stream(url, checksum=f"sha-256={digest}") as file:
        assert file.read() == content(9 * MIB)
    with stream(url, checksum="sha-256=" + "0" * 64) as file:
        assert file.read(9 * MIB - 1) == content(9 * MIB)[:-1]
        with pytest.raises(ChecksumMismatch) as caught:
            file.read()
    assert (caught.value.expected, caught.value.actual) == ("sha-256=" + "0" * 64, f"sha-256={digest}")


# ---- A full disk, another backend --------------------------------------------------------------------------------


def test_a_disk_without_room_for_the_window_is_a_clear_error(
    server: MisbehavingServer, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    with (
        stream(server.url("/slow/x", size=SIZE, rate="1M")) as file,
        pytest.raises(DiskError, match=r"bytes are needed, but only \d+ are free"),
    ):
        file.read()
    assert names(small_disk) == []


def test_without_a_directory_for_temporary_files_it_is_an_error_of_the_disk(
    server: MisbehavingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(DiskError, match="a temporary file could not be made: No such file") as caught:
        stream(server.url("/good/x").replace("://", "://me:hidden@"))
    assert "hidden" not in str(caught.value)
    assert server.requests == []


def test_a_file_larger_than_the_disk_is_read_where_the_window_fits(
    server: MisbehavingServer, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    monkeypatch.setattr(Sink, "window_bytes", 2 * MIB)
    monkeypatch.setattr(streaming, "_GIVE_BACK_BYTES", MIB)
    with stream(server.url("/good/x", size=SIZE)) as file:
        assert file.read() == content(SIZE)


def test_a_disk_that_fills_midway_is_an_error_after_what_had_come(
    server: MisbehavingServer, valve: Valve, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    size, read = 6 * MIB, bytearray()
    with stream(server.url("/valve/x", size=size)) as file:
        read += file.read(MIB)
        with pytest.raises(OSError, match="No space"):
            (small_disk / "ballast").write_bytes(bytes(8 * MIB))
        with pytest.raises(DiskError) as caught:
            _read_all(file, read)
    assert str(small_disk) in str(caught.value)
    assert bytes(read) == content(size)[: len(read)]
    assert names(small_disk) == ["ballast"]


def test_it_needs_the_native_engine_and_says_so(
    server: MisbehavingServer, aria2c: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DownloadManager("aria2", aria2_path=aria2c, state_dir=tmp_path, download_dir=tmp_path) as manager:
        monkeypatch.setattr(streaming, "our_downloads", lambda: downloads_of(manager))
        with pytest.raises(LocalError, match="native engine") as caught:
            stream(server.url("/good/x").replace("://", "://me:hidden@"))
    assert "hidden" not in str(caught.value)
    assert server.requests == []


def test_wrong_options_are_refused_before_anything_is_opened(server: MisbehavingServer, scratch: Path) -> None:
    with pytest.raises(ValueError, match="split"):
        rangefetch.stream(server.url("/good/x"), split=0)
    with pytest.raises(TypeError, match="nothing"):
        rangefetch.stream(server.url("/good/x"), nothing=1)  # type: ignore[call-arg]  # wrong on purpose
    with pytest.raises(ValueError, match="url"):
        rangefetch.stream("file:///etc/passwd")
    assert (server.requests, names(scratch)) == ([], [])


@pytest.mark.parametrize("count", [3, 20])
def test_streams_are_read_in_any_order_however_many_are_open(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    # None of them can end before it is read, and each is read a piece at a time.
    monkeypatch.setattr(Sink, "window_bytes", MIB)
    if count == 3:
        monkeypatch.setattr(our_downloads()._queue._places, "most", 1)
    streams = [stream(server.url("/good/x", size=3 * MIB, seed=number)) for number in range(count)]
    read = [bytearray() for _ in streams]
    while any(len(each) < 3 * MIB for each in read):
        for number, file in enumerate(streams):
            read[number] += file.read(MIB // 2)
    assert [bytes(each) for each in read] == [content(3 * MIB, number) for number in range(count)]
    for file in streams:
        assert file.read() == b""
        file.close()


def test_streams_take_no_places_in_the_queue(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # None of them can end before it is read, however slow the machine.
    monkeypatch.setattr(Sink, "window_bytes", MIB)
    streams = [stream(server.url("/slow/x", size=SIZE, rate="1M", seed=number)) for number in range(17)]
    result = rangefetch.fetch(server.url("/good/x", size=MIB), target, total_timeout=60)
    assert result.size == MIB
    for file in streams:
        file.close()
    until(lambda: not rangefetch.get_download_manager().list_downloads(DownloadStatus.ACTIVE))


def test_a_stream_that_is_resumed_does_not_wait_for_its_turn(server: MisbehavingServer, target: Path) -> None:
    manager = rangefetch.get_download_manager()
    before = _known()
    with stream(server.url("/slow/x", size=4 * MIB, rate="4M")) as file:
        (gid,) = _known() - before
        assert len(file.read(MIB)) == MIB
        slow = [server.url(f"/slow/{number}", size=SIZE, rate="64K") for number in range(17)]
        queued = [manager.download(url, {"save_dir": target.parent}) for url in slow]
        manager.pause(gid)
        manager.resume(gid)
        assert file.read() == content(4 * MIB)[MIB:]
        for each in queued:
            manager.cancel(each, remove_files=True)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("code", [400, 403, 404, 416, 503, 0])
def test_a_stream_whose_ranges_are_refused_once_it_was_read_comes_as_one_response(
    server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch, code: int, lanes: int
) -> None:
    monkeypatch.setattr(Sink, "window_bytes", 8 * MIB)
    then = f"range-refused:code={code}"
    url = server.url("/script/x", size=SIZE, steps="good|good", then=then)
    options = {"split": lanes, "min_split_size": "1M", "retry_wait": 0.001}
    with stream(url, **options) as file:
        assert file.read(MIB) == content(SIZE)[:MIB]
        assert file.read() == content(SIZE)[MIB:]


@pytest.mark.parametrize("then", ["range-refused:code=403:seed=1", "range-refused:code=416:seed=1"])
def test_and_not_as_another_version(server: MisbehavingServer, monkeypatch: pytest.MonkeyPatch, then: str) -> None:
    monkeypatch.setattr(Sink, "window_bytes", 8 * MIB)
    # If nothing had been read before the refusal, it could start over as another version.
    url = server.url("/script/x", size=SIZE, steps="slow:rate=2M|good", then=then)
    got = bytearray()

    def read(file: io.BufferedReader) -> None:
        # As much as there is: on a slow machine, less than 1 MiB is requested at a time.
        while piece := file.read1(MIB):
            got.extend(piece)

    with stream(url, split=1, retry_wait=0.001) as file, pytest.raises(DownloadError):
        read(file)
    assert got
    assert content(SIZE).startswith(got)
