"""Whether an existing file with the name is the requested one: decided by its recorded origin, otherwise its bytes."""

import errno
import itertools
import os
from pathlib import Path

import pytest

import rangefetch
from rangefetch.disk import provenance, system
from rangefetch.errors import DownloadError, TargetExists
from rangefetch.identity import Basis, Identity
from rangefetch.native.backend import NativeBackend
from rangefetch.native.small import Small
from servers.misbehaving import MisbehavingServer, content, modified
from servers.routing import ROUTES, Ask, Route
from servers.wire import Reply
from support.downloads import fails, fetch
from support.files import MIB, names

SIZE = 3 * MIB + 7
TINY = 64 << 10
"""Less than one sample."""


def _alike(ask: Ask, reply: Reply) -> Reply:
    """Another file with the same size and validators, as with nginx, which makes its ETags from size and time."""
    reply.body = memoryview(content(ask.common.size, 1))[reply.start : reply.start + len(reply.body)]
    return reply


@pytest.fixture(autouse=True)
def _route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROUTES, "alike", Route("alike", _alike, {}))


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep this process from noting which files it writes, as if another process had written them."""
    monkeypatch.setattr(provenance, "wrote", lambda path, url: None)


def _forget(path: Path) -> None:
    """Remove what a file system without extended attributes and modification times would not have kept."""
    for name in os.listxattr(path):
        os.removexattr(path, name)
    os.utime(path)


# -- two URLs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["/alike/2/data.bin", "/good/2/data.bin", "/good/1/data.bin?id=2"])
def test_what_this_run_wrote_from_another_url_is_never_already_there(
    server: MisbehavingServer, target: Path, other: str
) -> None:
    fetch(server.url("/good/1/data.bin", size=SIZE), target)
    error = fails(TargetExists, server.url(other, size=SIZE), target)
    assert "another URL" in str(error)
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]


def test_that_holds_for_two_names_of_one_file(server: MisbehavingServer, target: Path) -> None:
    upper, lower = target.with_name("A.bin"), target.with_name("a.bin")
    fetch(server.url("/good/A.bin", size=SIZE), upper)
    # Both names are one file, as on a case-insensitive file system.
    lower.hardlink_to(upper)
    fails(TargetExists, server.url("/good/a.bin", size=SIZE), lower)
    assert fetch(server.url("/good/A.bin", size=SIZE), lower).already_complete


def test_a_file_of_its_own_beside_one_that_this_run_wrote_is_looked_at(server: MisbehavingServer, target: Path) -> None:
    upper, lower = target.with_name("A.bin"), target.with_name("a.bin")
    lower.write_bytes(content(SIZE))
    fetch(server.url("/good/A.bin", size=SIZE), upper)
    assert fetch(server.url("/good/a.bin", size=SIZE), lower).already_complete


@pytest.mark.usefixtures("later")
def test_in_a_later_run_the_bytes_decide_about_another_url(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/good/1/data.bin", size=SIZE), target)
    fails(TargetExists, server.url("/alike/2/data.bin", size=SIZE), target)
    server.clear()
    assert fetch(server.url("/good/2/data.bin", size=SIZE), target).already_complete
    server.wait_idle()
    assert 2 * TINY < server.bytes_sent < 4 * TINY


@pytest.mark.usefixtures("later")
def test_where_the_etags_of_two_urls_differ_nothing_is_compared(server: MisbehavingServer, target: Path) -> None:
    fetch(server.url("/good/1/data.bin", size=SIZE), target)
    server.clear()
    fails(TargetExists, server.url("/good/2/data.bin", size=SIZE, seed=1), target)
    server.wait_idle()
    assert server.bytes_sent < TINY


# -- the same URL again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validators", ["mtime=0", "etag=weak", "etag=weak&mtime=0", "etag=none", "etag=none&mtime=0"])
@pytest.mark.parametrize("kept", [True, False])
def test_the_same_url_again_is_already_complete(
    server: MisbehavingServer, target: Path, validators: str, kept: bool
) -> None:
    url = server.url(f"/good/x?{validators}", size=SIZE)
    fetch(url, target)
    if not kept:
        _forget(target)
    server.clear()
    result = fetch(url, target)
    assert result.already_complete
    server.wait_idle()
    strong = kept and validators == "mtime=0"
    assert server.bytes_sent < (TINY if strong else 4 * TINY)


@pytest.mark.parametrize(
    ("validators", "basis"),
    [
        ("etag=strong", Basis.ETAG),
        ("etag=weak", Basis.SIZE),
        ("etag=none", Basis.SIZE),
        ("etag=none&mtime=0", Basis.SIZE),
    ],
)
def test_it_is_already_complete_where_nothing_can_be_compared(
    server: MisbehavingServer, target: Path, validators: str, basis: Basis
) -> None:
    url = server.url(f"/no-ranges/x?{validators}", size=SIZE)
    fetch(url, target)
    result = fetch(url, target)
    assert result.already_complete
    assert result.identity == basis
    assert names(target.parent) == ["file.bin"]


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize("change", ["other URL", "changed", "other size"])
def test_without_validators_the_record_of_a_file_says_whether_it_is_the_same(
    server: MisbehavingServer, target: Path, change: str
) -> None:
    url = server.url("/no-ranges/x?etag=none&mtime=0", size=SIZE)
    fetch(url, target)
    match change:
        case "other URL":
            url = server.url("/no-ranges/x?etag=none&mtime=0", size=SIZE, id=2)
        case "changed":
            target.write_bytes(content(SIZE, 1))
        case _:
            url = server.url("/script/x", size=SIZE, steps="", then=f"no-ranges:etag=none:mtime=0:size={SIZE + 1}")
    fails(TargetExists, url, target)


@pytest.mark.parametrize("route", ["no-length", "chunked"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_file_whose_size_is_not_stated_is_fetched_to_be_compared(
    server: MisbehavingServer, target: Path, route: str, seed: int
) -> None:
    then = f"{route}:etag=none:mtime=0"
    url = server.url("/script/x", size=SIZE, steps=f"{then}:seed=0", then=f"{then}:seed={seed}")
    fetch(url, target)
    if seed:
        assert "different content" in str(fails(TargetExists, url, target))
    else:
        result = fetch(url, target)
        assert result.already_complete
        assert result.identity == Basis.ONE_RESPONSE
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == ["file.bin"]


def test_a_short_body_whose_size_is_not_stated_is_compared_where_the_server_names_it(
    server: MisbehavingServer, target: Path, later: None
) -> None:
    url = server.url(
        "/chunked/x.bin", size=2000, etag="none", mtime=0, header='Content-Disposition: attachment; filename="file.bin"'
    )
    target.write_bytes(content(2000))
    # The body is short enough to have ended by the time the name is checked.
    assert rangefetch.fetch(url, save_dir=target.parent).already_complete
    assert names(target.parent) == ["file.bin"]


def test_a_large_one_that_was_not_fetched_from_there_is_not(server: MisbehavingServer, target: Path) -> None:
    target.write_bytes(content(SIZE))
    error = fails(TargetExists, server.url("/no-length/x", size=SIZE), target)
    assert "does not say how many" in str(error)


def test_no_more_is_fetched_to_be_compared_than_there_is(server: MisbehavingServer, target: Path) -> None:
    target.write_bytes(content(1000))
    url = server.url("/no-length/x", size="64M", rate="1M")
    assert "shorter" in str(fails(TargetExists, url, target))
    assert target.read_bytes() == content(1000)
    assert names(target.parent) == ["file.bin"]


def test_where_nothing_is_known_and_nothing_can_be_compared_it_is_another_file(
    server: MisbehavingServer, target: Path
) -> None:
    target.write_bytes(content(SIZE))
    os.utime(target, (0, modified(0)))
    error = fails(TargetExists, server.url("/no-ranges/x", size=SIZE), target)
    assert "cannot be compared" in str(error)
    url = server.url("/script/x", size=SIZE, steps="good", then="status:code=500")
    error = fails(TargetExists, url, target, max_tries=2)
    assert "cannot be compared" in str(error)
    assert target.read_bytes() == content(SIZE)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_small_file_is_compared_whole_where_the_server_has_no_ranges(
    server: MisbehavingServer, target: Path, seed: int
) -> None:
    target.write_bytes(content(1000, seed))
    url = server.url("/no-ranges/x", size=1000)
    if seed:
        fails(TargetExists, url, target)
    else:
        assert fetch(url, target).already_complete
    assert target.read_bytes() == content(1000, seed)


@pytest.mark.parametrize("fails_at", [1, 2])
def test_without_a_scratch_file_there_is_no_comparison(
    server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """Neither of ranges (1) nor of the whole file (2), which is requested next if the server sends no ranges."""
    made = itertools.count(1)
    scratch_file = system.open_scratch

    def limited() -> int:
        if next(made) == fails_at:
            raise OSError(errno.EMFILE, "Too many open files")
        return scratch_file()

    monkeypatch.setattr(system, "open_scratch", limited)
    target.write_bytes(content(1000))
    error = fails(TargetExists, server.url("/no-ranges/x", size=1000), target, durable=True)
    assert "a temporary file could not be made: Too many open files" in str(error)


# -- many files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "route",
    [
        "/good/{}.bin",
        "/good/{}.bin?etag=none&mtime=0",
        "/no-ranges/{}.bin",
        "/no-length/{}.bin?etag=none&mtime=0",
        "/chunked/{}.bin?etag=none&mtime=0",
    ],
)
def test_small_files_are_already_complete_in_the_next_call(server: MisbehavingServer, target: Path, route: str) -> None:
    urls = [server.url(route.format(f"file-{number}"), size=5000, seed=number) for number in range(20)]
    first = rangefetch.fetch_many(urls, target.parent)
    assert not any(result.already_complete for result in first)
    again = rangefetch.fetch_many(urls, target.parent)
    assert all(result.already_complete for result in again)
    assert len(names(target.parent)) == 20


@pytest.mark.parametrize("route", ["/good/{}.bin", "/good/{}.bin?etag=none&mtime=0", "/no-ranges/{}.bin?etag=none"])
@pytest.mark.parametrize("size", [1, 5000, 200_000])
def test_what_is_there_is_compared_on_the_way_of_small_files(
    server: MisbehavingServer, target: Path, route: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes one request and nothing that large files need: no task, no part file, no lock."""
    runs: list[str] = []
    task_instead = NativeBackend.task_instead

    def noted(self: NativeBackend, small: Small) -> None:
        runs.append(small.download.url)
        task_instead(self, small)

    monkeypatch.setattr(NativeBackend, "task_instead", noted)
    urls = [server.url(route.format(f"file-{number}"), size=size, seed=number) for number in range(20)]
    rangefetch.fetch_many(urls, target.parent)
    before = {path.name: path.stat().st_mtime_ns for path in target.parent.iterdir()}
    server.clear()
    runs.clear()
    again = rangefetch.fetch_many(urls, target.parent)
    assert [(each.already_complete, each.identity, each.size) for each in again] == [(True, "compared", size)] * 20
    assert len(server.requests) == 20
    assert runs == []
    assert {path.name: path.stat().st_mtime_ns for path in target.parent.iterdir()} == before


