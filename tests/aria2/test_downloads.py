"""Downloads through the aria2 backend, which keeps the promises of the interface too."""

import hashlib
import logging
import os
from pathlib import Path

import pytest

from aria2.driving import Desk, downloaded
from rangefetch.errors import (
    BadAnswer,
    ChecksumMismatch,
    ConnectionFailed,
    ContentChanged,
    DiskError,
    FileTooLarge,
    HttpStatusError,
    TargetExists,
    TargetLocked,
    TimedOut,
)
from rangefetch.progress import DownloadStatus
from rangefetch.transfer.samples import SAMPLE_BYTES
from servers.misbehaving import MisbehavingServer, content, modified, refused_port
from servers.tls import Certificates
from support.files import MIB, names
from support.waiting import until

SIZE = 12 * MIB + 7


def _digest(size: int, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, content(size)).hexdigest()


# -- results --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "size"),
    [
        ("good", SIZE),
        ("good", 1),
        ("empty", 0),
        ("empty-200", 0),
        ("no-ranges", SIZE),
        ("no-length", MIB),
        ("chunked", MIB),
        ("close-each", SIZE),
        ("redirect", SIZE),
        ("no-validator", SIZE),
        ("weak-etag", SIZE),
        ("odd-headers", SIZE),
        ("http10", MIB),
    ],
)
def test_a_download_is_right_and_leaves_nothing_else(
    desk: Desk, server: MisbehavingServer, target: Path, route: str, size: int
) -> None:
    result = desk.fetch(server.url(f"/{route}/x", size=size), target)
    assert target.read_bytes() == content(size)
    assert names(target.parent) == [target.name]
    assert (result.path, result.filename, result.size) == (target, target.name, size)
    assert result.seconds > 0
    assert not result.already_complete


def test_a_download_has_the_time_of_the_remote_file_and_the_mode_of_a_new_one(
    desk: Desk, server: MisbehavingServer, target: Path
) -> None:
    desk.fetch(server.url("/good/x", size=SIZE), target)
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mtime == modified()
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask


def test_several_downloads_go_at_once(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    begun = [desk.begin(server.url("/good/x", size=SIZE, id=str(n)), target.with_name(f"{n}.bin")) for n in range(12)]
    for download in begun:
        assert desk.wait(download).path.read_bytes() == content(SIZE)
    assert len(names(target.parent)) == 12


def test_the_final_name_is_not_there_before_the_last_byte(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    download = desk.begin(server.url("/slow/x", size=SIZE, rate="8M"), target)
    until(lambda: downloaded(download) > 0)
    assert "file.bin" not in names(target.parent)
    assert "file.bin.part" in names(target.parent)
    desk.halt(download, remove_files=True)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/good/a%20name.bin", "a name.bin"), ("/disposition/x", "disposed.bin"), ("/redirect/x", "good")],
)
def test_the_server_names_what_the_user_does_not(
    desk: Desk, server: MisbehavingServer, target: Path, path: str, name: str
) -> None:
    download = desk.begin(server.url(path, size=MIB), target.parent)
    assert desk.wait(download).filename == name
    assert names(target.parent) == [name]
    assert download.progress().filename == name


def test_progress_has_figures(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    download = desk.begin(server.url("/slow/x", size=SIZE, rate="256K"), target)
    until(lambda: download.progress().speed > 0 and download.progress().connections > 1)
    progress = download.progress()
    assert 0 < progress.downloaded < progress.total == SIZE
    assert progress.percentage == pytest.approx(100 * progress.downloaded / SIZE)
    assert progress.eta is not None
    desk.halt(download)
    assert download.progress().speed == 0


# -- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["md5", "sha-1", "sha-256", "sha-512", "blake2b"])
def test_a_checksum_is_proven(desk: Desk, server: MisbehavingServer, target: Path, algorithm: str) -> None:
    digest = _digest(SIZE, algorithm.replace("-", ""))
    result = desk.fetch(server.url("/good/x", size=SIZE), target, checksum=f"{algorithm}={digest}")
    assert result.checksum == f"{algorithm}={digest}"


def test_a_wrong_checksum_publishes_nothing(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    wrong = "sha-256=" + "0" * 64
    error = desk.fails(ChecksumMismatch, server.url("/good/x", size=SIZE), target, checksum=wrong)
    assert isinstance(error, ChecksumMismatch)
    assert (error.expected, error.actual) == (wrong, f"sha-256={_digest(SIZE)}")
    assert names(target.parent) == ["file.bin.bad"]


def test_headers_and_user_agent_travel(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/needs/x", size=SIZE, name="X-Token", value="secret one")
    desk.fetch(url, target, headers={"X-Token": "secret one"}, user_agent="tester/1")
    assert {request.headers["user-agent"] for request in server.requests} == {"tester/1"}


def test_a_password_in_the_url_travels_and_is_not_told(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/needs/x", size=MIB, value="Basic dXNlcjpwYTpzcw==").replace("//", "//user:pa%3Ass@", 1)
    result = desk.fetch(url, target)
    assert "pa%3Ass" not in str(result)


def test_headers_do_not_follow_a_redirect_to_another_origin(
    desk: Desk, server: MisbehavingServer, other_server: MisbehavingServer, target: Path
) -> None:
    away = other_server.url("/good/x", size=SIZE)
    desk.fetch(server.url("/redirect/x", to=away), target, headers={"X-Token": "secret", "Authorization": "Bearer s"})
    assert other_server.requests
    for request in other_server.requests:
        assert "x-token" not in request.headers
        assert "authorization" not in request.headers
    assert server.requests[0].headers["x-token"] == "secret"


def test_more_than_16_connections_are_capped_and_that_is_said(
    desk: Desk, server: MisbehavingServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "rangefetch"):
        desk.fetch(server.url("/good/x", size=SIZE), target, max_connection_per_server=64, split=64)
    assert "at most 16, not 64" in caplog.text


def test_one_connection_where_one_is_wanted(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    result = desk.fetch(server.url("/slow/x", size=SIZE, rate="16M"), target, split=1)
    assert result.connections == 1
    asked = [request.range for request in server.requests]
    assert asked == [(0, 1), None, (0, 1)]  # the size, the file, and a check that it has not changed


def test_a_limit_holds_and_can_be_changed(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    download = desk.begin(server.url("/good/x", size=64 * MIB), target, max_download_limit="1M")
    until(lambda: downloaded(download) > 0)
    assert downloaded(download) < 8 * MIB
    assert desk.backend is not None
    download.options = type(download.options).of(download.options, max_download_limit=0)
    desk.backend.change(download)
    assert desk.wait(download, timeout=30).size == 64 * MIB
    assert target.read_bytes() == content(64 * MIB)


@pytest.mark.alone
def test_a_limit_for_all_holds_and_can_be_lifted(own_desk: Desk, server: MisbehavingServer, target: Path) -> None:
    assert own_desk.backend is not None
    own_desk.backend.limit(MIB)
    try:
        urls = [server.url("/good/x", size=32 * MIB, id=str(number)) for number in range(2)]
        begun = [own_desk.begin(url, target.with_name(f"{number}")) for number, url in enumerate(urls)]
        until(lambda: all(downloaded(download) > MIB // 4 for download in begun))
        assert sum(map(downloaded, begun)) < 16 * MIB
    finally:
        own_desk.backend.limit(0)
    for download in begun:
        assert own_desk.wait(download).size == 32 * MIB


def test_certificates_of_a_download(
    own_desk: Desk, tls_server: MisbehavingServer, certificates: Certificates, target: Path
) -> None:
    url = tls_server.url("/good/x", size=SIZE)
    own_desk.fetch(url, target, ca_file=certificates.ca)
    own_desk.fetch(url, target.with_name("second"), verify_tls=False)
    assert target.read_bytes() == content(SIZE)


def test_mirrors_step_in(desk: Desk, server: MisbehavingServer, other_server: MisbehavingServer, target: Path) -> None:
    good = other_server.url("/good/x", size=SIZE)
    desk.fetch(server.url("/status/x", code=404), target, mirrors=[good])
    assert target.read_bytes() == content(SIZE)


# -- failures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_an_error_at_once(desk: Desk, server: MisbehavingServer, target: Path, code: int) -> None:
    error = desk.fails(HttpStatusError, server.url("/status/x", code=code), target)
    assert error.status == code
    assert names(target.parent) == []


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504, 520])
def test_what_passes_is_tried_again(desk: Desk, server: MisbehavingServer, target: Path, code: int) -> None:
    desk.fetch(server.url("/status/x", code=code, size=SIZE, times=2, skip=1), target)
    assert target.read_bytes() == content(SIZE)
    assert [request.status for request in server.requests].count(code) == 2


def test_what_does_not_pass_is_given_up(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    error = desk.fails(HttpStatusError, server.url("/status/x", code=503), target, max_tries=3)
    assert error.status == 503
    assert len(error.tried) == 3


def test_nobody_is_there(desk: Desk, target: Path) -> None:
    desk.fails(ConnectionFailed, f"http://127.0.0.1:{refused_port()}/x", target, max_tries=2)
    desk.fails(ConnectionFailed, "http://nowhere.invalid/x", target, max_tries=2)
    assert names(target.parent) == []


def test_a_connection_that_breaks_is_gone_on_with(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    desk.fetch(server.url("/cut/x", size=SIZE, after="256K", times=60), target, max_tries=20)
    assert target.read_bytes() == content(SIZE)


def test_a_server_without_ranges_that_breaks_off_is_begun_anew(
    desk: Desk, server: MisbehavingServer, target: Path
) -> None:
    desk.fetch(server.url("/cut/x", size=4 * MIB, ranges=0, after="2M", times=1), target)
    assert target.read_bytes() == content(4 * MIB)


def test_a_server_that_allows_few_connections_gets_few(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/limited-connections/x", size=SIZE, limit=2, rate="4M")
    desk.fetch(url, target, min_split_size="1M", total_timeout=60)
    assert target.read_bytes() == content(SIZE)


def test_time_is_up(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    desk.fails(TimedOut, server.url("/slow/x", size=SIZE, rate="10K"), target, total_timeout=1.0)


def test_the_disk_is_full(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    error = desk.fails(DiskError, server.url("/good/x", size=MIB), Path("/proc/nowhere/file.bin"))
    assert isinstance(error, DiskError)
    assert error.errno


def test_no_encoding_is_taken(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    desk.fails(BadAnswer, server.url("/encoded/x", size=MIB), target)


def test_a_redirect_to_a_file_is_refused(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    desk.fails(BadAnswer, server.url("/redirect-to-file-scheme/x"), target)


def test_a_file_that_changes_on_the_way_is_not_published(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    for turn in range(6):
        url = server.url("/etag-changes/x", size=SIZE, skip=turn)
        desk.fetch(url, target.with_name(f"{turn}"))
        assert target.with_name(f"{turn}").read_bytes() in (content(SIZE), content(SIZE, 1))


@pytest.mark.parametrize("route", ["good", "chunked"])
def test_a_file_that_is_larger_than_allowed_is_refused(
    desk: Desk, server: MisbehavingServer, target: Path, route: str
) -> None:
    desk.fails(FileTooLarge, server.url(f"/{route}/x", size=SIZE), target, max_file_size=SIZE - 1)
    assert not target.exists()
    desk.fetch(server.url(f"/{route}/y", size=SIZE), target, max_file_size=SIZE)
    assert target.read_bytes() == content(SIZE)


def test_another_size_than_expected_is_refused(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    desk.fails(ContentChanged, server.url("/good/x", size=SIZE), target, expected_size=SIZE + 1)
    assert names(target.parent) == []


# -- files that already exist ---------------------------------------------------------------------------------------


def test_a_finished_file_is_already_complete(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE)
    desk.fetch(url, target)
    server.clear()
    result = desk.fetch(url, target)
    assert result.already_complete
    server.wait_idle()
    assert server.bytes_sent <= 1 + 3 * SAMPLE_BYTES
    assert names(target.parent) == ["file.bin"]


def test_with_the_right_checksum_no_request_is_made(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    target.write_bytes(content(SIZE))
    result = desk.fetch(server.url("/good/x", size=SIZE), target, checksum=f"sha-256={_digest(SIZE)}")
    assert result.already_complete
    assert server.requests == []


@pytest.mark.parametrize("checksum", ["", f"sha-256={'0' * 64}"])
def test_another_file_is_left_alone(desk: Desk, server: MisbehavingServer, target: Path, checksum: str) -> None:
    target.write_bytes(b"precious")
    desk.fails(TargetExists, server.url("/good/x", size=SIZE), target, checksum=checksum)
    assert target.read_bytes() == b"precious"
    assert names(target.parent) == ["file.bin"]


def test_another_file_is_replaced_where_that_is_asked_for(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    target.write_bytes(b"worthless")
    desk.fetch(server.url("/good/x", size=SIZE), target, overwrite=True)
    assert target.read_bytes() == content(SIZE)


def test_a_file_that_appears_meanwhile_is_left_alone(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    download = desk.begin(server.url("/slow/x", size=2 * MIB, rate="2M"), target)
    until(lambda: downloaded(download) > 0)
    target.write_bytes(b"precious")
    with pytest.raises(TargetExists):
        desk.wait(download)
    assert target.read_bytes() == b"precious"


def test_two_downloads_into_one_file_are_refused(desk: Desk, server: MisbehavingServer, target: Path) -> None:
    url = server.url("/slow/x", size=SIZE, rate="100K")
    download = desk.begin(url, target)
    until(lambda: downloaded(download) > 0)
    desk.fails(TargetLocked, url, target)
    desk.halt(download)
    assert download.status is DownloadStatus.PAUSED
