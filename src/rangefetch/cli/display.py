"""What is shown while files are fetched: results on stdout, everything else on stderr.

Three displays with one face. :class:`Quiet` says only what went wrong, :class:`Plain` writes lines for a log,
and :class:`Live` draws bars on a terminal. All are told the same few things by ``main`` and pull nothing
themselves; rich is imported by the one that needs it, when it begins.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Self, TextIO
from urllib.parse import urlsplit

from rangefetch.encoding import for_file_system, for_people
from rangefetch.masking import mask_url, printable
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus

if TYPE_CHECKING:
    from rich.live import Live as Region
    from rich.table import Table

__all__ = ["Live", "Plain", "Quiet", "choose", "flush", "printable"]

_ENDED = (DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED)
_MINUTE, _HOUR = 60, 3600
_WIDTH_FOR_EVERYTHING = 70


class Quiet:
    """Results, and what went wrong; also the part that the other displays share.

    A reader of stdout or stderr that has gone (``rangefetch ... | head -1``) is no reason to stop fetching.
    """

    lost_results = False
    """A result could not be written, and not because its reader had enough."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def result(self, line: str) -> None:
        """What the command is for: a path, or JSON."""
        try:
            _write(sys.stdout, line)
        except OSError as error:
            self.lost_results = True
            self.error(f"standard output: {error.strerror}")

    def error(self, line: str) -> None:
        """What went wrong."""
        self._line(f"rangefetch: {line}")

    def note(self, line: str) -> None:
        """What is good to know."""

    def update(self, downloads: Mapping[str, DownloadProgress]) -> None:
        """All downloads of this run by URL, the ended ones too, as they are now."""

    def update_whole(
        self, counts: str, whole: DownloadProgress, active: Callable[[], Sequence[DownloadProgress]]
    ) -> None:
        """A list of files as it is now; ``active`` gets those of them that are at work.

        ``counts`` says how many there are and have ended, and ``whole.percentage`` is the share of those.
        """

    def ended(self, url: str, result: DownloadResult) -> None:
        """The file of ``url`` is there."""

    def _line(self, line: str) -> None:
        try:
            _write(sys.stderr, printable(for_people(line)))
        except OSError:
            return  # there is no place left to say so


class _Waits:
    """What holds up downloads over which nothing comes, once that lasts: most waits are too short to be read."""

    worth_saying_s = 2.0

    def __init__(self) -> None:
        self._since: dict[str, tuple[str, float]] = {}

    def of(self, progress: DownloadProgress) -> str:
        """In words; empty: nothing, or not for long."""
        words = progress.waiting_for if progress.status == DownloadStatus.ACTIVE and not progress.connections else ""
        before, since_s = self._since.get(progress.gid, ("", 0.0))
        now_s = time.monotonic()
        if words != before:
            self._since[progress.gid] = (words, since_s) = (words, now_s)
        return f"waiting for {words}" if words and now_s - since_s >= self.worth_saying_s else ""


class Plain(Quiet):
    """Lines for a log: one when a file begins, one every few seconds, one when it ends."""

    seconds_between_summaries = 5.0

    def __init__(self, *, explains: bool = False) -> None:
        self._begun: set[str] = set()
        self._waits = _Waits() if explains else None
        self._notes: dict[str, str] = {}
        self._next_summary = time.monotonic() + self.seconds_between_summaries

    def note(self, line: str) -> None:
        self._line(f"rangefetch: {line}")

    def update(self, downloads: Mapping[str, DownloadProgress]) -> None:
        for url, progress in downloads.items():
            if progress.status == DownloadStatus.ACTIVE:
                self._begin(url)
            self._say_note(shown_name(url, progress), progress)
        if self._is_time():
            self._line(summary(downloads))

    def update_whole(
        self, counts: str, whole: DownloadProgress, active: Callable[[], Sequence[DownloadProgress]]
    ) -> None:
        for progress in active():
            self._say_note(progress.filename, progress)
        if self._is_time():
            connections = counted(whole.connections, "connection")
            speed = f"{amount(whole.speed)}/s"
            self._line(f"{counts}: {amount(whole.downloaded)}, {speed}, {connections}")

    def ended(self, url: str, result: DownloadResult) -> None:
        self._begin(url)
        self._line(outcome(result))

    def _begin(self, url: str) -> None:
        if url not in self._begun:
            self._begun.add(url)
            self._line(f"{mask_url(url)}: started")

    def _say_note(self, name: str, progress: DownloadProgress) -> None:
        """What holds a download up, once."""
        note = progress.note if progress.status == DownloadStatus.ACTIVE else ""
        if not note and self._waits is not None:
            note = self._waits.of(progress)
        if note != self._notes.get(progress.gid, ""):
            self._notes[progress.gid] = note
            if note:
                self._line(f"{name}: {note}")

    def _is_time(self) -> bool:
        """Whether a summary is due; if so, the next is due later."""
        if time.monotonic() < self._next_summary:
            return False
        self._next_summary = time.monotonic() + self.seconds_between_summaries
        return True