@pytest.mark.parametrize("there", ["other bytes", "shorter", "longer", "empty", "a link to the same", "a directory"])
def test_a_small_file_that_is_not_the_same_is_left_alone(server: MisbehavingServer, target: Path, there: str) -> None:
    url, same = server.url("/good/file.bin", size=5000), target.with_name("same")
    same.write_bytes(content(5000))
    match there:
        case "other bytes":
            target.write_bytes(content(5000, 1))
        case "shorter":
            target.write_bytes(content(4999))
        case "longer":
            target.write_bytes(content(5000) + b"x")
        case "empty":
            target.touch()
        case "a link to the same":
            target.symlink_to(same)
        case "a directory":
            target.mkdir()
    kept = target.read_bytes() if target.is_file() else None
    (outcome,) = rangefetch.fetch_many([url], target.parent, on_error="return")
    if there == "a link to the same":
        assert not isinstance(outcome, DownloadError)
        assert outcome.already_complete
    else:
        assert isinstance(outcome, DownloadError)
        assert there == "a directory" or isinstance(outcome, TargetExists)
    assert (target.read_bytes() if target.is_file() else None) == kept
    assert names(target.parent) == ["file.bin", "same"]


def test_another_small_file_gets_a_number_where_that_is_wanted(server: MisbehavingServer, target: Path) -> None:
    target.write_bytes(content(5000, 1))
    url = server.url("/good/file.bin", size=5000)
    (result,) = rangefetch.fetch_many([url], target.parent, auto_file_renaming=True)
    assert (result.filename, result.path.read_bytes()) == ("file.1.bin", content(5000))
    assert target.read_bytes() == content(5000, 1)


