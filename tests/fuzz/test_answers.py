"""How the engine judges a response, as a table: the request and what is known of the file, the status, the headers.

The tests call the engine's ``answer.pxd``, compiled into ``harness.pyx``. So a row takes microseconds, and there can be
one for each side of each condition. ``tests/matrix`` tests the same with real servers and libcurl.
"""

from __future__ import annotations

import ctypes
import enum
from typing import Any

import pytest

from rangefetch.transfer.failure import Fault

VALIDATOR_BYTES = 1024


class Check(enum.IntEnum):
    """As in ``transfer.pxd``."""

    ACCEPTED = 1
    SWALLOWED = 2
    REFUSED = 3


class Told(ctypes.Structure):
    """As in ``harness.pyx``."""

    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                *("ranged", "is_first", "start", "end", "asked_end"),
                *(
                    "size",
                    "pinned_size",
                    "most_bytes",
                    "first_bytes",
                    "part_bytes",
                    "splits",
                    "seems_empty",
                    "takes_codings",
                    "known",
                ),
            )
        ),
        ("etag", ctypes.c_char * VALIDATOR_BYTES),
        ("last_modified", ctypes.c_char * VALIDATOR_BYTES),
        *(
            (name, ctypes.c_int64)
            for name in (
                *("check", "fault", "position", "responses"),
                *("names_another_part", "leads_elsewhere", "is_cut_short_unsaid"),
            )
        ),
    ]


UNKNOWN: dict[str, Any] = {"size": -1, "pinned_size": -1, "first_bytes": 1000}
FIRST = UNKNOWN | {"ranged": 1, "is_first": 1, "end": 1000, "asked_end": 1000}
"""The first request of a file, for its first thousand bytes."""
PLAIN = UNKNOWN | {"is_first": 1, "end": -1, "asked_end": -1}
"""The first request of a file, without a range."""
LATER = {
    "ranged": 1,
    "start": 2000,
    "end": 3000,
    "asked_end": 3000,
    "first_bytes": 1000,
    "size": 5000,
    "pinned_size": -1,
    "splits": 1,
    "known": 1,
    "etag": b'"a"',
}
"""A request for the third thousand of 5000 bytes, after responses with an ETag."""
RESUMED = LATER | {"is_first": 1}
"""The same, as the first request of a later run."""
AGAIN = PLAIN | {"size": 5000, "known": 1, "etag": b'"a"'}
"""A request without a range for a file that an earlier run started."""

TAG = 'ETag: "a"'
PART_1 = "Content-Range: bytes 0-999/5000"
PART_3 = f"Content-Range: bytes 2000-2999/5000\n{TAG}"
ALL = "Content-Range: bytes 0-4999/5000"


def take(harness: ctypes.CDLL, request: dict[str, Any], status: int, lines: str) -> Told:
    """Give the engine a response with this status and these header lines, and return its verdict."""
    told = Told(**request)
    octets = lines.encode("latin-1")
    assert harness.rf_take(ctypes.byref(told), status, octets, len(octets))
    return told


def length(count: int) -> str:
    return f"Content-Length: {count}"


