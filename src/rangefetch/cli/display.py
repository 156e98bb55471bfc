"""Output while files are fetched: results on stdout, everything else on stderr.

There are three displays with the same interface: :class:`Quiet` prints only errors, :class:`Plain` prints lines for a
log, and :class:`Live` draws bars on a terminal. ``main`` and ``many`` call their methods; the displays request nothing
themselves. Only ``Live`` imports rich, when it starts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
    """Prints results and errors; the base class of the other displays.

    If the reader of stdout or stderr exits (``rangefetch ... | head -1``), or their terminal is closed, fetching
    continues.
    """

    lost_results = False
    """Whether a result could not be written for another reason than that its reader has exited."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def result(self, line: str) -> None:
        """Print a result: a path or JSON."""
        try:
            _write(sys.stdout, line)
        except OSError as error:
            self.lost_results = True
            self.error(f"standard output: {error.strerror}")

    def error(self, line: str) -> None:
        """Print an error."""
        self._line(f"rangefetch: {line}")

    def note(self, line: str) -> None:
        """Print a remark."""

    def update(self, downloads: Mapping[str, DownloadProgress]) -> None:
        """Show the current state of all downloads of this command, including ended ones, by URL."""

    def update_whole(
        self, counts: str, whole: DownloadProgress, active: Callable[[], Sequence[DownloadProgress]]
    ) -> None:
        """Show the current state of a list of files; ``active`` returns the active downloads.

        ``counts`` says how many files there are and how many have ended; ``whole.percentage`` is the share of the
        latter.
        """

    def ended(self, url: str, result: DownloadResult) -> None:
        """Show that the file of ``url`` is complete."""

    def _line(self, line: str) -> None:
        try:
            _write(sys.stderr, printable(for_people(line)))
        except OSError:
            return  # stderr is the last place to report errors


class _Waits:
    """What downloads without a connection are waiting for, shown only if it lasts: most waits are too short to read."""

    worth_saying_s = 2.0

    def __init__(self) -> None:
        self._since: dict[str, tuple[str, float]] = {}

    def of(self, progress: DownloadProgress) -> str:
        """What a download is waiting for, in words; empty if it is not waiting, or not for long enough."""
        words = progress.waiting_for if progress.status == DownloadStatus.ACTIVE and not progress.connections else ""
        before, since_s = self._since.get(progress.gid, ("", 0.0))
        now_s = time.monotonic()
        if words != before:
            self._since[progress.gid] = (words, since_s) = (words, now_s)
        return f"waiting for {words}" if words and now_s - since_s >= self.worth_saying_s else ""


class Plain(Quiet):
    """Prints lines for a log: one when a file starts, one every few seconds, and one when it ends."""

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
        self._say_notes((shown_name(url, progress), progress) for url, progress in downloads.items())
        if self._is_time():
            self._line(summary(downloads))

    def update_whole(
        self, counts: str, whole: DownloadProgress, active: Callable[[], Sequence[DownloadProgress]]
    ) -> None:
        self._say_notes((progress.filename, progress) for progress in active())
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

    def _say_notes(self, downloads: Iterable[tuple[str, DownloadProgress]]) -> None:
        """Print once what holds downloads up: one line for all that begin to wait for the same thing together."""
        begun: dict[str, list[str]] = {}
        for name, progress in downloads:
            note = progress.note if progress.status == DownloadStatus.ACTIVE else ""
            if not note and self._waits is not None:
                note = self._waits.of(progress)
            if note != self._notes.get(progress.gid, ""):
                self._notes[progress.gid] = note
                if note:
                    begun.setdefault(note, []).append(name)
        for note, (name, *others) in begun.items():
            self._line(f"{name}{f' and {len(others)} more' if others else ''}: {note}")

    def _is_time(self) -> bool:
        """Whether a summary is due; if so, also schedule the next."""
        if time.monotonic() < self._next_summary:
            return False
        self._next_summary = time.monotonic() + self.seconds_between_summaries
        return True


class Live(Quiet):
    """Draws bars on a terminal, which disappear at the end; a line stays for each file that ended."""

    _region: Region | None = None

    def __init__(self, *, explains: bool = False) -> None:
        self._waits = _Waits() if explains else None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live as Region

        self._console = Console(file=sys.stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
        # rich's redirection would print results to stderr, even when stdout is a pipe; `result` handles them instead.
        self._region = Region(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        with self._on_the_terminal():
            self._region.start()
        return self

    def __exit__(self, *_: object) -> None:
        region, self._region = self._region, None
        if region is not None:
            with self._on_the_terminal():
                region.stop()

    def result(self, line: str) -> None:
        if self._region is not None and sys.stdout is not None and sys.stdout.isatty():
            # stdout is the same terminal: a line that is not printed through the region would be drawn over.
            with self._on_the_terminal():
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
            with self._on_the_terminal():
                self._console.print(printable(line))
        else:
            super()._line(line)

    @contextlib.contextmanager
    def _on_the_terminal(self) -> Iterator[None]:
        """Write to the terminal in the body. If that is no longer possible, nothing more is written there."""
        try:
            yield
        except OSError:
            _mute(sys.stderr)

    def _draw(self, rows: Sequence[tuple[str, DownloadProgress]], *last: tuple[str, DownloadProgress]) -> None:
        """Draw as many of the rows as fit on the terminal, and the last one."""
        if self._region is not None:
            room = max(self._console.height - 3, 1)
            with self._on_the_terminal():
                self._region.update(self._table([*rows[:room], *last]), refresh=True)

    def _table(self, rows: Sequence[tuple[str, DownloadProgress]]) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        wide = self._console.width >= _WIDTH_FOR_EVERYTHING
        # Terminals print ^C for Ctrl-C. At the end of a full line that would take another, and the bar would stay.
        table = Table.grid(padding=(0, 1), expand=True)
        table.width = max(self._console.width - len("^C"), 1)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=self._console.width // 3)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")  # the bar, or a note, takes the remaining width
        # Columns as wide as their widest number, so that the bar does not change its width.
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
    """Return the display that suits the options and stderr. With ``explains``, it says what downloads wait for."""
    if quiet:
        return Quiet()
    terminal = sys.stderr is not None and sys.stderr.isatty()
    is_live = terminal and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return Live(explains=explains) if is_live else Plain(explains=explains)


def summary(downloads: Mapping[str, DownloadProgress]) -> str:
    """One line about the progress of all downloads."""
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
    """One line about a finished file."""
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
    """The combined progress of all downloads. The total is unknown if that of any unfinished download is."""
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
    """The file's name or, while it is unknown, the last part of the URL."""
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
    """Flush stdout, so that Python does not complain about it on exit."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as error:
            is_gone = _has_gone(sys.stdout, error)
            _mute(sys.stdout)
            if not is_gone:
                raise


def _has_gone(stream: TextIO, error: OSError) -> bool:
    """Whether ``error`` says that the stream's reader has exited, or that its terminal was closed."""
    if error.errno == errno.EIO:
        return stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
    return isinstance(error, BrokenPipeError)


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
        is_gone = _has_gone(stream, error)
        _mute(stream)
        if not is_gone:
            raise


def _write_octets(stream: TextIO, line: str) -> None:
    """Write a name that the stream's encoding cannot represent as its bytes on disk, as ``ls`` and ``find`` do."""
    octets = getattr(stream, "buffer", None)
    if octets is None:
        stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
    else:
        stream.flush()
        octets.write(os.fsencode(for_file_system(line)) + b"\n")


def _mute(stream: TextIO) -> None:
    # The unwritten data is still in the stream's buffer, and flushing it at exit would fail again.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
