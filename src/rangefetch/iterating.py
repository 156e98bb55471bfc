"""Any number of files, whose results are told as they come: ``fetch_iter``.

What it holds is bounded: items are taken from wherever they come only while less than a window of them is under way,
and the manager is asked for no more of those than keep it busy. ``fetch_many`` is the form that has all items, and
returns all results.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, Unpack, runtime_checkable

from rangefetch.batch import MOST_KEPT, Batch, Standing
from rangefetch.checks import check_count, check_function, check_path
from rangefetch.errors import DownloadError, TargetExists
from rangefetch.items import Item, Wanted, understand
from rangefetch.manager import downloads_of
from rangefetch.masking import mask_url
from rangefetch.options import CommonOptions, DownloadOptions
from rangefetch.progress import DownloadProgress, DownloadResult
from rangefetch.shared import manager_like_ours, our_downloads

__all__ = ["NOTHING_MORE", "NOTHING_YET", "WINDOW", "Fetched", "Flow", "Source", "fetch_iter"]

WINDOW = 2048
"""Items that are taken before the result of the first of them was."""

NOTHING_YET, NOTHING_MORE = object(), object()
"""What a source returns in the place of an item."""


class Fetched(NamedTuple):
    """What came of one item: its ``number``, from 0, the ``item`` as it was given, and a result or an error."""

    number: int
    item: Any
    outcome: DownloadResult | DownloadError

    @property
    def result(self) -> DownloadResult:
        """The result. Raises the ``DownloadError`` of an item that failed."""
        if isinstance(self.outcome, DownloadError):
            raise self.outcome
        return self.outcome

    @property
    def error(self) -> DownloadError | None:
        """The error; None for an item that is complete."""
        return self.outcome if isinstance(self.outcome, DownloadError) else None


def fetch_iter(
    items: Iterable[Item],
    directory: str | os.PathLike[str] | None = None,
    *,
    max_concurrent_downloads: int | None = None,
    window: int = WINDOW,
    on_progress: Callable[[DownloadProgress], object] | None = None,
    **options: Unpack[CommonOptions],
) -> Generator[Fetched]:
    """Download any number of files into a directory; an iterator of :class:`Fetched`, in the order in which they end.

    ``items`` are those of ``fetch_many``, or the items of ``read_manifest``, from any iterable, which may be endless:
    it is advanced, in the calling thread, only while fewer than ``window`` items have been taken whose results have
    not. Memory is bounded by that. Hosts take turns within it. Nothing is fetched before the first result is asked for,
    and downloads under way go on between.

    Errors of downloads are yielded, not raised (``fetched.error``; ``fetched.result`` raises it). Of two items within
    the window that are given one name, the later one fails (``TargetExists``) before its bytes are fetched, or is
    numbered (``auto_file_renaming``); an item that is given twice there is downloaded once. ``on_progress`` is that of
    ``fetch_many``; as long as nobody knows how many items there are, its ``percentage`` is 0.

    Where nothing more can be written (``ENOSPC``, ``EDQUOT``), what is under way is stopped, and ``DiskFull`` is raised
    once all that has ended was yielded; what it stopped at is not. A file that is larger than what is free is an
    error of its own, and the others go on.

    An iterator that is closed, or left by an exception, stops what is under way and saves its state; the same items
    resume it. Raises ``ValueError`` or ``TypeError`` for bad options at once, and for a bad item when it is reached.
    """
    return fetch_from(
        items,
        directory,
        max_concurrent_downloads=max_concurrent_downloads,
        window=window,
        on_progress=on_progress,
        options=options,
    )


def fetch_from(
    items: Iterable[Item] | Source,
    directory: str | os.PathLike[str] | None,
    *,
    max_concurrent_downloads: int | None,
    window: int,
    on_progress: Callable[[DownloadProgress], object] | None,
    options: CommonOptions,
) -> Generator[Fetched]:
    """``fetch_iter``, whose items may come from a :class:`Source`. Arguments are checked at once."""
    if max_concurrent_downloads is not None:
        check_count(max_concurrent_downloads, "max_concurrent_downloads", 1, 1_000_000)
    check_function(on_progress, "on_progress")
    if isinstance(items, Source):
        source = items
    elif isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise TypeError(f"items: expected an iterable of items, not {type(items).__name__}")
    else:
        source = _Pulled(items)
    check_count(window, "window", 1, 1 << 20)
    return Flow(source, _common_options(directory, options), window, on_progress).run_on(max_concurrent_downloads)


def _common_options(directory: str | os.PathLike[str] | None, options: CommonOptions) -> DownloadOptions:
    """The options of all items. Raises ``TypeError``, ``ValueError``."""
    merged: dict[str, Any] = {**options}
    if directory is not None:
        merged["save_dir"] = check_path(directory, "directory")
    if merged.get("filename"):
        raise ValueError("filename: it is one name for many files; give each its own, as (url, name)")
    return DownloadOptions.of(merged)


@runtime_checkable
class Source(Protocol):
    """Where items come from."""

    def take(self) -> object:
        """The next item, ``NOTHING_YET`` or ``NOTHING_MORE``; called by one thread."""
        ...

    def wake_with(self, wake: Callable[[], object]) -> None:
        """What to call, from any thread, when there is something after ``NOTHING_YET``."""
        ...


class _Pulled:
    """Items of an iterable, which the thread that waits for results advances."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)

    def take(self) -> object:
        return next(self._items, NOTHING_MORE)

    def wake_with(self, wake: Callable[[], object]) -> None:
        return None


