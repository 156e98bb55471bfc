"""The values that callers receive: their keys in camelCase, and the speed over a window."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefetch.progress import (
    DownloadProgress,
    DownloadResult,
    DownloadStatus,
    ReportTimes,
    SpeedMeter,
    camel_case,
    to_camel_case_dict,
)

PROGRESS = DownloadProgress("0" * 16, 25, 100, 12.5, 25.0, 6.0, "a.bin", DownloadStatus.ACTIVE, connections=4)
RESULT = DownloadResult(
    Path("/tmp/a.bin"), "a.bin", 100, "0" * 16, "md5=00", 1.5, 2, ("http://a/", "http://b/"), 4, 50, True
)


@pytest.mark.parametrize(
    ("name", "camel"),
    [("", ""), ("gid", "gid"), ("total_size", "totalSize"), ("max_connection_per_server", "maxConnectionPerServer")],
)
def test_names_become_camel_case(name: str, camel: str) -> None:
    assert camel_case(name) == camel


@given(st.lists(st.text("abcdefghijklmnopqrstuvwxyz", min_size=1), min_size=1))
def test_camel_case_loses_nothing_but_the_underscores(words: list[str]) -> None:
    camel = camel_case("_".join(words))
    assert camel.lower() == "".join(words)
    assert sum(letter.isupper() for letter in camel) == len(words) - 1


def test_the_states_have_aria2s_names() -> None:
    assert [str(status) for status in DownloadStatus] == ["waiting", "active", "paused", "complete", "error", "removed"]


def test_progress_as_a_dict() -> None:
    assert PROGRESS.to_dict() == {
        "gid": "0" * 16,
        "downloaded": 25,
        "total": 100,
        "speed": 12.5,
        "percentage": 25.0,
        "eta": 6.0,
        "filename": "a.bin",
        "status": "active",
        "connections": 4,
        "note": "",
        "waitingFor": "",
    }


def test_a_result_as_a_dict() -> None:
    assert RESULT.to_dict() == {
        "path": "/tmp/a.bin",
        "filename": "a.bin",
        "size": 100,
        "gid": "0" * 16,
        "checksum": "md5=00",
        "seconds": 1.5,
        "retries": 2,
        "sources": ["http://a/", "http://b/"],
        "connections": 4,
        "resumed": 50,
        "alreadyComplete": True,
        "bound": "",
        "identity": "",
    }


@pytest.mark.parametrize("value", [PROGRESS, RESULT], ids=lambda value: type(value).__name__)
def test_a_dict_has_every_field_and_is_ready_for_json(value: DownloadProgress) -> None:
    found = value.to_dict()
    assert list(found) == [camel_case(field.name) for field in dataclasses.fields(value)]
    assert json.loads(json.dumps(found)) == found


def test_nested_values_become_plain_ones() -> None:
    @dataclasses.dataclass
    class Value:
        some_paths: tuple[Path, ...]
        some_map: dict[str, int]
        _private: int = 0

    value = Value((Path("a"), Path("b")), {"k_v": 1})
    found = to_camel_case_dict(value)
    assert found == {"somePaths": ["a", "b"], "someMap": {"k_v": 1}}
    assert found["someMap"] is not value.some_map


@pytest.mark.parametrize("value", [PROGRESS, RESULT], ids=lambda value: type(value).__name__)
def test_values_cannot_be_changed(value: DownloadProgress) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.gid = "1"  # type: ignore[misc]  # wrong on purpose


# Speed.


@pytest.mark.parametrize(
    "look",
    [
        lambda result: result.path,
        lambda result: pickle.loads(pickle.dumps(result)).path,
        lambda result: copy.deepcopy(result).path,
        lambda result: dataclasses.replace(result, size=1).path,
        lambda result: dataclasses.asdict(result)["path"],
    ],
)
def test_a_path_that_nobody_has_looked_at_is_one(look: Callable[[DownloadResult], object]) -> None:
    values: dict[str, Any] = {"filename": "a.bin", "size": 100, "gid": "0" * 16}
    result = DownloadResult(path="/tmp/a.bin", **values)  # type: ignore[arg-type]  # of several types
    made = DownloadResult(path=Path("/tmp/a.bin"), **values)
    assert look(result) == Path("/tmp/a.bin")
    assert isinstance(look(result), Path)
    assert (result, hash(result), repr(result), result.to_dict()) == (made, hash(made), repr(made), made.to_dict())
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.path = Path("/tmp/b.bin")  # type: ignore[misc]  # wrong on purpose


def test_one_look_is_no_speed() -> None:
    meter = SpeedMeter()
    assert meter.speed() == 0.0
    meter.sample(1.0, 1000)
    assert meter.speed() == 0.0


def test_speed_is_that_of_the_window() -> None:
    meter = SpeedMeter(window_s=4.0)
    for second in range(11):
        meter.sample(float(second), 100 * second if second <= 5 else 500)
    assert meter.speed() == 0.0, "nothing has come for longer than the window"
    meter.sample(11.0, 900)
    assert meter.speed() == pytest.approx(100.0)


@given(
    st.lists(st.tuples(st.floats(0.01, 3.0), st.integers(0, 1 << 30)), min_size=1, max_size=60),
    st.floats(0.5, 10.0),
)
def test_speed_lies_between_the_slowest_and_the_fastest_piece(pieces: list[tuple[float, int]], window_s: float) -> None:
    meter = SpeedMeter(window_s)
    now_s, count, rates = 0.0, 0, []
    meter.sample(now_s, count)
    for seconds, more in pieces:
        rates.append(more / seconds)
        now_s, count = now_s + seconds, count + more
        meter.sample(now_s, count)
        assert min(rates) * 0.999 - 1 <= meter.speed() <= max(rates) * 1.001 + 1


@given(st.integers(1, 1 << 40), st.floats(0.05, 1.0))
def test_a_steady_rate_is_measured_exactly(rate: int, step_s: float) -> None:
    meter = SpeedMeter()
    for step in range(100):
        meter.sample(step * step_s, int(rate * step * step_s))
    assert meter.speed() == pytest.approx(rate, rel=1e-3, abs=20)


def test_a_counter_that_went_back_starts_the_window_anew() -> None:
    meter = SpeedMeter()
    meter.sample(0.0, 1000)
    meter.sample(1.0, 5000)
    meter.sample(2.0, 100)
    assert meter.speed() == 0.0
    meter.sample(3.0, 300)
    assert meter.speed() == 200.0


def test_two_looks_at_one_moment_are_no_speed() -> None:
    meter = SpeedMeter()
    meter.sample(1.0, 0)
    meter.sample(1.0, 1000)
    assert meter.speed() == 0.0


def test_after_a_reset_nothing_is_known() -> None:
    meter = SpeedMeter()
    meter.sample(0.0, 0)
    meter.sample(1.0, 1000)
    meter.reset()
    assert meter.speed() == 0.0


def test_a_long_run_keeps_a_short_memory() -> None:
    meter = SpeedMeter(window_s=4.0)
    for step in range(100_000):
        meter.sample(step * 0.25, step)
    assert len(meter._samples) < 20


def test_reports_come_ten_times_a_second_and_less_often_where_they_take_long() -> None:
    times = ReportTimes()
    assert times.is_due(0.0)
    times.reported(5.0, 5.001)
    assert (times.is_due(5.099), times.is_due(5.101)) == (False, True)
    times.reported(6.0, 6.05)
    assert (times.is_due(6.49), times.is_due(6.51)) == (False, True)
    times.reported(7.0, 9.0)  # but the pause has an upper limit
    assert (times.is_due(7.9), times.is_due(9.0)) == (False, True)
