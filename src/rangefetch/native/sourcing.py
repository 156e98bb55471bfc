"""What a task asks its sources beside the transfers: ranges to compare, further mirrors, new links."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rangefetch.checks import HTTP, check_url
from rangefetch.net.sources import Source
from rangefetch.transfer import samples
from rangefetch.transfer.comparison import Finding, Question, Verdict
from rangefetch.transfer.jobs import Jobs
from rangefetch.transfer.lifecycle import AT_WORK
from rangefetch.transfer.samples import Extent, Sample, finished_extents

if TYPE_CHECKING:
    from rangefetch._engine import Profile
    from rangefetch.native.task import NativeTask

__all__ = ["SECRETS", "Sourcing"]

SECRETS = "the files of certificates and cookies"
_FEW_BLOCKS = 64  # of a file whose begun blocks can be compared, too


class Sourcing:
    """The sources of one task. All methods run on the backend's thread, but for what a worker is given."""

    def __init__(self, task: NativeTask) -> None:
        self._task = task
        self.requests = Jobs(functools.partial(task.backend.work, task))
        """What concerns the sources, and not the target."""

    def move_source(self, number: int, url: str, then: Callable[[Finding | None], None]) -> None:
        """A source is at another URL from now on. Validators are one URL's own, so bytes must show that the same file
        is there: ``then`` goes on with what comparing them has found; None: there was nothing to compare.
        """
        task = self._task
        source = task.sources.move(number, check_url(url, "refresh_url", HTTP))
        file = task.file

        def compared(finding: Finding | None) -> None:
            if finding is not None and finding.verdict is Verdict.UNKNOWN and finding.error is not None:
                then(finding)
                return
            same = finding if finding is not None and finding.verdict is not Verdict.UNKNOWN else None

            def known(profile: Profile) -> None:
                if file is task.file and task.life.phase in AT_WORK:
                    file.move(number, source.url, profile)
                    then(same)

            self.requests.do(lambda: task.backend.profile(task.options, source), known, what=SECRETS)

        extents = self.written_extents()
        if extents and samples.choose(file.size, extents, random.Random(0)):
            self.compare(source, extents, compared, size=file.size, validators=file.validators(number))
        else:
            compared(None)

    def written_extents(self) -> list[Extent]:
        """What of the file is there, as far as that can be told apart and nobody has given it back; of a file with many
        blocks only whole ones.
        """
        task = self._task
        file, target = task.file, task.target
        assert target is not None
        if not file.splits and not task.resumed_bytes:
            return []
        blocks = bytes(file.blocks)
        begun: dict[int, int] = {}
        if len(blocks) <= _FEW_BLOCKS:
            begun = {index: written for index, written in enumerate(file.partial) if written}
        extents = finished_extents(blocks, file.block_size, file.size, begun)
        return [(max(start, target.read_bytes), end) for start, end in extents if end > target.read_bytes]

    def use_source(self, source: Source, validators: tuple[str, str] | None = None) -> None:
        """Have the engine ask a mirror that was waiting, too. Its responses must have these validators; None: those of
        its first one.
        """
        task = self._task
        file = task.file

        def known(profile: Profile) -> None:
            if file is task.file and task.is_filling and source in task.sources.waiting:
                task.sources.join(source)
                task.recovery.resort.forget()
                file.add_source(source.url, profile, validators)
                task.set_lanes()
                task.recovery.go_on_at_once()

        self.requests.do(lambda: task.backend.profile(task.options, source), known, what=SECRETS)

    def compare(
        self,
        source: Source,
        extents: Sequence[Extent],
        then: Callable[[Finding], None],
        *,
        size: int,
        validators: tuple[str, str] | None = None,
        oldest: Sequence[Extent] = (),
    ) -> None:
        """Fetch some of ``extents`` of the file, which has ``size`` bytes, from a source again, and go on with what
        that finds. The source's responses must have these ``validators``; None: those that it is known to have. Some of
        ``oldest`` is fetched in any case.
        """
        task = self._task
        assert task.target is not None
        target = task.target
        places = samples.choose(size, extents, random.Random())
        if oldest:
            places = [*samples.choose(size, oldest, random.Random()), *places[:2]]

        def begin(found: list[Sample]) -> None:
            # What a reader has used may have been given back to the file system meanwhile.
            there = [sample for sample in found if sample.start >= target.read_bytes]
            limit = self._limit_of_comparisons()
            etag, last_modified = validators or (source.etag, source.last_modified)
            question = Question(source, size, there, etag, last_modified, limit)
            task.comparisons.begin(task.options, question, told)
            self.set_limit()

        def told(finding: Finding) -> None:
            self.set_limit()
            then(finding)

        task.do(lambda: samples.read(target.fd, places), begin)

    def _limit_of_comparisons(self) -> int:
        """Their part of the download's limit, a quarter; 0: there is no limit."""
        task = self._task
        limit = int(task.options.max_download_limit)
        return max(1, limit // 4) if limit else 0

    def set_limit(self) -> None:
        """The file has what the comparisons under way leave of the limit."""
        task = self._task
        if task.in_engine:
            limit = int(task.options.max_download_limit)
            task.file.limit = max(1, limit - len(task.comparisons) * self._limit_of_comparisons()) if limit else 0

    def profiles(self) -> list[Profile]:
        """How each source is asked; on a worker, because files are read for it."""
        task = self._task
        return [task.backend.profile(task.options, source) for source in task.sources]

    def ask_anew(self) -> None:
        """How the sources are asked has changed."""
        self.requests.do(self.profiles, self._ask_as, what=SECRETS)

    def _ask_as(self, profiles: list[Profile]) -> None:
        task = self._task
        if task.life.phase in AT_WORK:
            for number, profile in enumerate(profiles[: task.file.source_count]):
                task.file.ask_as(number, profile)