class _Names:
    """Items under way that may get one name: the first goes before the others, which wait for it to end."""

    def __init__(self, *, renames: bool) -> None:
        self._renames = renames
        self._first: dict[str, int] = {}
        self._wanted: dict[int, tuple[str, Wanted]] = {}
        self._copies: dict[int, list[int]] = {}
        self._after: dict[int, deque[tuple[int, Wanted]]] = {}

    def enter(self, number: int, wanted: Wanted) -> bool:
        """Whether an item may be asked for now. Raises ``TargetExists`` where another has been given its name."""
        own = wanted.own or {}
        name = f"{own.get('save_dir', '')}/{own.get('filename') or wanted.name}" if own else wanted.name
        first = self._first.setdefault(name, number)
        if first == number:
            self._wanted[number] = (name, wanted)
            return True
        of_first = self._wanted[first][1]
        if of_first == wanted:
            self._copies.setdefault(first, []).append(number)
        elif own.get("filename") and (of_first.own or {}).get("filename") and not self._renames:
            raise TargetExists(
                f"{own['filename']}: another item of the same call has that name", url=mask_url(wanted.url)
            )
        else:
            self._after.setdefault(first, deque()).append((number, wanted))
        return False

    def leave(self, number: int) -> tuple[list[int], int | None]:
        """An item has ended: those that are the same with it, and the one whose turn it is now."""
        name, _ = self._wanted.pop(number)
        copies = self._copies.pop(number, [])
        after = self._after.pop(number, None)
        if not after:
            del self._first[name]
            return copies, None
        following, wanted = after.popleft()
        self._first[name] = following
        self._wanted[following] = (name, wanted)
        if after:
            self._after[following] = after
        return copies, following


class Flow(Batch):
    """One run over a source: what was taken of it, what is asked for, and what has ended."""

    def __init__(
        self,
        source: Source,
        common: DownloadOptions,
        window: int,
        on_progress: Callable[[DownloadProgress], object] | None,
    ) -> None:
        super().__init__(common, on_progress, MOST_KEPT)
        self._source = source
        self._window = window
        self._names = _Names(renames=common.auto_file_renaming)
        self._items: dict[int, tuple[Any, Wanted]] = {}  # taken, and not ended
        self._ended: deque[Fetched] = deque()
        self._taken = 0
        self._exhausted = False

    def run_on(self, max_concurrent_downloads: int | None) -> Generator[Fetched]:
        """Fetch all on the process's manager, or on one of its own with this limit."""
        with contextlib.ExitStack() as stack:
            if max_concurrent_downloads is None:
                downloads = our_downloads()
            else:
                own = manager_like_ours(max_concurrent_downloads=max_concurrent_downloads)
                downloads = downloads_of(stack.enter_context(own))
            # Made absolute once, and not for each of them.
            self.common = self.common.over(downloads.defaults.options).absolute()
            self._source.wake_with(self.wake)
            stack.enter_context(self.at_work_on(downloads))
            yield from self._results()

    def _results(self) -> Iterator[Fetched]:
        while True:
            waits = self._take()
            self.ask(is_all=self._exhausted)
            while self._ended:
                yield self._ended.popleft()
            if not self._items and self._exhausted:
                break
            self.look(waits=waits)
            if self.stopped_by is not None:
                self.break_off()
                while self._ended:
                    yield self._ended.popleft()
                raise self.not_tried()
        self.report()

    def _take(self) -> bool:
        """Take what is wanted from the source; whether that has nothing yet."""
        # What is kept for the end has a bound of its own.
        kept = self.unreachable
        while not self._exhausted and len(self._items) - kept.kept_count + len(self._ended) < self._window:
            item = self._source.take()
            if item is NOTHING_YET:
                return True
            if item is NOTHING_MORE:
                self._exhausted = True
                break
            self._enter(item)
            self.ask_early()
        return False

    def _enter(self, item: Any) -> None:
        number = self._taken
        wanted = understand(number, item, self.common)
        self._taken += 1
        try:
            is_free = self._names.enter(number, wanted)
        except TargetExists as error:
            self._ended.append(Fetched(number, item, error))
            return
        self._items[number] = (item, wanted)
        if is_free:
            self.enter(number)

    def wanted(self, number: int) -> Wanted:
        return self._items[number][1]

    def ended(self, number: int, outcome: DownloadResult | DownloadError) -> None:
        copies, following = self._names.leave(number)
        for each in (number, *copies):
            item, _ = self._items.pop(each)
            self._ended.append(Fetched(each, item, outcome))
        if following is not None:
            self.enter(following)

    def standing(self) -> Standing:
        done = self._taken - len(self._items)
        return Standing(done, self._taken if self._exhausted else None, is_over=self._exhausted and not self._items)
