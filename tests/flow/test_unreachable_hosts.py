"""A host whose files fail one after the other does not hold up other hosts, and not all of its files are tried."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadResult, batch, fetch_iter, fetch_many
from rangefetch.errors import ConnectionFailed, HostUnreachable, HttpStatusError
from rangefetch.unreachable import FAILURES_IN_A_ROW
from servers.counting import CountingServer
from servers.listening import free_ports
from servers.misbehaving import MisbehavingServer, refused_port

AT_WORK = 40
"""How many more downloads may have ended, or be at work, when the last failure of those in a row is noticed."""

IMPATIENT: dict[str, Any] = {"max_tries": 1, "retry_wait": 0.01, "max_concurrent_downloads": 4}


@pytest.fixture
def counting() -> Iterator[CountingServer]:
    with CountingServer() as server:
        yield server


def dead(port: int, count: int) -> list[str]:
    return [f"http://127.0.0.1:{port}/dead-{number:04}" for number in range(count)]


@pytest.mark.parametrize("how", ["fetch_many", "fetch_iter"])
def test_its_files_come_last_and_are_not_all_tried(
    counting: CountingServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    port = refused_port()
    urls = dead(port, 1000) + [counting.url(f"f{number}") for number in range(20)]
    with caplog.at_level(logging.INFO, "rangefetch"):
        if how == "fetch_many":
            outcomes: list[Any] = fetch_many(urls, tmp_path, on_error="return", **IMPATIENT)
        else:
            fetched = sorted(fetch_iter(urls, tmp_path, **IMPATIENT))
            outcomes = [each.outcome for each in fetched]
    assert all(isinstance(outcome, DownloadResult) for outcome in outcomes[1000:])
    not_tried = [outcome for outcome in outcomes[:1000] if isinstance(outcome, HostUnreachable)]
    assert all(isinstance(outcome, ConnectionFailed) for outcome in outcomes[:1000])
    # These were tried: those in a row, those at work when the last of them failed, and one at the end.
    assert 0 < 1000 - len(not_tried) <= FAILURES_IN_A_ROW + AT_WORK + 1
    assert {error.host for error in not_tried} == {f"127.0.0.1:{port}"}
    said = [record.getMessage() for record in caplog.records if record.module == "batch"]
    aside, given_up = said
    assert aside.startswith(f"127.0.0.1:{port}: {FAILURES_IN_A_ROW} downloads in a row have failed (")
    assert given_up.endswith(f"; {len(not_tried)} of its files were not tried")


def test_one_that_is_there_again_at_the_end_has_all_of_its_files_fetched(
    counting: CountingServer, tmp_path: Path
) -> None:
    """It comes back when most of the other host's files are done."""
    [port] = free_ports(1)
    server = MisbehavingServer(port=port)
    urls = [f"http://127.0.0.1:{port}/good/{number}?size=100" for number in range(300)]
    items = urls + [counting.url(f"f{number}") for number in range(200)]
    failed, done = 0, 0
    try:
        for fetched in fetch_iter(items, tmp_path, host_rate=400, **IMPATIENT):
            done += fetched.error is None
            failed += fetched.error is not None
            if fetched.number >= 300 and done == 150:
                server.start()
    finally:
        server.stop()
    assert FAILURES_IN_A_ROW <= failed <= FAILURES_IN_A_ROW + AT_WORK
    assert done == 500 - failed


def test_an_answer_of_whatever_kind_shows_that_a_host_is_there(server: MisbehavingServer, tmp_path: Path) -> None:
    urls = [server.url(f"/status/{number}", code=404) for number in range(50)]
    outcomes = fetch_many(urls, tmp_path, on_error="return", **IMPATIENT)
    assert all(isinstance(outcome, HttpStatusError) for outcome in outcomes)
    assert len(server.requests) >= 50


def test_files_with_mirrors_are_tried(counting: CountingServer, tmp_path: Path) -> None:
    urls = dead(refused_port(), 60)
    items: list[Any] = [*urls[:30], *((url, {"mirrors": [counting.url(url[-9:])]}) for url in urls[30:])]
    outcomes = fetch_many(items, tmp_path, on_error="return", **IMPATIENT)
    assert all(isinstance(outcome, DownloadResult) for outcome in outcomes[30:])
    assert any(isinstance(outcome, HostUnreachable) for outcome in outcomes[:30])


def test_no_more_is_kept_for_the_end_than_there_is_room_for(
    counting: CountingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an iterator has more files of such a host than are kept for the end, the rest fail at once."""
    monkeypatch.setattr("rangefetch.iterating.MOST_KEPT", 50)
    assert batch.MOST_KEPT > 50
    taken = 0

    def items() -> Iterator[str]:
        nonlocal taken
        for url in dead(refused_port(), 1000):
            taken += 1
            yield url
        yield counting.url("last")

    early = 0
    for fetched in fetch_iter(items(), tmp_path, window=64, **IMPATIENT):
        early += isinstance(fetched.error, HostUnreachable) and taken < 1000
        if fetched.number == 1000:
            assert fetched.error is None
    assert early > 500


def test_an_interrupted_call_ends_while_files_are_kept(tmp_path: Path) -> None:
    results = fetch_iter(dead(refused_port(), 500), tmp_path, **IMPATIENT)
    for _ in range(FAILURES_IN_A_ROW + 2):
        next(results)
    results.close()
    assert threading.active_count() < 100
