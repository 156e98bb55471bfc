"""Many files in one call: which items are the same, the order of results, and errors; the manager fetches them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from typing import Any, Literal, Unpack, overload

from rangefetch.disk.names import choose_filename, is_plain_filename
from rangefetch.errors import Cancelled, DownloadError, TargetExists
from rangefetch.logs import log as _log
from rangefetch.manager import DownloadManager, get_download_manager
from rangefetch.masking import mask_url
from rangefetch.net.sources import host_of
from rangefetch.options import (
    CommonOptions,
    DownloadOptions,
    check_count,
    check_function,
    check_text,
    check_url,
    is_metadata_url,
)
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus, SpeedMeter
from rangefetch.transfer.download import Download

__all__ = ["Item", "OnResult", "fetch_many"]

Item = str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]
"""A URL; a URL and options; or a mapping with ``url`` and options."""

OnResult = Callable[[int, DownloadResult | DownloadError], object]
"""Hears of an item at its end: its number, from 0, and what came of it."""

_AHEAD = 256  # items that the manager is asked for before earlier ones have ended
_TOGETHER = 32  # that are taken in one go
_PROGRESS_EVERY_S = 0.1
_AT_REST = frozenset({DownloadStatus.PAUSED, DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED})
# URLs and names that are in order without a closer look, which for 100,000 of them would take seconds.
_PLAIN_URL = re.compile(
    r"(https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?)/(?:[!-\"$->@-~]*/)?([A-Za-z0-9_][A-Za-z0-9_.+~-]{3,150}[A-Za-z0-9_])"
)


@dataclasses.dataclass(slots=True)
class _Wanted:
    """One item: what it asks for beyond the common options, and the name and host that its URL gives."""

    url: str
    own: Mapping[str, Any] | None
    name: str
    host: str


@overload
def fetch_many(
    items: Iterable[Item],
    directory: str | os.PathLike[str] = ".",
    *,
    max_concurrent_downloads: int | None = None,
    on_error: Literal["raise"] = "raise",
    executor: Executor | None = None,
    on_progress: Callable[[DownloadProgress], object] | None = None,
    on_result: OnResult | None = None,
    **options: Unpack[CommonOptions],
) -> list[DownloadResult]: ...
@overload
def fetch_many(
    items: Iterable[Item],
    directory: str | os.PathLike[str] = ".",
    *,
    max_concurrent_downloads: int | None = None,
    on_error: Literal["return"],
    executor: Executor | None = None,
    on_progress: Callable[[DownloadProgress], object] | None = None,
    on_result: OnResult | None = None,
    **options: Unpack[CommonOptions],
) -> list[DownloadResult | DownloadError]: ...
def fetch_many(
    items: Iterable[Item],
    directory: str | os.PathLike[str] = ".",
    *,
    max_concurrent_downloads: int | None = None,
    on_error: str = "raise",
    executor: Executor | None = None,
    on_progress: Callable[[DownloadProgress], object] | None = None,
    on_result: OnResult | None = None,
    **options: Unpack[CommonOptions],
) -> Any:
    """Download many URLs into a directory; returns a list in the order of ``items``.

    An item is a URL, ``(url, options)``, or a mapping with ``url`` and options; ``options`` apply to all items. Files
    are named by the server or the URL. If two items would get the same name, the later one fails (``TargetExists``);
    a URL given twice is downloaded once. With ``on_error="return"``, a ``DownloadError`` takes the place of a result;
    with ``"raise"``, an ``ExceptionGroup`` of all errors is raised after everything else is done.

    ``on_progress`` gets a ``DownloadProgress`` of the whole call, at most every 100 ms: its ``filename`` is "N of M
    files", its ``percentage`` their share, and bytes and speed are the sums over finished and active items.
    ``on_result`` gets the position of each item and its result or error as it finishes; exceptions in it are logged.
    Both are called in the calling thread. With an ``executor`` (``concurrent.futures``) the items are divided among its
    workers, each with its own manager. Then ``on_progress`` is not called, and ``on_result`` is called for all items
    of a worker when that worker is done. An exception in ``on_progress`` stops the call as Ctrl-C does, keeps what is
    there and reaches the caller.

    Raises ``ValueError`` or ``TypeError`` for bad items and options, before any file or connection is opened.
    """
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error: {on_error!r} is neither 'raise' nor 'return'")
    if max_concurrent_downloads is not None:
        check_count(max_concurrent_downloads, "max_concurrent_downloads", 1, 1_000_000)
    check_function(on_progress, "on_progress")
    check_function(on_result, "on_result")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor: expected one of concurrent.futures, not {type(executor).__name__}")
    merged: dict[str, Any] = {**options, "save_dir": check_text(directory, "directory")}
    common = DownloadOptions.of(merged)
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise TypeError(f"items: expected several, of which each is a URL or has one, not {type(items).__name__}")
    wanted = [_understand(item) for item in items]
    for each in wanted:
        if each.own:
            DownloadOptions.of(common, **each.own)
    if executor is not None:
        outcomes = _divide(wanted, merged, max_concurrent_downloads, executor, on_result)
    else:
        outcomes = _fetch_all(wanted, common, max_concurrent_downloads, on_progress, on_result)
    errors = [outcome for outcome in outcomes if isinstance(outcome, DownloadError)]
    if errors and on_error == "raise":
        raise ExceptionGroup(f"{len(errors)} of {len(outcomes)} downloads failed", errors)
    return outcomes


def _understand(item: Item) -> _Wanted:
    own: Mapping[str, Any] | None = None
    if isinstance(item, str):
        url = item
    elif isinstance(item, Mapping):
        own = {name: value for name, value in item.items() if name != "url"}
        if "url" not in item:
            raise ValueError(f"items: {item!r} has no 'url'")
        url = item["url"]
    elif isinstance(item, tuple) and len(item) == 2:
        url, own = item
        if not isinstance(own, Mapping):
            raise TypeError(f"items: the options of an item are a mapping, not {type(own).__name__}")
    else:
        raise TypeError(f"items: expected a URL, (url, options) or a mapping, not {type(item).__name__}")
    if own is not None and not all(isinstance(name, str) for name in own):
        raise TypeError("items: the names of options are strings")
    plain = _PLAIN_URL.fullmatch(url) if isinstance(url, str) else None
    if plain is not None and is_plain_filename(plain[2]) and not is_metadata_url(url):
        return _Wanted(url, own or None, plain[2], plain[1])
    check_url(url)
    # What a torrent brings is named by itself.
    name = url if is_metadata_url(url) else choose_filename(url)
    return _Wanted(url, own or None, name, host_of(url))


def _fetch_all(
    wanted: Sequence[_Wanted],
    common: DownloadOptions,
    max_concurrent_downloads: int | None,
    on_progress: Callable[[DownloadProgress], object] | None,
    on_result: OnResult | None,
) -> list[DownloadResult | DownloadError]:
    with contextlib.ExitStack() as stack:
        if max_concurrent_downloads is None:
            manager = get_download_manager()
        else:
            manager = stack.enter_context(DownloadManager(max_concurrent_downloads=max_concurrent_downloads))
        return _Bulk(manager, wanted, common.over(manager.defaults), on_progress, on_result).run()


class _Outcomes:
    """What came of each item, told as soon as it is known."""

    def __init__(self, wanted: Sequence[_Wanted], on_result: OnResult | None) -> None:
        self.known: dict[int, DownloadResult | DownloadError] = {}
        self._on_result = on_result
        self._copies: dict[int, list[int]] = defaultdict(list)
        self.same, refused = _repeated(wanted)
        """Items that are the same as an earlier one, by its number."""
        for number, first in self.same.items():
            self._copies[first].append(number)
        for number, error in refused.items():
            self.put(number, error)

    def put(self, number: int, outcome: DownloadResult | DownloadError) -> None:
        """An item has ended, and those that are the same with it."""
        for each in (number, *self._copies.get(number, ())):
            self.known[each] = outcome
            if self._on_result is not None:
                try:
                    self._on_result(each, outcome)
                except Exception:
                    _log.exception("on_result failed")

    def has(self, number: int) -> bool:
        """Whether nothing is to be done for an item: its outcome is known, or another one's will be its own."""
        return number in self.known or number in self.same

    def in_order(self) -> list[DownloadResult | DownloadError]:
        """All of them; none is missing."""
        return [self.known[number] for number in range(len(self.known))]