ACCEPTED = [
    # A part: the requested one or the start of it, in any case and spacing.
    (FIRST, 206, PART_1, {"size": 5000, "splits": 1, "end": 1000, "responses": 1}),
    (FIRST, 206, "content-range:   BYTES    0-999/5000", {"end": 1000}),
    (FIRST, 206, "Content-Range: bytes 0-0/5000", {"end": 1}),
    (FIRST, 206, "Content-Range: bytes 0-0/1", {"end": 1, "size": 1}),
    (FIRST, 206, f"{PART_1}\n{PART_1}", {"size": 5000}),
    (FIRST, 206, f"{PART_1}\n{TAG}\nLast-Modified: b", {"known": 1, "etag": b'"a"', "last_modified": b"b"}),
    (FIRST, 206, f'{PART_1}\n{TAG}\nETag: "b"', {"known": 1, "etag": b""}),
    (FIRST, 206, f"{PART_1}\nETag: {'e' * 1023}", {"etag": b"e" * 1023}),
    (FIRST, 206, f"{PART_1}\nLast-Modified: {'e' * 1023}", {"last_modified": b"e" * 1023}),
    (FIRST | {"pinned_size": 5000}, 206, PART_1, {"size": 5000}),
    (FIRST | {"most_bytes": 5000}, 206, PART_1, {"size": 5000}),
    (FIRST | {"takes_codings": 1}, 206, f"{PART_1}\nContent-Encoding: gzip", {"size": 5000}),
    (FIRST, 206, f"{PART_1}\nContent-Encoding: identity\nTransfer-Encoding: chunked", {"size": 5000}),
    (LATER, 206, PART_3, {"start": 2000, "end": 3000, "size": 5000}),
    (LATER, 206, f"{PART_3}\nLast-Modified: new", {"end": 3000}),
    (LATER, 206, f"Content-Range: bytes 2000-2499/5000\n{TAG}", {"end": 2500}),
    # Another lane has meanwhile taken the later half, but the server still sends what was requested.
    (LATER | {"end": 2400}, 206, PART_3, {"end": 2400}),
    (LATER | {"etag": b'W/"a"'}, 206, 'Content-Range: bytes 2000-2999/5000\nETag: W/"a"', {"end": 3000}),
    (LATER | {"etag": b"", "last_modified": b"b"}, 206, "Content-Range: bytes 2000-2999/5000\nLast-Modified: b", {}),
    (LATER | {"etag": b""}, 206, "Content-Range: bytes 2000-2999/5000", {}),
    (RESUMED, 206, PART_3, {"end": 3000}),
    # The whole file, where the response cannot be for a part.
    (PLAIN, 200, length(700), {"size": 700, "end": 700, "splits": 0}),
    (PLAIN, 200, "", {"size": -1, "end": -1}),
    (PLAIN, 200, length(0), {"size": 0, "end": 0}),
    (PLAIN, 200, f"{length(5000)}\n{ALL}", {"size": 5000}),
    (PLAIN, 200, ALL, {"size": -1}),
    (PLAIN, 206, f"{length(5000)}\n{ALL}", {"size": 5000, "splits": 0}),
    (PLAIN, 206, length(5000), {"size": 5000}),
    (PLAIN, 206, f"{length(5000)}\nContent-Type: text/plain", {"size": 5000}),
    (PLAIN, 201, length(5000), {"size": 5000}),
    (PLAIN, 203, length(5000), {"size": 5000}),
    (PLAIN, 226, length(5000), {"size": 5000}),
    (PLAIN, 299, length(5000), {"size": 5000}),
    (PLAIN, 200, f"{length(5000)}\n{length(5000)}", {"size": 5000}),
    (PLAIN, 200, "Content-Length: x\nTransfer-Encoding: chunked", {"size": -1}),
    (
        PLAIN,
        200,
        f"{length(5000)}\nETag: {'e' * 1024}\nLast-Modified: b",
        {"known": 1, "etag": b"", "last_modified": b""},
    ),
    (
        PLAIN,
        200,
        f"{length(5000)}\nETag: b\nLast-Modified: {'e' * 1024}",
        {"known": 1, "etag": b"", "last_modified": b""},
    ),
    (PLAIN | {"pinned_size": 5000}, 200, length(5000), {"size": 5000}),
    (PLAIN | {"pinned_size": 0}, 200, length(0), {"size": 0}),
    (PLAIN | {"most_bytes": 5000}, 200, length(5000), {"size": 5000}),
    (PLAIN | {"most_bytes": 5000}, 200, "", {"size": -1}),
    (PLAIN | {"takes_codings": 1}, 200, "Content-Encoding: br", {"size": -1}),
    (PLAIN | {"known": 1, "etag": b'"a"'}, 200, f"{TAG}\n{length(5000)}", {"size": 5000}),
    (FIRST, 200, length(5000), {"size": 5000, "end": 5000}),
    (FIRST, 200, length(999), {"size": 999, "end": 999}),
    (FIRST, 200, "", {"size": -1, "end": -1}),
    (FIRST, 200, f"{length(5000)}\n{ALL}", {"size": 5000, "splits": 0}),
    (FIRST | {"asked_end": 1001}, 200, f"{length(1000)}\nContent-Range: bytes 0-999/1000", {"size": 1000, "splits": 1}),
    # An empty file, with any Content-Range for it.
    (PLAIN, 200, f"{length(0)}\nContent-Range: bytes */0", {"size": 0, "end": 0}),
    (PLAIN, 200, f"{length(0)}\nContent-Range: bytes 0--1/0", {"size": 0, "end": 0}),
    # A 200 whose Content-Range says that it is a part.
    (FIRST, 200, f"{length(1000)}\n{PART_1}", {"size": 5000, "splits": 1, "end": 1000}),
    (LATER, 200, f"{length(1000)}\n{PART_3}", {"end": 3000, "start": 2000}),
]

