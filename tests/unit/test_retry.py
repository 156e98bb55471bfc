"""How every failure is classified, compared with a readable table, and how long the delays are."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefetch import errors
from rangefetch.transfer.failure import Curl, Failure, Fault
from rangefetch.transfer.retry import DEFAULT_ROWS, Kind, RetryPolicy, Row, When
from rangefetch.transfer.wording import as_error, explain

POLICY = RetryPolicy()
TABLE = Path(__file__).with_name("retry_table.txt")
UPDATE = "RANGEFETCH_UPDATE_RETRY_TABLE"
"""If this variable is 1, the tests rewrite the table; the diff then shows what has changed."""

FAULTS = [fault for fault in Fault if fault is not Fault.PROBED]
"""All faults. PROBED is left out, since a probe that was answered is not a failure."""
STATUSES = range(100, 600)
CODES = range(102)
SITUATIONS: dict[str, dict[str, Any]] = {
    "first": {},
    "answered": {"answered": True},
    "redirected": {"redirected": True},
    "named again": {"answered": True, "redirected": True, "named_again": True},
    "same total": {"answered": True, "same_total": True},
    "others work": {"answered": True, "other_lanes": 3},
    "says when": {"retry_after_s": 30},
    "says so, others work": {"answered": True, "other_lanes": 3, "retry_after_s": 30},
}
CODE_SITUATIONS: dict[str, dict[str, Any]] = {
    "no errno": {},
    "refused": {"errno": errno.ECONNREFUSED},
    "no route": {"errno": errno.ENETUNREACH},
    "reset": {"errno": errno.ECONNRESET},
    "redirected": {"redirected": True},
    "refused, others work": {"errno": errno.ECONNREFUSED, "answered": True, "other_lanes": 3},
}


def table() -> str:
    """The kind of every fault, status and code in every situation, with equal neighbours merged into one line."""
    faults = [fault for fault in FAULTS if fault not in (Fault.NONE, Fault.STATUS)]
    return "\n".join(
        [
            section("fault", SITUATIONS, {fault.name: {"fault": fault} for fault in faults}),
            section("status", SITUATIONS, {str(each): {"fault": Fault.STATUS, "status": each} for each in STATUSES}),
            section("code", CODE_SITUATIONS, {str(code): {"code": code} for code in CODES}),
        ]
    )


def section(title: str, situations: dict[str, dict[str, Any]], failures: dict[str, dict[str, Any]]) -> str:
    def judge(name: str) -> tuple[str, ...]:
        kinds = [POLICY.classify(Failure(**failures[name], **each)).value for each in situations.values()]
        return explain(Failure(**failures[name]))[0].__name__, *kinds

    lines = [(title, "error", *situations)]
    for verdict, group in itertools.groupby(failures, key=judge):
        first, *more = group
        lines.append((f"{first} .. {more[-1]}" if more else first, *verdict))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "".join("  ".join(map(str.ljust, line, widths)).rstrip() + "\n" for line in lines)


def test_every_failure_is_taken_for_what_the_table_says() -> None:
    if os.environ.get(UPDATE) == "1":
        TABLE.write_text(table())
    assert table() == TABLE.read_text(), f"if it is meant, {UPDATE}=1 writes the table anew"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_verdict_is_no_accident(fault: Fault) -> None:
    for status, code in itertools.product((0, 200, 206, 404, 503), (0, 7, 56, 101)):
        row = POLICY.row(Failure(fault=fault, status=status, code=code))
        assert row in DEFAULT_ROWS
        assert row.why


def test_every_row_decides_about_something() -> None:
    failures = itertools.chain(
        (Failure(fault=fault, **each) for fault in FAULTS for each in SITUATIONS.values()),
        (Failure(fault=Fault.STATUS, status=status, **each) for status in STATUSES for each in SITUATIONS.values()),
        (Failure(code=code, **each) for code in CODES for each in CODE_SITUATIONS.values()),
        [Failure(code=Curl.RECV_ERROR, status=407)],  # a proxy's response to CONNECT
        [Failure(code=Curl.RECV_ERROR, status=200, text="chunk hex-length char not a hex digit: 0x7a")],
        [Failure(code=Curl.RECV_ERROR, text="SSL routines::tlsv13 alert certificate required")],
    )
    decided = {id(POLICY.row(failure)) for failure in failures}
    assert [row.why for row in DEFAULT_ROWS if id(row) not in decided] == []


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410, 451])
def test_the_servers_last_word_is_permanent(status: int) -> None:
    assert POLICY.classify(Failure(fault=Fault.STATUS, status=status)) is Kind.PERMANENT


@pytest.mark.parametrize("status", [408, 421, 423, 425, 500, 502, 503, 504, 509, *range(520, 531), 598, 599])
def test_trouble_of_the_server_is_temporary(status: int) -> None:
    assert POLICY.classify(Failure(fault=Fault.STATUS, status=status)) is Kind.TEMPORARY


failures = st.builds(
    Failure,
    code=st.integers(-1, 200),
    status=st.integers(0, 999),
    fault=st.sampled_from(FAULTS),
    errno=st.integers(0, 200),
    retry_after_s=st.integers(0, 1 << 40),
    text=st.text(max_size=9),
    other_lanes=st.integers(0, 64),
    answered=st.booleans(),
    redirected=st.booleans(),
    named_again=st.booleans(),
    same_total=st.booleans(),
    ranged=st.booleans(),
)


@given(failures)
def test_every_failure_has_a_verdict_and_one_line_of_words(failure: Failure) -> None:
    assert isinstance(POLICY.classify(failure), Kind)
    kind, words = explain(failure)
    assert issubclass(kind, errors.DownloadError)
    assert words


@given(failures)
@example(Failure(fault=Fault.MEMORY))
@example(Failure(code=Curl.OUT_OF_MEMORY))
@example(Failure(code=Curl.FAILED_INIT))
def test_what_is_wrong_with_this_machine_is_no_fault_of_others(failure: Failure) -> None:
    if POLICY.classify(failure) is Kind.LOCAL:
        assert issubclass(explain(failure)[0], errors.LocalError)


# Editing the table.


def test_a_row_in_front_decides_first() -> None:
    failure = Failure(fault=Fault.STATUS, status=404)
    mine = Row(Kind.TEMPORARY, "this server forgets", Fault.STATUS, statuses=frozenset({404}))
    edited = POLICY.first(mine)
    assert edited.row(failure) is mine
    assert edited.classify(dataclasses.replace(failure, status=405)) is Kind.PERMANENT
    assert POLICY.classify(failure) is Kind.PERMANENT, "the policy itself is as it was"


def test_without_rows_everything_is_permanent() -> None:
    assert RetryPolicy(rows=()).classify(Failure(fault=Fault.STATUS, status=503)) is Kind.PERMANENT


@pytest.mark.parametrize(
    ("when", "holds_for", "not_for"),
    [
        (When.ALWAYS, {}, None),
        (When.OTHERS_WORK, {"other_lanes": 1}, {}),
        (When.ANSWERED, {"answered": True}, {"redirected": True}),
        (When.REDIRECTED, {"redirected": True}, {"redirected": True, "received_bytes": 1}),
        (When.REDIRECTED, {"redirected": True}, {"redirected": True, "named_again": True}),
        (When.NAMED_AGAIN, {"redirected": True, "named_again": True}, {"redirected": True}),
        (When.SAME_TOTAL, {"answered": True, "same_total": True}, {"same_total": True}),
        (When.SERVER_SAYS_WHEN, {"retry_after_s": 1}, {}),
    ],
)
def test_conditions(when: When, holds_for: dict[str, int], not_for: dict[str, int] | None) -> None:
    assert when.holds(Failure(**holds_for))  # type: ignore[arg-type]  # all of them are numbers
    assert not_for is None or not when.holds(Failure(**not_for))  # type: ignore[arg-type]  # all of them are numbers


# Delays.


def longest(failures: int, first_s: float = 0.5) -> float:
    """The upper bound of the delay, which is otherwise random."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random, "uniform", lambda _, high: high)
        return POLICY.wait_s(failures, first_s)