class Live(Quiet):
    """Bars on a terminal, gone at the end; a line stays for each file that ended."""

    _region: Region | None = None

    def __init__(self, *, explains: bool = False) -> None:
        self._waits = _Waits() if explains else None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live as Region

        self._console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        # Redirecting would draw the results into stderr, also when stdout is a pipe: see `result`.
        self._region = Region(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._region.start()
        return self

    def __exit__(self, *_: object) -> None:
        region, self._region = self._region, None
        if region is not None:
            region.stop()

    def result(self, line: str) -> None:
        if self._region is not None and sys.stdout is not None and sys.stdout.isatty():
            # The same terminal: a line that does not go through the region would be drawn over.
            self._console.print(line)
        else:
            super().result(line)

    def note(self, line: str) -> None:
        self._line(f"rangefetch: {line}")

    def update(self, downloads: Mapping[str, DownloadProgress]) -> None:
        rows = [
            (shown_name(url, progress), progress)
            for url, progress in downloads.items()
            if progress.status == DownloadStatus.ACTIVE
        ]
        if len(downloads) > 1:
            self._draw(rows, (_counts(downloads.values()), together(downloads.values())))
        else:
            self._draw(rows)

    def update_whole(
        self, counts: str, whole: DownloadProgress, active: Callable[[], Sequence[DownloadProgress]]
    ) -> None:
        self._draw([(each.filename, each) for each in active()], (counts, whole))

    def ended(self, url: str, result: DownloadResult) -> None:
        self._line(outcome(result))

    def _line(self, line: str) -> None:
        if self._region is not None:
            self._console.print(printable(line))
        else:
            super()._line(line)

    def _draw(self, rows: Sequence[tuple[str, DownloadProgress]], *last: tuple[str, DownloadProgress]) -> None:
        """Draw as many of the rows as there is room for, and the last."""
        if self._region is not None:
            room = max(self._console.height - 3, 1)
            self._region.update(self._table([*rows[:room], *last]), refresh=True)

    def _table(self, rows: Sequence[tuple[str, DownloadProgress]]) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        wide = self._console.width >= _WIDTH_FOR_EVERYTHING
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=self._console.width // 3)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")  # the bar, or a note, takes what is left
        # Columns that hold their widest number do not make the bar jump.
        for width in (5, 8, 10, 7, 9) if wide else (5, 10, 7):
            table.add_column(no_wrap=True, justify="right", min_width=width)
        for name, progress in rows:
            known = progress.total > 0 or progress.percentage > 0
            percentage = f"{progress.percentage:.0f} %" if known else ""
            numbers = [percentage, f"{amount(progress.speed)}/s", clock(progress.eta)]
            if wide:
                numbers.insert(1, amount(progress.total or progress.downloaded))
                numbers.append(f"{progress.connections} conn.")
            note = progress.note or (self._waits.of(progress) if self._waits is not None else "")
            middle: ProgressBar | str = printable(note)
            if wide and not middle:
                middle = ProgressBar(100 if known else None, progress.percentage, pulse=not known)
            table.add_row(printable(name), middle, *numbers)
        return table


def choose(*, quiet: bool, explains: bool = False) -> Quiet:
    """The display that fits: what was asked for, and what stderr can show. With ``explains`` it says what downloads
    wait for.
    """
    if quiet:
        return Quiet()
    terminal = sys.stderr is not None and sys.stderr.isatty()
    is_live = terminal and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return Live(explains=explains) if is_live else Plain(explains=explains)


def summary(downloads: Mapping[str, DownloadProgress]) -> str:
    """Where all of them stand, in one line."""
    now = together(downloads.values())
    if len(downloads) == 1:
        [(url, progress)] = downloads.items()
        name = shown_name(url, progress)
    else:
        name = _counts(downloads.values())
    how_far = f"{now.percentage:.0f} % of {amount(now.total)}" if now.total else amount(now.downloaded)
    left = f", {clock(now.eta)} left" if now.eta is not None else ""
    return f"{name}: {how_far}, {amount(now.speed)}/s{left}, {counted(now.connections, 'connection')}"


def _counts(downloads: Collection[DownloadProgress]) -> str:
    status = Counter(each.status for each in downloads)
    return how_many(status[DownloadStatus.COMPLETE], status[DownloadStatus.ERROR], len(downloads))


def how_many(done: int, failed: int, count: int) -> str:
    """``1, 0, 4`` -> ``"1 of 4 files done"``, ``1, 1, 4`` -> ``"1 done, 1 failed of 4 files"``."""
    if failed:
        return f"{done} done, {failed} failed of {counted(count, 'file')}"
    return f"{done} of {counted(count, 'file')} done"


def outcome(result: DownloadResult) -> str:
    """What came of one file, in one line."""
    if result.already_complete:
        return f"{result.filename}: already complete, {amount(result.size)}"
    line = f"{result.filename}: {amount(result.size)} in {result.seconds:.1f} s"
    if result.seconds > 0:
        line += f", {amount((result.size - result.resumed) / result.seconds)}/s"
    if result.connections:
        line += f" over {counted(result.connections, 'connection')}"
    if result.resumed:
        line += f", {amount(result.resumed)} was there before"
    return f"{line}, {result.checksum.partition('=')[0]} verified" if result.checksum else line


def together(downloads: Iterable[DownloadProgress]) -> DownloadProgress:
    """All of them as if they were one; of unknown size while one that has not ended is."""
    all_of_them = list(downloads)
    living = [one for one in all_of_them if one.status not in _ENDED]
    downloaded = sum(one.downloaded for one in all_of_them)
    speed = sum(one.speed for one in living)
    missing = sum(max(one.total - one.downloaded, 0) for one in living)
    total = 0 if any(one.total == 0 for one in living) else downloaded + missing
    return DownloadProgress(
        gid="",
        downloaded=downloaded,
        total=total,
        speed=speed,
        percentage=100 * downloaded / total if total else 0.0,
        eta=missing / speed if total and speed > 0 else None,
        filename="",
        status=DownloadStatus.ACTIVE,
        connections=sum(one.connections for one in all_of_them),
    )


def shown_name(url: str, progress: DownloadProgress) -> str:
    """The file's name, or as long as that is not known what the URL ends in."""
    return PurePath(progress.filename).name or PurePath(urlsplit(url).path).name or mask_url(url)


def amount(size: float) -> str:
    """``1536`` -> ``"1.5 KiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def clock(seconds: float | None) -> str:
    """``75`` -> ``"1:15"``."""
    if seconds is None or seconds >= 1000 * _HOUR:
        return "-:--"
    whole = round(seconds)
    minutes_seconds = f"{whole % _HOUR // _MINUTE:02}:{whole % _MINUTE:02}"
    return f"{whole // _HOUR}:{minutes_seconds}" if whole >= _HOUR else minutes_seconds.removeprefix("0")


def counted(number: int, noun: str) -> str:
    """``1, "file"`` -> ``"1 file"``, ``2, "file"`` -> ``"2 files"``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def flush() -> None:
    """Empty what stdout still holds, so that Python has nothing to complain about when it ends."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            _mute(sys.stdout)
            if not isinstance(error, BrokenPipeError):
                raise


def _write(stream: TextIO | None, line: str) -> None:
    if stream is None:
        return
    try:
        try:
            stream.write(f"{line}\n")
        except UnicodeEncodeError:
            _write_octets(stream, line)
        stream.flush()
    except OSError as error:
        _mute(stream)
        if not isinstance(error, BrokenPipeError):
            raise


def _write_octets(stream: TextIO, line: str) -> None:
    """A name that the stream's encoding has no letters for, as it is on the disk: so ``ls`` and ``find`` do."""
    octets = getattr(stream, "buffer", None)
    if octets is None:
        stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
    else:
        stream.flush()
        octets.write(os.fsencode(for_file_system(line)) + b"\n")


def _mute(stream: TextIO) -> None:
    # What could not be written is still in the stream's buffer, and would fail again at exit.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
