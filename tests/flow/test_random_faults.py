"""For any combination of sizes and faults: the right bytes, or a clear error and nothing that looks finished."""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from rangefetch import DownloadError
from servers.misbehaving import MisbehavingServer, content
from support.downloads import FIRST_RANGE, fetch
from support.files import MIB, begun, names

PASSING = [
    "good",
    "cut:after=0",
    "cut:after=70000",
    "cut:after=1048576",
    "cut:headers=0",
    "reset:after=0",
    "reset:after=300000",
    "reset:headers=0",
    "short-range:most=1",
    "short-range:most=65537",
    "short-range:most=1048576",
    "chunked-ranges",
    "chunked-ranges+cut:after=100000",
    "close-each",
    "wrong-total",
    "if-range-200",
    "status:code=500",
    "status:code=503",
    "slow:rate=20000000",
    "slow-headers:seconds=0.01",
]
# These can be detected in a range response. In a whole response that states the wrong length, nobody could tell.
LYING_ABOUT_LENGTH = [
    "short-body:missing=1",
    "short-body:missing=100000",
    "chunked-ranges+short-body",
    "overflow:extra=1",
    "overflow:framing=length",
    "overflow:framing=chunked",
    "overflow:framing=excess",
]
LEADING_TO_A_STREAM = [
    "wrong-start",
    "wrong-start:shift=-1",
    "no-content-range",
    "unknown-total",
    "whole-206",
    "no-ranges",
    "no-ranges+cut:after=500000",
    "no-length",
    "chunked",
]
SIZES = st.builds(
    lambda blocks, beside: max(0, blocks * MIB + beside),
    st.sampled_from([0, 1, 2, 3, FIRST_RANGE // MIB, 5, 6, 9]),
    st.one_of(st.sampled_from([-1, 0, 1]), st.integers(-MIB // 2, MIB // 2)),
)
# An example that hangs would be shrunk for hours.
QUIET = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
STEPS = st.one_of(
    st.lists(st.sampled_from(PASSING + LYING_ABOUT_LENGTH), max_size=8),
    st.lists(st.sampled_from(PASSING + LEADING_TO_A_STREAM), max_size=8),
)
numbers = itertools.count()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer() as running:
        yield running


@settings(QUIET, max_examples=60)
@given(
    size=SIZES,
    steps=STEPS,
    split=st.sampled_from([1, 2, 3, 8, 16]),
    min_split_size=st.sampled_from([1, MIB, 4 * MIB]),
    allocation=st.sampled_from(["falloc", "trunc", "none"]),
)
def test_the_bytes_are_right_or_the_error_is_clear(
    shared_server: MisbehavingServer, size: int, steps: list[str], split: int, min_split_size: int, allocation: str
) -> None:
    url = shared_server.url("/script/x", size=size, steps="|".join(steps), id=next(numbers))
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "file.bin"
        for _ in range(20):  # the faults come to an end, and so must the errors
            try:
                result = fetch(url, target, split=split, min_split_size=min_split_size, file_allocation=allocation)
            except DownloadError as error:
                line = str(error)
            else:
                assert target.read_bytes() == content(size)
                assert names(target.parent) == ["file.bin"]
                assert result.size == size
                return
            assert len(line.splitlines()) == 1
            assert url in line
            assert set(names(target.parent)) <= set(begun(target))
        pytest.fail("errors without end")


@settings(QUIET, max_examples=30)
@given(
    size=SIZES,
    before=st.lists(st.sampled_from(PASSING + LEADING_TO_A_STREAM), max_size=5),
    after=st.lists(st.sampled_from(PASSING + LEADING_TO_A_STREAM), max_size=3),
    grow=st.sampled_from([-5, 0, 1, MIB]),
    split=st.sampled_from([1, 4, 16]),
)
def test_a_file_that_changes_among_faults_is_the_old_or_the_new_one(
    shared_server: MisbehavingServer, size: int, before: list[str], after: list[str], grow: int, split: int
) -> None:
    new_size = max(0, size + grow)
    new = [f"{fault}:seed=1:size={new_size}" for fault in after if "+" not in fault]
    url = shared_server.url(
        "/script/x",
        size=size,
        steps="|".join([*before, *new]),
        then=f"good:seed=1:size={new_size}",
        id=next(numbers),
    )
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "file.bin"
        for _ in range(20):
            try:
                fetch(url, target, split=split, min_split_size=1)
            except DownloadError:
                assert set(names(target.parent)) <= set(begun(target))
                continue
            assert target.read_bytes() in (content(size), content(new_size, 1))
            return
        pytest.fail("errors without end")