def test_a_small_file_that_this_run_wrote_from_another_url_is_never_already_there(
    server: MisbehavingServer, target: Path
) -> None:
    rangefetch.fetch_many([server.url("/good/1/file.bin", size=5000)], target.parent)
    (error,) = rangefetch.fetch_many([server.url("/good/2/file.bin", size=5000)], target.parent, on_error="return")
    assert isinstance(error, TargetExists)
    assert "another URL" in str(error)


@pytest.mark.parametrize("validators", ["etag=strong", "etag=none&mtime=0"])
def test_a_new_version_on_the_server_is_another_file(server: MisbehavingServer, target: Path, validators: str) -> None:
    url = server.url(f"/script/x?{validators}", size=SIZE, steps="good", then="good:seed=1")
    fetch(url, target, split=1, max_connection_per_server=1)
    fails(TargetExists, url, target)
    assert target.read_bytes() == content(SIZE)


def test_a_file_that_was_changed_since_is_another_one(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE)
    fetch(url, target)
    target.write_bytes(content(SIZE, 1))
    fails(TargetExists, url, target)
    assert target.read_bytes() == content(SIZE, 1)


def test_a_copy_by_another_program_is_already_complete(server: MisbehavingServer, target: Path) -> None:
    for size in (1, 1000, SIZE):
        target.write_bytes(content(size))
        assert fetch(server.url("/good/x", size=size), target).already_complete


