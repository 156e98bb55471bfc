"""``fetch_iter``: downloads any number of files and yields results as they finish.

Its memory is bounded: it takes a new item only while fewer than a window of items are unfinished, and submits no more
of them to the manager than keep it busy. ``fetch_many``, in contrast, holds all items and returns all results.
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
"""The default number of items that may have been taken without their results having been yielded."""

NOTHING_YET, NOTHING_MORE = object(), object()
"""Returned by a source instead of an item."""


class Fetched(NamedTuple):
    """The outcome of one item: its ``number`` (from 0), the ``item`` as it was given, and a result or an error."""

    number: int
    item: Any
    outcome: DownloadResult | DownloadError

    @property
    def result(self) -> DownloadResult:
        """The result. Raises the ``DownloadError`` if the item failed."""
        if isinstance(self.outcome, DownloadError):
            raise self.outcome
        return self.outcome

    @property
    def error(self) -> DownloadError | None:
        """The error, or None if the item was downloaded."""
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
    """Download any number of files into a directory and yield a :class:`Fetched` as each one finishes.

    ``items`` is any iterable of the items that ``fetch_many`` takes, or of those that ``read_manifest`` returns. It may
    be endless: it is advanced, in the calling thread, only while fewer than ``window`` items have been taken without
    their results having been yielded, which bounds memory. Within the window, hosts take turns. Nothing is fetched
    before the first result is requested; between results, active downloads continue.

    Errors of downloads are yielded, not raised (``fetched.error`` has the error, ``fetched.result`` raises it). If two
    items within the window are given the same name, the later one fails with ``TargetExists`` before its bytes are
    fetched or, with ``auto_file_renaming``, is numbered. An item given twice within the window is downloaded once.
    ``on_progress`` is that of ``fetch_many``; its ``percentage`` is 0 until all items have been taken.

    If the disk or a quota is full (``ENOSPC``, ``EDQUOT``), the active downloads are stopped, and ``DiskFull`` is
    raised once all finished items have been yielded. The stopped items are not yielded. A single file that is larger
    than the free space is only an error of that item, and the others continue.

    Closing the iterator, or leaving it by an exception, stops the active downloads and saves their states; another call
    with the same items resumes them. Raises ``ValueError`` or ``TypeError`` for bad options at once, and for a bad item
    when it is reached.
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
    """``fetch_iter`` for an iterable or a :class:`Source`. Arguments are checked at once, not at the first result."""
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
    """The options that all items share. Raises ``TypeError`` or ``ValueError``."""
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
        """Set the function to call, from any thread, when there is another item after ``NOTHING_YET``."""
        ...


class _Pulled:
    """The items of an iterable, which is advanced by the thread that waits for results."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)

    def take(self) -> object:
        return next(self._items, NOTHING_MORE)

    def wake_with(self, wake: Callable[[], object]) -> None:
        return None


class _Names:
    """Tracks unfinished items that may get the same name: the first is fetched, and the others wait until it ends."""

    def __init__(self, *, renames: bool) -> None:
        self._renames = renames
        self._first: dict[str, int] = {}
        self._wanted: dict[int, tuple[str, Wanted]] = {}
        self._copies: dict[int, list[int]] = {}
        self._after: dict[int, deque[tuple[int, Wanted]]] = {}

    def enter(self, number: int, wanted: Wanted) -> bool:
        """Add an item and return whether it may be fetched now. Raises ``TargetExists`` if the user gave the same name
        to another unfinished item.
        """
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
        """Remove an item that has ended. Returns its duplicates, and the next item that waited for it, or None."""
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
    """One pass over a source: its unfinished items, and the results that have not been yielded yet."""

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
        self._items: dict[int, tuple[Any, Wanted]] = {}  # taken, but not ended
        self._ended: deque[Fetched] = deque()
        self._taken = 0
        self._exhausted = False

    def run_on(self, max_concurrent_downloads: int | None) -> Generator[Fetched]:
        """Fetch all items on the process's manager or, if a limit is given, on a new manager with that limit."""
        with contextlib.ExitStack() as stack:
            if max_concurrent_downloads is None:
                downloads = our_downloads()
            else:
                own = manager_like_ours(max_concurrent_downloads=max_concurrent_downloads)
                downloads = downloads_of(stack.enter_context(own))
            # Make the paths absolute once, not for each item.
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
        """Take items from the source until the window is full. Returns whether the source has nothing yet."""
        # Items kept for the end, because their host cannot be reached, have a separate limit.
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
