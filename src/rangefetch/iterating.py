"""Any number of files, whose results are told as they come: ``fetch_iter``.

What it holds is bounded: items are taken from wherever they come only while less than a window of them is under way,
and the manager is asked for no more of those than keep it busy. ``fetch_many`` is the form that has all items, and
returns all results.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, Unpack, runtime_checkable

from rangefetch.checks import check_count, check_function, check_path
from rangefetch.errors import Cancelled, DownloadError, TargetExists
from rangefetch.items import Item, Wanted, understand
from rangefetch.manager import DownloadManager
from rangefetch.masking import mask_url
from rangefetch.options import CommonOptions, DownloadOptions
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus, SpeedMeter
from rangefetch.shared import get_download_manager, manager_like_ours
from rangefetch.transfer.download import Download

__all__ = ["NOTHING_MORE", "NOTHING_YET", "WINDOW", "Fetched", "Flow", "Source", "fetch_iter"]

WINDOW = 2048
"""Items that are taken before the result of the first of them was."""
_AHEAD = 256  # that the manager is asked for before earlier ones have ended
_TOGETHER = 32  # that are asked for in one go
_PROGRESS_EVERY_S = 0.1
_AT_REST = frozenset({DownloadStatus.PAUSED, DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED})

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


class _Pool:
    """Items that are still to be asked for, by host; the hosts take turns."""

    def __init__(self) -> None:
        self._by_host: dict[str, deque[int]] = {}
        self._turns: deque[str] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, number: int, host: str) -> None:
        numbers = self._by_host.get(host)
        if numbers is None:
            numbers = self._by_host[host] = deque()
            self._turns.append(host)
        numbers.append(number)
        self._count += 1

    def take(self) -> int:
        """The next of them."""
        host = self._turns.popleft()
        numbers = self._by_host[host]
        number = numbers.popleft()
        if numbers:
            self._turns.append(host)
        else:
            del self._by_host[host]
        self._count -= 1
        return number


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


class Flow:
    """One run over a source: what was taken of it, what is asked for, and what has ended."""

    def __init__(
        self,
        source: Source,
        common: DownloadOptions,
        window: int,
        on_progress: Callable[[DownloadProgress], object] | None,
    ) -> None:
        self._source = source
        self._common = common
        self._window = window
        self._on_progress = on_progress
        self._names = _Names(renames=common.auto_file_renaming)
        self._pool = _Pool()
        self._items: dict[int, tuple[Any, Wanted]] = {}  # taken, and not ended
        self._asked: dict[str, tuple[int, Download]] = {}  # by gid
        self._ended: deque[Fetched] = deque()
        self._moved: deque[Download] = deque()
        self._wake = threading.Event()
        self._taken = 0
        self._exhausted = False
        self._bytes = 0
        self._meter = SpeedMeter()
        self._next_report_s = 0.0
        self._manager: DownloadManager
        self._starts = 0
        self._most_asked = _AHEAD

    def run_on(self, max_concurrent_downloads: int | None) -> Generator[Fetched]:
        """Fetch all on the process's manager, or on one of its own with this limit."""
        with contextlib.ExitStack() as stack:
            if max_concurrent_downloads is None:
                self._manager = get_download_manager()
            else:
                own = manager_like_ours(max_concurrent_downloads=max_concurrent_downloads)
                self._manager = stack.enter_context(own)
            # Made absolute once, and not for each of them.
            self._common = self._common.over(self._manager.defaults).absolute()
            yield from self._run()

    def _run(self) -> Iterator[Fetched]:
        manager = self._manager
        manager.start()
        self._starts = manager.starts
        self._most_asked = max(_AHEAD, 4 * manager.most_active)
        self._source.wake_with(self._wake.set)
        try:
            while True:
                waits = self._take()
                self._ask()
                while self._ended:
                    yield self._ended.popleft()
                if not self._items and self._exhausted:
                    break
                self._look(waits)
        except BaseException:
            manager.let_go(download for _, download in self._asked.values())
            raise
        self._report()

    def _take(self) -> bool:
        """Take what is wanted from the source; whether that has nothing yet."""
        while not self._exhausted and len(self._items) + len(self._ended) < self._window:
            item = self._source.take()
            if item is NOTHING_YET:
                return True
            if item is NOTHING_MORE:
                self._exhausted = True
                break
            self._enter(item)
            # Those that are known begin before more is read.
            if len(self._pool) >= _TOGETHER and len(self._asked) < self._most_asked:
                self._ask()
        return False

    def _enter(self, item: Any) -> None:
        number = self._taken
        try:
            wanted = understand(item, str(self._common.save_dir))
            if wanted.own:
                DownloadOptions.of(self._common, **wanted.own)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"items[{number}]: {error}") from None
        self._taken += 1
        try:
            is_free = self._names.enter(number, wanted)
        except TargetExists as error:
            self._ended.append(Fetched(number, item, error))
            return
        self._items[number] = (item, wanted)
        if is_free:
            self._pool.add(number, wanted.host)

    def _ask(self) -> None:
        """Have the manager fetch as many as keep it busy, and no more, so that others have their turn as well."""
        most = self._most_asked
        if self._pool:
            # What waits for a host that does not answer keeps nobody busy.
            most += self._manager.passed_over(self._asked)
        while self._pool and len(self._asked) < most:
            numbers = [self._pool.take() for _ in range(min(len(self._pool), most - len(self._asked), _TOGETHER))]
            wanted = [self._items[number][1] for number in numbers]
            items = [(each.url, self._options_of(each)) for each in wanted]
            downloads = self._manager.submit_all(items, self._starts, self._has_moved)
            for number, download in zip(numbers, downloads, strict=True):
                self._asked[download.gid] = (number, download)
                if download.status in _AT_REST:
                    # It was told before it was known.
                    self._has_moved(download)

    def _options_of(self, wanted: Wanted) -> DownloadOptions:
        return DownloadOptions.of(self._common, **wanted.own) if wanted.own else self._common

    def _has_moved(self, download: Download) -> None:
        if download.status in _AT_REST:
            self._moved.append(download)
            if (len(self._moved) >= _TOGETHER or len(self._asked) <= _TOGETHER) and not self._wake.is_set():
                self._wake.set()

    def _look(self, waits: bool) -> None:
        """Wait a little, see which downloads have ended, and report. ``waits``: for the source, too."""
        if self._asked or waits:
            self._wake.wait(_PROGRESS_EVERY_S)
        self._wake.clear()
        over = []
        while self._moved:
            download = self._moved.popleft()
            number, _ = self._asked.get(download.gid, (None, None))
            if number is not None and self._settle(number, download):
                over.append(download)
        self._manager.forget(*over)
        if self._asked:
            # A download that was paused hears nothing of a stop.
            self._must_go_on()
        if time.monotonic() >= self._next_report_s:
            self._report()

    def _must_go_on(self) -> None:
        """Raises ``Cancelled`` if the manager was stopped, even if it was started again."""
        if not self._manager.is_started or self._manager.starts != self._starts:
            raise Cancelled("the manager was stopped")

    def _settle(self, number: int, download: Download) -> bool:
        """A download is at rest, or has ended. Whether nothing more comes of it."""
        outcome: DownloadResult | DownloadError | None = download.result
        if outcome is None:
            try:
                outcome = self._manager.wait_for(download, 0)
            except DownloadError as error:
                if isinstance(error, Cancelled):
                    self._must_go_on()
                outcome = error
            except TimeoutError:
                return False
        del self._asked[download.gid]
        self._bytes += outcome.size if isinstance(outcome, DownloadResult) else download.progress().downloaded
        copies, following = self._names.leave(number)
        for each in (number, *copies):
            item, _ = self._items.pop(each)
            self._ended.append(Fetched(each, item, outcome))
        if following is not None:
            self._pool.add(following, self._items[following][1].host)
        return True

    def _report(self) -> None:
        if self._on_progress is None:
            return
        now_s = time.monotonic()
        self._next_report_s = now_s + _PROGRESS_EVERY_S
        at_work = [
            download.progress() for _, download in self._asked.values() if download.status is DownloadStatus.ACTIVE
        ]
        done = self._taken - len(self._items)
        over = self._exhausted and not self._items
        downloaded = self._bytes + sum(each.downloaded for each in at_work)
        self._meter.sample(now_s, downloaded)
        whole = f"{done} of {self._taken} files" if self._exhausted else f"{done} files"
        progress = DownloadProgress(
            gid="",
            downloaded=downloaded,
            total=0,
            speed=0.0 if over else self._meter.speed(),
            percentage=100.0 * done / max(self._taken, 1) if self._exhausted else 0.0,
            eta=None,
            filename=whole,
            status=DownloadStatus.COMPLETE if over else DownloadStatus.ACTIVE,
            connections=sum(each.connections for each in at_work),
        )
        self._on_progress(progress)