REFUSED = [
    # A part that was not requested, or whose position is unknown.
    (FIRST, 206, "Content-Range: bytes 1-999/5000", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: bytes 0-1000/5000", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: bytes 0-999/*", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: bytes */5000", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: bytes */*", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: bytes 0-999/999", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: bytes 0-999/5000x", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: bytes 0-999 5000", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: bytes 0:999/5000", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: bytes -999/5000", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: bytes 0-/5000", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: bytes 0-999/", Fault.RANGE_WRONG),
    (FIRST, 206, "Content-Range: lines 0-999/5000", Fault.RANGE_WRONG),
    (FIRST, 206, f"{PART_1}\nContent-Range: bytes 0-998/5000", Fault.RANGE_WRONG),
    (FIRST, 206, "", Fault.RANGE_WRONG),
    (FIRST, 206, length(1000), Fault.RANGE_WRONG),
    (LATER, 206, f"Content-Range: bytes 2001-2999/5000\n{TAG}", Fault.RANGE_WRONG),
    (LATER, 206, f"Content-Range: bytes 1000-1999/5000\n{TAG}", Fault.RANGE_WRONG),
    (LATER, 206, TAG, Fault.RANGE_WRONG),
    (PLAIN, 206, f"{length(1000)}\n{PART_1}", Fault.RANGE_WRONG),
    (PLAIN, 206, f"{length(4000)}\nContent-Range: bytes 1000-4999/5000", Fault.RANGE_WRONG),
    (PLAIN, 206, f"{length(4999)}\n{ALL}", Fault.RANGE_WRONG),
    # As long as a range that was requested earlier: a cache may repeat the response to it.
    (PLAIN, 206, length(1000), Fault.RANGE_WRONG),
    (PLAIN | {"part_bytes": 700}, 206, length(700), Fault.RANGE_WRONG),
    (PLAIN, 206, f"{length(5000)}\nContent-Type: Multipart/byteranges; boundary=x", Fault.RANGE_WRONG),
    (FIRST, 200, length(1000), Fault.RANGE_WRONG),
    (FIRST, 200, f"{length(1000)}\nContent-Range: bytes 0-998/5000", Fault.RANGE_WRONG),
    (FIRST, 200, f"{length(5000)}\n{PART_1}", Fault.RANGE_WRONG),
    (FIRST, 200, "Content-Range: nonsense", Fault.RANGE_WRONG),
    (PLAIN, 200, f"{length(0)}\nContent-Range: bytes */5", Fault.RANGE_WRONG),
    (PLAIN, 200, f"{length(5)}\nContent-Range: bytes */0", Fault.RANGE_WRONG),
    (LATER, 200, f"{length(1000)}\n{TAG}", Fault.RANGE_WRONG),
    # Empty in response to a range: a request without a range will tell.
    (FIRST, 200, length(0), Fault.RANGE_WRONG),
    (FIRST, 200, f"{length(0)}\nContent-Range: bytes */0", Fault.RANGE_WRONG),
    # Codings that were not requested.
    (FIRST, 206, f"{PART_1}\nContent-Encoding: gzip", Fault.ENCODED),
    (FIRST, 206, f"{PART_1}\nTransfer-Encoding: gzip", Fault.ENCODED),
    (PLAIN, 200, "Content-Encoding: gzip", Fault.ENCODED),
    (PLAIN, 200, "Transfer-Encoding: gzip, chunked", Fault.ENCODED),
    # Sizes that differ, that are invalid, or that exceed the limit.
    (LATER, 206, f"Content-Range: bytes 2000-2999/5001\n{TAG}", Fault.SIZE_CHANGED),
    (FIRST | {"pinned_size": 4999}, 206, PART_1, Fault.SIZE_CHANGED),
    (PLAIN | {"pinned_size": 4999}, 200, length(5000), Fault.SIZE_CHANGED),
    (PLAIN | {"pinned_size": 4999}, 200, "", Fault.SIZE_CHANGED),
    (AGAIN, 200, f"{length(4999)}\n{TAG}", Fault.SIZE_CHANGED),
    (FIRST | {"pinned_size": 5}, 200, length(0), Fault.SIZE_CHANGED),
    (FIRST | {"size": 5}, 200, length(0), Fault.SIZE_CHANGED),
    (RESUMED | {"size": 5000}, 200, f"{length(0)}\n{TAG}", Fault.SIZE_CHANGED),
    (LATER, 416, "Content-Range: bytes */4999", Fault.SIZE_CHANGED),
    (FIRST | {"pinned_size": 5000}, 416, "Content-Range: bytes */4999", Fault.SIZE_CHANGED),
    (PLAIN, 200, "Content-Length: x", Fault.SIZE_UNSOUND),
    (PLAIN, 200, "Content-Length: 12x", Fault.SIZE_UNSOUND),
    (PLAIN, 200, f"Content-Length: {(1 << 48) + 1}", Fault.SIZE_UNSOUND),
    (PLAIN, 200, f"{length(5)}\n{length(6)}", Fault.SIZE_UNSOUND),
    (FIRST, 206, f"{PART_1}\n{length(5)}\n{length(6)}", Fault.SIZE_UNSOUND),
    (FIRST | {"most_bytes": 4999}, 206, PART_1, Fault.TOO_LARGE),
    (PLAIN | {"most_bytes": 4999}, 200, length(5000), Fault.TOO_LARGE),
    # Validators that changed, appeared, disappeared, or are too long to be stored and compared later.
    (LATER, 206, 'Content-Range: bytes 2000-2999/5000\nETag: "b"', Fault.VALIDATOR_CHANGED),
    (LATER, 206, "Content-Range: bytes 2000-2999/5000", Fault.VALIDATOR_CHANGED),
    (LATER, 206, f'{PART_3}\nETag: "b"', Fault.VALIDATOR_CHANGED),
    (LATER | {"etag": b""}, 206, PART_3, Fault.VALIDATOR_CHANGED),
    (LATER | {"etag": b"", "last_modified": b"b"}, 206, PART_3, Fault.VALIDATOR_CHANGED),
    (LATER | {"etag": b"a"}, 206, "Content-Range: bytes 2000-2999/5000\nETag: b", Fault.VALIDATOR_CHANGED),
    (LATER | {"etag": b'"a'}, 206, 'Content-Range: bytes 2000-2999/5000\nETag: "b', Fault.VALIDATOR_CHANGED),
    (PLAIN | {"known": 1, "etag": b'"a"'}, 200, f'ETag: "b"\n{length(5000)}', Fault.VALIDATOR_CHANGED),
    *(
        (LATER | {"etag": etag, "last_modified": b"b"}, 206, f"{PART_3.splitlines()[0]}\nETag: {etag.decode()}", fault)
        # Equal ETags that are not strong prove nothing, so the date must be equal too, and here it is missing.
        for etag in (b'W/"a"', b'xa"', b"a", b'"', b'""', b'"a"b"', b'"a" ', b"'a'")
        for fault in [Fault.VALIDATOR_CHANGED]
    ),
    (FIRST, 206, f"{PART_1}\nETag: {'e' * 1024}", Fault.VALIDATOR_TOO_LONG),
    (FIRST, 206, f"{PART_1}\nLast-Modified: {'e' * 1024}", Fault.VALIDATOR_TOO_LONG),
    # The whole file instead of the requested part: the same file, or one that lacks the validators to tell.
    (LATER, 200, f"{length(5000)}\n{TAG}", Fault.RANGE_IGNORED),
    (LATER | {"size": -1}, 200, f"{length(5000)}\n{TAG}", Fault.RANGE_IGNORED),
    (AGAIN, 200, f"{length(5000)}\n{TAG}", Fault.RANGE_IGNORED),
    (
        LATER | {"size": 1000, "start": 0, "end": 1000, "asked_end": 1000},
        200,
        f"{length(1000)}\n{TAG}",
        Fault.RANGE_IGNORED,
    ),
    (LATER, 200, length(4000), Fault.UNVOUCHED),
    (LATER, 200, "", Fault.UNVOUCHED),
    (LATER, 200, TAG, Fault.RANGE_IGNORED),
    (LATER | {"etag": b"", "last_modified": b"b"}, 200, length(4000), Fault.UNVOUCHED),
    (LATER | {"etag": b""}, 200, length(4000), Fault.SIZE_CHANGED),
    (LATER, 200, f"Last-Modified: b\n{length(4000)}", Fault.SIZE_CHANGED),
    (LATER, 200, f'ETag: "b"\n{length(4000)}', Fault.SIZE_CHANGED),
    # Responses without the file.
    (FIRST, 404, length(1000), Fault.STATUS),
    (FIRST, 302, "Location: /x", Fault.STATUS),
    (FIRST, 204, "", Fault.RANGE_WRONG),
    (PLAIN, 204, "", Fault.STATUS),
    (FIRST, 205, "", Fault.STATUS),
    (PLAIN, 205, length(5000), Fault.STATUS),
    (PLAIN, 207, length(5000), Fault.STATUS),
    (FIRST, 300, length(1000), Fault.STATUS),
    (FIRST, 416, "", Fault.STATUS),
    (FIRST, 416, "Content-Range: bytes */0", Fault.RANGE_WRONG),
    (FIRST, 416, "Content-Range: bytes 0-0/0", Fault.STATUS),
    (FIRST, 416, "Content-Range: bytes */5000", Fault.STATUS),
    (PLAIN | {"seems_empty": 1}, 416, "Content-Range: bytes */5000", Fault.STATUS),
    (FIRST | {"pinned_size": 5000}, 204, "", Fault.STATUS),
    (FIRST | {"size": 5000}, 204, "", Fault.STATUS),
    (LATER | {"size": -1}, 204, "", Fault.STATUS),
    (LATER, 416, "Content-Range: bytes */5000", Fault.STATUS),
    (LATER, 416, "Content-Range: bytes 0-9/4000", Fault.STATUS),
    (LATER, 416, "Content-Range: bytes */*", Fault.STATUS),
    (LATER, 404, "Content-Range: bytes */4999", Fault.STATUS),
    (AGAIN, 416, "Content-Range: bytes */4999", Fault.STATUS),
]


def _name(row: tuple[Any, ...]) -> str:
    request, status, lines, _ = row
    kind = "plain" if not request.get("ranged") else "first" if request.get("is_first") else "later"
    return f"{kind} {status} {lines[:60]}".replace("\n", " | ")


@pytest.mark.parametrize(("request_", "status", "lines", "then"), ACCEPTED, ids=map(_name, ACCEPTED))
def test_what_was_asked_for_is_accepted(
    harness: ctypes.CDLL, request_: dict[str, Any], status: int, lines: str, then: dict[str, Any]
) -> None:
    told = take(harness, request_, status, lines)
    assert (Check(told.check), Fault(told.fault)) == (Check.ACCEPTED, Fault.NONE)
    assert (told.position, told.responses) == (told.start, 1)
    assert {name: getattr(told, name) for name in then} == then


@pytest.mark.parametrize(("request_", "status", "lines", "fault"), REFUSED, ids=map(_name, REFUSED))
def test_anything_else_is_refused_and_changes_nothing(
    harness: ctypes.CDLL, request_: dict[str, Any], status: int, lines: str, fault: Fault
) -> None:
    told = take(harness, request_, status, lines)
    assert Fault(told.fault) is fault
    # A body that is not the file's is read and dropped, or never read if it may be long.
    of_no_file = status in (204, 205, 207, 300, 302, 404, 416)
    assert Check(told.check) is (Check.SWALLOWED if of_no_file else Check.REFUSED)
    assert told.responses == 0
    for name in ("size", "splits", "start", "end"):
        assert getattr(told, name) == request_.get(name, 0), name
    assert told.position == told.start


@pytest.mark.parametrize(
    ("status", "lines"), [(204, ""), (416, "Content-Range: bytes */0"), (416, "Content-Range: bytes */0\nETag: x")]
)
def test_an_empty_file_is_one_when_a_plain_request_says_so_too(harness: ctypes.CDLL, status: int, lines: str) -> None:
    asked = take(harness, FIRST, status, lines)
    assert asked.seems_empty
    told = take(harness, PLAIN | {"seems_empty": 1}, status, lines)
    assert (Check(told.check), Fault(told.fault)) == (Check.SWALLOWED, Fault.NONE)
    assert (told.size, told.end, told.splits) == (0, 0, 1)
    assert not take(harness, PLAIN, status, lines).seems_empty
    other = take(harness, PLAIN | {"seems_empty": 1, "known": 1, "etag": b'"a"'}, status, lines)
    assert (Check(other.check), Fault(other.fault)) == (Check.REFUSED, Fault.VALIDATOR_CHANGED)
    assert other.size == -1


def test_how_long_a_part_was_that_did_not_say_which_is_noted(harness: ctypes.CDLL) -> None:
    assert take(harness, LATER, 206, f"{length(1000)}\n{TAG}").part_bytes == 1000
    assert take(harness, LATER, 206, f"{length(999)}\n{TAG}").part_bytes == 0
    assert take(harness, LATER, 206, f"{length(1000)}\n{PART_3}").part_bytes == 0
    assert take(harness, PLAIN, 206, length(5000)).part_bytes == 0


def test_a_range_that_came_empty_under_200_is_noted(harness: ctypes.CDLL) -> None:
    assert take(harness, FIRST, 200, length(0)).seems_empty
    assert not take(harness, FIRST, 200, length(1000)).seems_empty
    assert not take(harness, FIRST, 404, "").seems_empty


@pytest.mark.parametrize(
    ("request_", "status", "lines", "expected"),
    [
        (LATER, 206, PART_3, False),
        (LATER, 206, PART_1, True),
        (LATER, 206, "Content-Range: nonsense", True),
        (LATER, 206, "", False),
        (LATER, 200, PART_1, False),
        (PLAIN, 206, PART_1, True),
    ],
)
def test_a_part_whose_body_never_began_is_known_to_be_another(
    harness: ctypes.CDLL, request_: dict[str, Any], status: int, lines: str, expected: bool
) -> None:
    assert take(harness, request_, status, lines).names_another_part == expected


@pytest.mark.parametrize(
    ("status", "lines", "expected"),
    [
        (302, "Location: /x", True),
        (300, "Location: /x", True),
        (399, "Location: /x", True),
        (302, "", False),
        (299, "Location: /x", False),
        (400, "Location: /x", False),
    ],
)
def test_a_redirect_says_where_to(harness: ctypes.CDLL, status: int, lines: str, expected: bool) -> None:
    assert take(harness, FIRST, status, lines).leads_elsewhere == expected


@pytest.mark.parametrize(
    ("request_", "status", "lines", "expected"),
    [
        (FIRST | {"asked_end": 0}, 200, "", True),  # as if it ended after the last byte of the range
        (FIRST, 200, "", True),  # as if it ended before the first byte
        (PLAIN, 200, "", False),
        (FIRST, 200, length(5000), False),
        (FIRST, 206, PART_1, False),
    ],
)
def test_a_stream_that_ends_where_the_range_would_is_no_whole_file(
    harness: ctypes.CDLL, request_: dict[str, Any], status: int, lines: str, expected: bool
) -> None:
    assert take(harness, request_, status, lines).is_cut_short_unsaid == expected