class _Queue:
    """Items that are still to be asked for, by host; the hosts take turns."""

    def __init__(self, wanted: Sequence[_Wanted], numbers: Iterable[int]) -> None:
        by_host: dict[str, deque[int]] = defaultdict(deque)
        for number in numbers:
            by_host[wanted[number].host].append(number)
        self._hosts = deque(by_host.values())

    def __bool__(self) -> bool:
        return bool(self._hosts)

    def take(self) -> int:
        """The next of them."""
        numbers = self._hosts[0]
        number = numbers.popleft()
        if numbers:
            self._hosts.rotate(-1)
        else:
            self._hosts.popleft()
        return number


class _Bulk:
    """One call of ``fetch_many`` on one manager."""

    def __init__(
        self,
        manager: DownloadManager,
        wanted: Sequence[_Wanted],
        common: DownloadOptions,
        on_progress: Callable[[DownloadProgress], object] | None,
        on_result: OnResult | None,
    ) -> None:
        self._manager = manager
        self._wanted = wanted
        self._common = common
        self._on_progress = on_progress
        self._outcomes = _Outcomes(wanted, on_result)
        self._starts = 0  # of the manager: another number, and it was stopped
        self._asked: dict[str, tuple[int, Download]] = {}  # that have not ended, by gid
        self._most_asked = _AHEAD
        self._moved: deque[Download] = deque()
        self._wake = threading.Event()
        self._bytes = 0  # of items that have ended
        self._meter = SpeedMeter()
        self._next_report_s = 0.0

    def run(self) -> list[DownloadResult | DownloadError]:
        self._manager.start()
        self._starts = self._manager.starts
        self._most_asked = max(_AHEAD, 4 * self._manager.most_active)
        known = self._outcomes
        queue = _Queue(self._wanted, (number for number in range(len(self._wanted)) if not known.has(number)))
        try:
            self._ask(queue)
            while self._asked:
                self._look()
                self._ask(queue)
        except BaseException:
            self._manager.let_go(download for _, download in self._asked.values())
            # What was done by then is told.
            for number, download in self._asked.values():
                if download.result is not None:
                    self._outcomes.put(number, download.result)
            raise
        self._report()
        return self._outcomes.in_order()

    def _ask(self, queue: _Queue) -> None:
        """Have the manager fetch the next items: as many as keep it busy, and no more, so that others have their turn
        as well."""
        most = self._most_asked
        if queue:
            # What waits for a host that does not answer keeps nobody busy.
            most += sum(download.was_put_off for _, download in self._asked.values())
        while queue and len(self._asked) < most:
            number = queue.take()
            each = self._wanted[number]
            options = DownloadOptions.of(self._common, **each.own) if each.own else self._common
            download = self._manager.submit(each.url, options, starts=self._starts, watcher=self._has_moved)
            self._asked[download.gid] = (number, download)
            if download.status in _AT_REST:
                # It was told before it was known.
                self._moved.append(download)

    def _has_moved(self, download: Download) -> None:
        if download.status in _AT_REST:
            self._moved.append(download)
            if len(self._moved) >= _TOGETHER or len(self._asked) <= _TOGETHER:
                self._wake.set()

    def _look(self) -> None:
        """Wait a little, see which downloads have ended, and report."""
        if not self._moved:
            self._wake.wait(_PROGRESS_EVERY_S)
        self._wake.clear()
        self._collect()
        # A download that was paused hears nothing of a stop.
        if self._asked:
            self._must_go_on()
        if time.monotonic() >= self._next_report_s:
            self._report()

    def _collect(self) -> None:
        """Take what has ended."""
        while self._moved:
            download = self._moved.popleft()
            number, _ = self._asked.get(download.gid, (None, None))
            if number is not None:
                self._settle(number, download)

    def _must_go_on(self) -> None:
        """Raises ``Cancelled`` if the manager was stopped, even if it was started again."""
        if not self._manager.is_started or self._manager.starts != self._starts:
            raise Cancelled("the manager was stopped")

    def _settle(self, number: int, download: Download) -> None:
        """A download is at rest, or has ended."""
        outcome: DownloadResult | DownloadError | None = download.result
        if outcome is None:
            try:
                outcome = self._manager.wait_for(download, 0)
            except DownloadError as error:
                if isinstance(error, Cancelled):
                    self._must_go_on()
                outcome = error
            except TimeoutError:
                return
        del self._asked[download.gid]
        self._bytes += download.progress().downloaded
        self._manager.forget(download)
        self._outcomes.put(number, outcome)

    def _report(self) -> None:
        if self._on_progress is None:
            return
        now_s = time.monotonic()
        self._next_report_s = now_s + _PROGRESS_EVERY_S
        at_work = [
            download.progress() for _, download in self._asked.values() if download.status is DownloadStatus.ACTIVE
        ]
        count, done = len(self._wanted), len(self._outcomes.known)
        over = done == count
        downloaded = self._bytes + sum(each.downloaded for each in at_work)
        self._meter.sample(now_s, downloaded)
        progress = DownloadProgress(
            gid="",
            downloaded=downloaded,
            total=0,
            speed=0.0 if over else self._meter.speed(),
            percentage=100.0 * done / count if count else 100.0,
            eta=None,
            filename=f"{done} of {count} files",
            status=DownloadStatus.COMPLETE if over else DownloadStatus.ACTIVE,
            connections=sum(each.connections for each in at_work),
        )
        self._on_progress(progress)