def test_the_bounds_of_the_back_off_double_up_to_a_minute() -> None:
    assert [longest(failures) for failures in range(1, 11)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert longest(0) == longest(1)
    assert longest(1_000_000) == 60.0
    assert longest(5, first_s=0.0) == 0.0


@given(st.integers(0, 1000), st.floats(0, 100), st.floats(0, 1e9))
def test_a_wait_is_between_nothing_and_its_bound_and_not_shorter_than_the_server_asks(
    failures: int, first_s: float, retry_after_s: float
) -> None:
    wait_s = POLICY.wait_s(failures, first_s, retry_after_s)
    asked_s = min(retry_after_s, POLICY.longest_retry_after)
    assert asked_s <= wait_s <= asked_s + min(first_s * 2.0 ** min(failures, 30), POLICY.longest_wait)


def test_clients_that_were_told_the_same_time_do_not_come_back_together() -> None:
    random.seed(1)
    waits = [POLICY.wait_s(4, 0.5, 10.0) for _ in range(2000)]
    assert 10.0 <= min(waits) < 10.1
    assert 13.9 < max(waits) <= 14.0


def test_jitter_is_full() -> None:
    random.seed(1)
    waits = [POLICY.wait_s(4, 0.5) for _ in range(2000)]
    assert min(waits) < 0.1
    assert max(waits) > 3.9
    assert 1.8 < sum(waits) / len(waits) < 2.2


def test_what_a_server_asks_is_capped() -> None:
    assert POLICY.wait_s(1, 0.0, 1e9) == POLICY.longest_retry_after
    assert RetryPolicy(longest_retry_after=5.0).wait_s(1, 0.0, 1e9) == 5.0


# Messages.


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (Failure(fault=Fault.STATUS, status=404), errors.HttpStatusError, "the server answered 404 Not Found"),
        (Failure(fault=Fault.STATUS, status=599), errors.HttpStatusError, "the server answered 599"),
        (Failure(fault=Fault.DISK, errno=errno.ENOSPC), errors.DiskError, "writing failed: No space left on device"),
        (Failure(fault=Fault.STALLED), errors.TimedOut, "no data was received for too long"),
        (
            Failure(fault=Fault.REDIRECT, text="file:///"),
            errors.BadAnswer,
            "refused a redirect to file:///",
        ),
        (Failure(fault=Fault.SIZE_CHANGED), errors.ContentChanged, "the size of the remote file has changed"),
        (Failure(code=Curl.OPERATION_TIMEDOUT, text="general words"), errors.TimedOut, "general words"),
        (Failure(code=Curl.PEER_FAILED_VERIFICATION, text="own words"), errors.TlsError, "own words"),
        (Failure(code=Curl.SSL_CONNECT_ERROR, text="general words"), errors.TlsError, "general words"),
        (Failure(code=Curl.COULDNT_RESOLVE_HOST, text="general words"), errors.ConnectionFailed, "general words"),
        (
            Failure(code=Curl.COULDNT_CONNECT, errno=errno.EHOSTUNREACH, text="10.0.0.1"),
            errors.ConnectionFailed,
            f"10.0.0.1: {os.strerror(errno.EHOSTUNREACH)}",
        ),
        (
            Failure(code=Curl.COULDNT_CONNECT, errno=errno.EPIPE, text=f"10.0.0.1: {os.strerror(errno.EPIPE)}"),
            errors.ConnectionFailed,
            f"10.0.0.1: {os.strerror(errno.EPIPE)}",
        ),
        (Failure(code=Curl.PARTIAL_FILE, text="general words"), errors.BadAnswer, "general words"),
        (Failure(code=Curl.HTTP2_STREAM, text="general words"), errors.NetworkError, "general words"),
    ],
)
def test_an_error_says_what_was_wrong(failure: Failure, kind: type[Exception], words: str) -> None:
    assert explain(failure) == (kind, words)


