"""A comparison with bytes on disk: whatever happens, it reports one finding, once nothing touches its scratch file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest

from rangefetch import _engine
from rangefetch.errors import LocalError
from rangefetch.net.sources import Source
from rangefetch.options import DownloadOptions
from rangefetch.transfer import comparison
from rangefetch.transfer.comparison import Comparison, Finding, Question, Verdict
from rangefetch.transfer.events import EngineEvent
from rangefetch.transfer.failure import Fault
from rangefetch.transfer.retry import RetryPolicy
from rangefetch.transfer.samples import Sample
from rangefetch.transfer.workers import Outcome

OCTETS = b"the bytes on disk"


class Scene:
    """A comparison whose workers and engine do what the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, octets: bytes = OCTETS) -> None:
        self.findings: list[Finding] = []
        self.files: list[Mock] = []
        self._jobs: list[tuple[Callable[[], Any], Callable[[Outcome[Any]], None]]] = []
        monkeypatch.setattr(_engine, "File", self._file)
        services = Mock(policy=RetryPolicy())
        services.work = lambda _, job, then: self._jobs.append((job, then))
        services.add_file.return_value = 0
        question = Question(Source("http://h/x"), len(OCTETS), [Sample(0, octets)])
        self.it: Comparison[Any] = Comparison(services, Mock(), DownloadOptions(), question, self.findings.append)
        self.it.begin()

    def _file(self, fd: int, *_: object, **known: Any) -> Mock:
        os.pwrite(fd, OCTETS, 0)
        file = Mock(fd=fd, known=known)
        file.epoch.return_value = 0
        file.validators.return_value = ("", "")
        self.files.append(file)
        return file

    def work(self) -> None:
        """Do the job that a worker was given, and report it."""
        job, then = self._jobs.pop()
        then(Outcome(job()))

    def hear(self, name: str, fault: Fault = Fault.NONE, status: int = 206) -> None:
        """Report an event of the engine's latest file."""
        fields: list[Any] = [name, self.files[-1], 0, status, int(fault), *[0] * 4, "", "", 0, 0, 1, "", 0, 0, None]
        self.it.handle(EngineEvent._make(fields))

    def is_open(self) -> bool:
        """Whether the latest scratch file is open."""
        try:
            os.fstat(self.files[-1].fd)
        except OSError:
            return False
        return True


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_the_same_bytes_are_the_same(scene: Scene) -> None:
    scene.work()
    scene.hear("ANSWERED")
    scene.hear("DONE")
    assert scene.findings == []
    scene.work()
    assert [each.verdict for each in scene.findings] == [Verdict.SAME]
    assert not scene.is_open()


def test_other_bytes_are_different(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, b"the bytes on disc")
    scene.work()
    scene.hear("DONE")
    scene.work()
    assert [(each.verdict, each.reason) for each in scene.findings] == [
        (Verdict.DIFFERENT, "its content differs, e.g. at byte 16")
    ]


def test_samples_that_the_engine_could_not_fetch_for_lack_of_memory_are_not_compared(scene: Scene) -> None:
    """It then ends the file by itself, and what has not arrived must not count as different."""
    scene.work()
    scene.hear("REMOVED")
    (finding,) = scene.findings
    assert (finding.verdict, type(finding.error)) == (Verdict.UNKNOWN, LocalError)
    assert not scene.is_open()


def test_a_small_file_whose_server_sends_no_ranges_is_fetched_whole(scene: Scene) -> None:
    scene.work()
    scene.hear("FAILED", Fault.RANGE_WRONG, status=200)
    first = scene.files[-1]
    first.remove.assert_called_once_with()
    assert len(scene.files) == 1
    scene.hear("REMOVED")
    assert len(scene.files) == 2
    assert first.known.keys() >= {"blocks", "partial"}
    assert scene.files[-1].known["ranged"] is False
    scene.hear("DONE")
    scene.work()
    assert [each.verdict for each in scene.findings] == [Verdict.SAME]


@pytest.mark.parametrize(
    ("until", "then"),
    [
        ("", ""),
        ("work", "REMOVED"),
        ("work", "DONE"),  # it was complete before the engine got the stop
        ("work FAILED", "REMOVED"),
        ("work DONE", "work"),
    ],
)
def test_one_that_is_stopped_reports_once_nothing_touches_its_scratch_file(scene: Scene, until: str, then: str) -> None:
    for step in until.split():
        if step == "work":
            scene.work()
        else:
            scene.hear(step, Fault.RANGE_WRONG if step == "FAILED" else Fault.NONE, status=200)
    scene.it.stop()
    scene.it.stop()
    assert len(scene.findings) == (not then)
    assert not then or scene.is_open()
    if then == "work":
        scene.work()
    elif then:
        scene.hear(then)
    assert [each.verdict for each in scene.findings] == [Verdict.UNKNOWN]
    assert not scene.files or not scene.is_open()
    if not then:
        scene.work()  # its requests could be made by now, and are not
    assert len(scene.files) == (1 if then else 0)


def test_every_stage_has_its_row_and_can_be_stopped() -> None:
    assert set(comparison._TABLE) == set(comparison._Stage)
    stops = {stage for stage, moves in comparison._TABLE.items() if comparison._Step.STOP in moves}
    # Where it is leaving, the finding is known.
    assert stops == set(comparison._Stage) - {comparison._Stage.LEAVING, comparison._Stage.TOLD}