def _repeated(wanted: Sequence[_Wanted]) -> tuple[dict[int, int], dict[int, DownloadError]]:
    """Items that are the same as an earlier one, by its number; and those that would get the name of another one."""
    same: dict[int, int] = {}
    refused: dict[int, DownloadError] = {}
    names: dict[str, int] = {}
    for number, each in enumerate(wanted):
        name = each.name
        if each.own:
            name = str(each.own.get("save_dir", "")) + "/" + str(each.own.get("filename") or name)
        first = names.setdefault(name, number)
        if first == number:
            continue
        if wanted[first] == each:
            same[number] = first
        else:
            refused[number] = TargetExists(
                f"{each.name}: another item of the same call has that name", url=mask_url(each.url)
            )
    return same, refused


# -- workers ------------------------------------------------------------------------------------------------------


def _divide(
    wanted: Sequence[_Wanted],
    options: dict[str, Any],
    max_concurrent_downloads: int | None,
    executor: Executor,
    on_result: OnResult | None,
) -> list[DownloadResult | DownloadError]:
    """Give each worker of the executor a share; only plain values cross."""
    workers = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
    outcomes = _Outcomes(wanted, on_result)
    # A host's files stay together, so that what is polite to it stays so.
    order = sorted(
        (number for number in range(len(wanted)) if not outcomes.has(number)),
        key=lambda number: wanted[number].host,
    )
    size = max(1, -(-len(order) // workers))
    shares = [order[start : start + size] for start in range(0, len(order), size)]
    futures = {
        executor.submit(
            _fetch_share,
            [(wanted[number].url, dict(wanted[number].own or {})) for number in share],
            options,
            max_concurrent_downloads,
        ): share
        for share in shares
    }
    for future in as_completed(futures):
        for number, outcome in zip(futures[future], future.result(), strict=True):
            outcomes.put(number, outcome)
    return outcomes.in_order()


def _fetch_share(
    items: list[tuple[str, dict[str, Any]]], options: dict[str, Any], max_concurrent_downloads: int | None
) -> list[DownloadResult | DownloadError]:
    """A worker's part of ``fetch_many``."""
    plain = [(url, own) if own else url for url, own in items]
    options = dict(options)
    directory = options.pop("save_dir")
    return fetch_many(plain, directory, max_concurrent_downloads=max_concurrent_downloads, on_error="return", **options)