@pytest.mark.parametrize(
    ("failure", "remedy"),
    [
        (Failure(fault=Fault.STATUS, status=401), "--http-user"),
        (Failure(fault=Fault.STATUS, status=407), "in the URL of the proxy"),
        (Failure(code=Curl.RECV_ERROR, status=407, text="CONNECT tunnel failed"), "in the URL of the proxy"),
        (Failure(fault=Fault.REDIRECT, text="http://h/"), "--allow-downgrade"),
        (Failure(fault=Fault.ENCODED, text="Content-Encoding: gzip"), "--decode"),
    ],
)
def test_where_there_is_a_remedy_the_error_names_it(failure: Failure, remedy: str) -> None:
    assert remedy in explain(failure)[1]


@pytest.mark.parametrize(
    ("failure", "number"),
    [
        (Failure(code=Curl.COULDNT_CONNECT, errno=errno.EHOSTUNREACH), errno.EHOSTUNREACH),
        (Failure(code=Curl.COULDNT_CONNECT), errno.ECONNREFUSED),
        (Failure(code=Curl.RECV_ERROR), errno.ECONNRESET),
        (Failure(code=Curl.COULDNT_RESOLVE_HOST), None),
        (Failure(fault=Fault.DISK, errno=errno.EDQUOT), errno.EDQUOT),
        (Failure(fault=Fault.STALLED, errno=errno.EAGAIN), errno.ETIMEDOUT),
    ],
)
def test_an_error_of_the_system_has_its_number(failure: Failure, number: int | None) -> None:
    assert getattr(as_error(failure, "http://h/"), "errno", "none") == number


def test_a_code_without_any_words_is_named_by_its_number() -> None:
    assert explain(Failure(code=101)) == (errors.NetworkError, "libcurl error 101")
