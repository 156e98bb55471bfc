"""A task's requests beside its transfers: ranges to compare, added mirrors, new links."""

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
_FEW_BLOCKS = 64  # up to this many blocks, partly filled blocks are compared too


class Sourcing:
    """The sources of one task. All methods run on the backend's thread, except those for workers."""

    def __init__(self, task: NativeTask) -> None:
        self._task = task
        self.requests = Jobs(functools.partial(task.backend.work, task))
        """Jobs for the sources, which do not touch the target."""

    def move_source(self, number: int, url: str, then: Callable[[Finding | None], None]) -> None:
        """Use another URL for a source.

        Validators belong to one URL, so bytes are compared to show that the same file is there. ``then`` is called with
        the finding, or None if there was nothing to compare.
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
        """The extents that are in the file and still on disk; in a file with many blocks, only whole blocks.

        Empty for a single stream that resumed nothing, whose extents cannot be told apart.
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
        """Have the engine also use a mirror that was waiting.

        Its responses must have ``validators``; None: those of its first response.
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
        """Fetch samples of ``extents`` again from a source, compare them with the file, and call ``then`` with the
        finding.

        ``size`` is the file's size in bytes. The source's responses must have ``validators``; None: those that it is
        known to have. Samples of ``oldest`` are always included.
        """
        task = self._task
        assert task.target is not None
        target = task.target
        places = samples.choose(size, extents, random.Random())
        if oldest:
            places = [*samples.choose(size, oldest, random.Random()), *places[:2]]

        def begin(found: list[Sample]) -> None:
            # The bytes that a reader has used may have been given back to the file system meanwhile.
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
        """One comparison's part of the download's limit, a quarter; 0: there is no limit."""
        task = self._task
        limit = int(task.options.max_download_limit)
        return max(1, limit // 4) if limit else 0

    def set_limit(self) -> None:
        """Give the file the part of the limit that the running comparisons leave."""
        task = self._task
        if task.in_engine:
            limit = int(task.options.max_download_limit)
            task.file.limit = max(1, limit - len(task.comparisons) * self._limit_of_comparisons()) if limit else 0

    def profiles(self) -> list[Profile]:
        """The profile of each source; on a worker, because it reads files."""
        task = self._task
        return [task.backend.profile(task.options, source) for source in task.sources]

    def ask_anew(self) -> None:
        """Apply changed headers to the sources' further requests."""
        self.requests.do(self.profiles, self._ask_as, what=SECRETS)

    def _ask_as(self, profiles: list[Profile]) -> None:
        task = self._task
        if task.life.phase in AT_WORK:
            for number, profile in enumerate(profiles[: task.file.source_count]):
                task.file.ask_as(number, profile)
