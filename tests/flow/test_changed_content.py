"""A remote file that has changed is detected and fetched again; two versions are never mixed."""

import hashlib
from pathlib import Path

import pytest

from rangefetch import DownloadManager
from rangefetch.errors import BadAnswer, TargetExists
from servers.misbehaving import MisbehavingServer, content
from support.downloads import FIRST_RANGE, downloaded, fails, fetch, interrupt
from support.files import MIB, begun, names, saved_bytes
from support.waiting import until

SIZE = 9 * MIB + 12_345
OTHER = 7 * MIB + 1

CHANGES = {
    "etag": ({}, "good:seed=1", SIZE, 1),
    "time": ({"etag": "none"}, "good:seed=1", SIZE, 1),
    "time beside a weak etag": ({"etag": "weak"}, "good:seed=1", SIZE, 1),
    "larger": ({}, f"good:seed=1:size={SIZE + 1}", SIZE + 1, 1),
    "smaller": ({}, f"good:seed=1:size={OTHER}", OTHER, 1),
    "smaller than what was there": ({}, "good:seed=1:size=50000", 50_000, 1),
    "empty": ({}, "empty", 0, 0),
    "other, and no ranges any more": ({}, "no-ranges:seed=1", SIZE, 1),
    "other, and no length any more": ({}, "no-length:seed=1", SIZE, 1),
}


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("change", CHANGES)
def test_between_two_runs_it_is_noticed_warned_of_and_fetched_anew(
    server: MisbehavingServer, target: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    parameters, then, size, seed = CHANGES[change]
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1M", then=then, **parameters)
    interrupt(url, target, 200_000, split=1)
    result = fetch(url, target)
    assert target.read_bytes() == content(size, seed)
    assert names(target.parent) == ["file.bin"]
    assert result.resumed == 0
    [warning] = _warnings(caplog)
    assert url in warning
    assert "starting over" in warning


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("split", [1, 8])
def test_midway_it_is_noticed_warned_of_and_fetched_anew(
    server: MisbehavingServer, target: Path, change: str, split: int, caplog: pytest.LogCaptureFixture
) -> None:
    parameters, then, size, seed = CHANGES[change]
    url = server.url("/script/x", size=SIZE, steps="good", then=then, **parameters)
    fetch(url, target, split=split)
    assert target.read_bytes() == content(size, seed)
    assert names(target.parent) == ["file.bin"]
    assert len(_warnings(caplog)) == 1


@pytest.mark.parametrize("route", ["etag-changes", "mtime-changes"])
@pytest.mark.parametrize("turn", [1, 2, 3, 5, 8])
def test_at_whichever_request_it_changes_no_old_byte_stays(
    server: MisbehavingServer, target: Path, route: str, turn: int
) -> None:
    size = 24 * MIB + 3
    # Each reply takes long enough for others to be requested: more than nine, however slow the machine.
    fetch(server.url(f"/{route}/x", size=size, skip=turn, rate="3M"), target)
    assert target.read_bytes() == content(size, 1)


def test_a_change_of_size_alone_is_noticed(server: MisbehavingServer, target: Path) -> None:
    then = f"good:size={OTHER}"
    url = server.url("/script/x", size=SIZE, etag="none", mtime=0, steps="good", then=then)
    fetch(url, target)
    assert target.read_bytes() == content(OTHER)


def test_a_validator_that_has_gone_proves_nothing(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1M", then="no-validator:seed=1")
    interrupt(url, target, 200_000, split=1)
    fetch(url, target)
    assert target.read_bytes() == content(SIZE, 1)


def test_what_was_begun_anew_can_be_stopped_and_continued(
    server: MisbehavingServer, target: Path, manager: DownloadManager
) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1M|good:seed=1|slow:rate=1M:seed=1", then="good:seed=1")
    interrupt(url, target, 200_000, split=1)
    gid = manager.download(url, {"save_dir": target.parent, "filename": target.name, "split": 1})
    until(lambda: len(server.requests) == 3 and downloaded(manager, gid) > 0)
    manager.stop()
    kept = saved_bytes(target)
    assert 0 < kept < FIRST_RANGE
    result = fetch(url, target)
    assert target.read_bytes() == content(SIZE, 1)
    assert result.resumed == kept


def test_a_file_that_changes_again_and_again_is_fetched_as_one_response(
    server: MisbehavingServer, target: Path
) -> None:
    steps = "|".join(f"good:seed={turn}" for turn in range(40))
    result = fetch(server.url("/script/x", size=SIZE, steps=steps), target)
    assert target.read_bytes() in [content(SIZE, seed) for seed in range(40)]
    assert [request.range for request in server.requests].count(None) == 1
    assert result.identity == "one response"


@pytest.mark.parametrize("page", [1, 50_000, 2 * SIZE])
def test_a_page_without_a_validator_is_not_the_new_version(server: MisbehavingServer, target: Path, page: int) -> None:
    # The page arrives after the old version's bytes were discarded: only that version's validators speak against it.
    steps = f"good|good:seed=1|no-ranges:size={page}:etag=none:mtime=0"
    fetch(server.url("/script/x", size=SIZE, steps=steps, then="good:seed=1"), target, split=1)
    assert target.read_bytes() == content(SIZE, 1)


@pytest.mark.parametrize("split", [1, 8])
@pytest.mark.parametrize("route", ["chunked", "no-length"])
@pytest.mark.parametrize("etag", ["strong", "weak"])
def test_a_page_whose_length_is_not_announced_costs_nothing_that_was_fetched(
    server: MisbehavingServer, target: Path, split: int, route: str, etag: str
) -> None:
    page = f"{route}:size=5000:etag=none:mtime=0"
    good = f"good:etag={etag}"
    fetch(server.url("/script/x", size=SIZE, steps=f"{good}|{page}|{page}", then=good), target, split=split)
    assert target.read_bytes() == content(SIZE)
    assert None not in [request.range for request in server.requests]


@pytest.mark.parametrize("route", ["chunked", "no-length", "no-ranges"])
def test_a_page_that_stays_ends_the_download_with_an_error_that_keeps_the_work(
    server: MisbehavingServer, target: Path, route: str
) -> None:
    page = f"{route}:size=5000:etag=none:mtime=0"
    url = server.url("/script/x", size=SIZE, steps="good", then=page)
    fails(BadAnswer, url, target, split=1, max_tries=3)
    assert saved_bytes(target) == FIRST_RANGE
    assert names(target.parent) == begun(target)


def test_with_a_checksum_the_new_file_is_proved(server: MisbehavingServer, target: Path) -> None:
    size = 40 * MIB
    digest = hashlib.sha256(content(size, 1)).hexdigest()
    fetch(server.url("/etag-changes/x", size=size, skip=3), target, checksum=f"sha-256={digest}")
    assert target.read_bytes() == content(size, 1)


def test_a_finished_file_is_not_replaced_by_a_changed_one(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/script/x", size=1000, steps="good", then="good:seed=1")
    fetch(url, target)
    fails(TargetExists, url, target)
    assert target.read_bytes() == content(1000)
    fetch(url, target, overwrite=True)
    assert target.read_bytes() == content(1000, 1)
