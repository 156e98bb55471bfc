"""A file that was started before: only the missing bytes are requested, and answers must be of the same file."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.driving import Driver
from rangefetch import _engine
from rangefetch.disk.state import DONE
from servers.misbehaving import MisbehavingServer, content, etag, http_date, modified

pytestmark = pytest.mark.usefixtures("no_leaks")

MISSING, CLAIMED = 0, 1
WRONG = b"\xa5"


@dataclass(frozen=True)
class Begun:
    """What an earlier run left of a file: blocks, and the bytes written of unfinished ones."""

    size: int
    block_size: int
    blocks: bytes
    partial: dict[int, int]

    @property
    def present(self) -> np.ndarray:
        """For each byte of the file, whether it is there."""
        there = np.zeros(self.size, dtype=bool)
        for index, state in enumerate(self.blocks):
            start = index * self.block_size
            count = self.block_size if state == DONE else self.partial.get(index, 0)
            there[start : start + count] = True
        return there

    @property
    def octets(self) -> bytes:
        """The file on the disk: right in the parts marked as present, wrong elsewhere."""
        right = np.frombuffer(content(self.size), dtype=np.uint8)
        return np.where(self.present, right, WRONG[0]).astype(np.uint8).tobytes()

    @property
    def contiguous(self) -> int:
        return int(np.argmin(np.append(self.present, False)))


@st.composite
def begun_files(draw: st.DrawFn) -> Begun:
    size = draw(st.integers(0, 40_000))
    block_size = draw(st.integers(max(size // 40, 1), 9_000))
    count = -(-size // block_size)
    # CLAIMED marks a block that a lane has; in the next run no lane has it.
    blocks = bytes(draw(st.lists(st.sampled_from([MISSING, CLAIMED, DONE]), min_size=count, max_size=count)))
    partial = {
        index: draw(st.integers(0, min(block_size, size - index * block_size) - 1))
        for index in range(count)
        if blocks[index] != DONE and draw(st.booleans())
    }
    return Begun(size, block_size, blocks, partial)


def asked(server: MisbehavingServer, url: str, size: int) -> np.ndarray:
    """For each byte of the file, how often it was requested."""
    times = np.zeros(size, dtype=int)
    for request in server.requests:
        # An abandoned request may arrive while the next file is being fetched.
        if url.endswith(request.path):
            assert request.range is not None
            times[slice(*request.range)] += 1
    return times


@pytest.mark.parametrize("lanes", [1, 4])
def test_the_missing_bytes_are_asked_for_and_no_others(driver: Driver, server: MisbehavingServer, lanes: int) -> None:
    numbers = itertools.count()

    @given(begun_files(), st.sampled_from([1, 1_000, 4 << 20]))
    @settings(max_examples=60)
    @example(Begun(0, 1, b"", {}), 1)
    @example(Begun(1, 1, bytes([DONE]), {}), 1)
    @example(Begun(10, 4, bytes([DONE, DONE, MISSING]), {2: 1}), 1)
    @example(Begun(10, 4, bytes([MISSING, DONE, MISSING]), {0: 3}), 4 << 20)
    @example(Begun(10, 4, bytes(3), {0: 1, 1: 1, 2: 1}), 4 << 20)
    def check(begun: Begun, first_bytes: int) -> None:
        url = server.url("/good", size=begun.size, id=str(next(numbers)))
        file = driver.file(
            url,
            begun.octets,
            lanes=lanes,
            first_bytes=first_bytes,
            least_bytes=1,
            size=begun.size,
            block_size=begun.block_size,
            blocks=begun.blocks,
            partial=begun.partial,
            etag=etag(begun.size),
        )
        missing = ~begun.present
        assert (file.downloaded, file.contiguous) == (begun.present.sum(), begun.contiguous)
        driver.engine.add(file)
        assert driver.end(file).name == "DONE"
        times = asked(server, url, begun.size)
        # With several lanes, one may have taken over a part of another's range.
        assert (times == missing).all() if lanes == 1 else ((times > 0) == missing).all()
        assert lanes > 1 or file.received_bytes == missing.sum()
        assert (file.downloaded, file.contiguous) == (begun.size, begun.size)
        assert bytes(file.blocks) == bytes([DONE]) * len(begun.blocks)
        assert file.tag.octets == content(begun.size)

    check()


def test_a_whole_file_is_done_without_a_request(driver: Driver, server: MisbehavingServer) -> None:
    whole = content(3000)
    file = driver.fill(server.url("/good", size=3000), whole, size=3000, block_size=1024, blocks=bytes([DONE]) * 3)
    assert driver.names(file) == ["DONE"]
    assert (server.requests, file.requests, file.answered) == ([], 0, False)


def test_other_lanes_wait_until_the_file_is_known_to_be_the_same(driver: Driver, server: MisbehavingServer) -> None:
    url = server.url("/slow-headers", size=64_000, seconds=0.2, times=1)
    file = driver.fill(url, size=64_000, block_size=1000, blocks=bytes(64), lanes=4, least_bytes=1, first_bytes=1000)
    first, *others = server.requests
    assert first.range == (0, 1000)
    assert others
    assert all(request.time - first.time >= 0.2 for request in others)
    assert file.tag.octets == content(64_000)


@pytest.mark.parametrize(
    ("known", "fault"),
    [
        ({"etag": '"another"'}, "VALIDATOR_CHANGED"),
        ({"last_modified": http_date(0)}, "VALIDATOR_CHANGED"),
        ({"etag": '"another"', "last_modified": http_date(modified())}, "VALIDATOR_CHANGED"),
        ({"last_modified": http_date(modified())}, "VALIDATOR_CHANGED"),
        ({"size": 1999}, "SIZE_CHANGED"),
    ],
    ids=["other-etag", "other-date", "other-etag-same-date", "an-etag-that-appeared", "other-size"],
)
def test_an_answer_about_another_file_writes_nothing(
    driver: Driver, server: MisbehavingServer, known: dict[str, Any], fault: str
) -> None:
    begun = Begun(2000, 1000, bytes(2), {0: 500})
    options = {"size": 2000, "block_size": 1000, "blocks": bytes(2), "partial": begun.partial, **known}
    file = driver.add(server.url("/good", size=2000), begun.octets, **options)
    driver.until(lambda: "FAILED" in driver.names(file))
    assert driver.log[-1].fault == _engine.FAULTS[fault]
    assert (file.answered, file.downloaded) == (False, 500)
    assert file.tag.octets == begun.octets


@pytest.mark.parametrize(
    "known", [{"etag": etag(2000)}, {"etag": etag(2000), "last_modified": http_date(modified())}, {}], ids=str
)
def test_an_answer_about_the_same_file_goes_on(
    driver: Driver, server: MisbehavingServer, known: dict[str, str]
) -> None:
    begun = Begun(2000, 1000, bytes([MISSING, DONE]), {0: 500})
    options = {"size": 2000, "block_size": 1000, "blocks": begun.blocks, "partial": begun.partial, **known}
    file = driver.fill(server.url("/good", size=2000), begun.octets, **options)
    assert driver.names(file) == ["ANSWERED", "DONE"]
    assert [request.range for request in server.requests] == [(500, 1000)]
    assert file.tag.octets == content(2000)


def test_what_is_left_after_a_removal_is_all_that_the_next_run_asks_for(
    driver: Driver, server: MisbehavingServer
) -> None:
    size = 6 << 20
    first = driver.add(server.url("/stall", size=size, after=2_500_000), lanes=2, least_bytes=1, first_bytes=3 << 20)
    driver.until(lambda: first.downloaded >= 2_500_000)
    first.remove()
    driver.end(first)
    left = {int(i): int(n) for i, n in enumerate(first.partial) if n and first.blocks[int(i)] != DONE}
    begun = Begun(size, first.block_size, bytes(first.blocks), left)
    assert begun.present.sum() == first.downloaded
    url = server.url("/good", size=size)
    second = driver.fill(
        url,
        first.tag.octets,
        lanes=1,
        size=size,
        block_size=begun.block_size,
        blocks=begun.blocks,
        partial=left,
        etag=first.validators()[0],
    )
    assert (asked(server, url, size) == ~begun.present).all()
    assert second.tag.octets == content(size)