def test_an_empty_file_without_a_date_is_already_complete(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/empty/x?mtime=0")
    fetch(url, target)
    assert fetch(url, target).already_complete
    assert names(target.parent) == ["file.bin"]


# -- what is kept with a file ------------------------------------------------------------------------------------------


def test_what_is_kept_tells_no_secret(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE, id="s3cret").replace("http://", "http://user:passw0rd@") + "#fr4gment"
    fetch(url, target)
    kept = b"".join(os.getxattr(target, name) for name in os.listxattr(target))
    assert b"/good/x" in kept
    for secret in (b"s3cret", b"user", b"passw0rd", b"fr4gment"):
        assert secret not in kept


def test_it_holds_for_the_bytes_it_was_kept_with(target: Path) -> None:
    with target.open("w+b") as file:
        file.write(b"data")
        file.flush()
        provenance.record(file.fileno(), "http://h/x", Identity(etag='"1"'), 1e9)
        assert provenance.recall(file.fileno()) == provenance.Origin("http://h/x", '"1"')
        os.utime(target, (0, 1e9 + 2))
        assert provenance.recall(file.fileno()) is None
        provenance.record(file.fileno(), "http://h/x", Identity(), None)
        file.write(b"more")
        file.flush()
        assert provenance.recall(file.fileno()) is None


@pytest.mark.parametrize("value", [b"", b"2\nhttp://h/x\n\n\n4 0", b"1\n" * 9, b"\xff" * 100])
def test_what_makes_no_sense_is_as_nothing(target: Path, value: bytes) -> None:
    target.write_bytes(b"data")
    os.utime(target, ns=(0, 0))
    os.setxattr(target, "user.rangefetch.origin", value)
    with target.open("rb") as file:
        assert provenance.recall(file.fileno()) is None


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("http://h/x", "HTTP://H/x", True),
        ("http://u:p@h/x#a", "http://h/x#b", True),
        ("http://h", "http://h/", True),
        ("http://h/x", "https://h/x", False),
        ("http://h/x", "http://h/X", False),
        ("http://h/x", "http://h:8080/x", False),
        ("http://h/x?a=1", "http://h/x?a=2", False),
        ("http://h/x?a=1", "http://h/x", False),
    ],
)
def test_which_urls_are_the_same(one: str, other: str, equal: bool) -> None:
    assert (provenance.public_url(one) == provenance.public_url(other)) == equal
