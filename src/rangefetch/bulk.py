"""Many files in one call: which items are the same, the order of results, and errors; the manager fetches them."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from rangefetch.checks import check_count, check_function, check_path
from rangefetch.errors import Cancelled, DownloadError, LocalError, TargetExists
from rangefetch.items import Item, Wanted, understand
from rangefetch.logs import log as _log
from rangefetch.manager import DownloadManager
from rangefetch.masking import mask_url
from rangefetch.options import CommonOptions, DownloadOptions
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus, SpeedMeter
from rangefetch.shared import get_download_manager, manager_like_ours
from rangefetch.transfer.download import Download

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

__all__ = ["Item", "OnResult", "fetch_many"]

OnResult = Callable[[int, DownloadResult | DownloadError], object]
"""Hears of an item at its end: its number, from 0, and what came of it."""

_AHEAD = 256  # items that the manager is asked for before earlier ones have ended
_TOGETHER = 32  # that are taken in one go
_PROGRESS_EVERY_S = 0.1
_AT_REST = frozenset({DownloadStatus.PAUSED, DownloadStatus.COMPLETE, DownloadStatus.ERROR, DownloadStatus.REMOVED})


@overload
def fetch_many(
    items: Iterable[Item],
    directory: str | os.PathLike[str] | None = None,
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
    directory: str | os.PathLike[str] | None = None,
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
    directory: str | os.PathLike[str] | None = None,
    *,
    max_concurrent_downloads: int | None = None,
    on_error: str = "raise",
    executor: Executor | None = None,
    on_progress: Callable[[DownloadProgress], object] | None = None,
    on_result: OnResult | None = None,
    **options: Unpack[CommonOptions],
) -> Any:
    """Download many URLs into a directory; returns a list in the order of ``items``. Without a ``directory`` that is
    the ``save_dir`` of the manager's defaults: the current directory, unless you gave another.

    An item is a URL, ``(url, name)``, ``(url, options)``, or a mapping with ``url`` and options; ``options`` apply to
    all items, but ``filename`` only to a single one. Files are named by the server or the URL. If two items end up with
    one name, the later one fails (``TargetExists``) before its bytes are fetched, or is numbered
    (``auto_file_renaming``); a URL given twice is downloaded once. With ``on_error="return"``, a ``DownloadError``
    takes the place of a result; with ``"raise"``, an ``ExceptionGroup`` of all errors is raised after everything else
    is done.

    ``on_progress`` gets a ``DownloadProgress`` of the whole call, at most every 100 ms: its ``filename`` is "N of M
    files", its ``percentage`` their share, and bytes and speed are the sums over finished and active items.
    ``on_result`` gets the position of each item and its result or error as it finishes; exceptions in it are logged.
    Both are called in the calling thread. With an ``executor`` (``concurrent.futures``) the items are divided among its
    workers, each with its own manager. Then ``on_progress`` is not called, and ``on_result`` is called for all items
    of a worker when that worker is done; of one that is lost, items that had not ended are errors. An exception in
    ``on_progress`` stops the call as Ctrl-C does, keeps what is there and reaches the caller.

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
    merged: dict[str, Any] = {**options}
    if directory is not None:
        merged["save_dir"] = check_path(directory, "directory")
    common = DownloadOptions.of(merged).over(get_download_manager().defaults)
    wanted = _read(items, common)
    if executor is not None:
        outcomes = _divide(wanted, common.given, max_concurrent_downloads, executor, on_result)
    else:
        outcomes = _fetch_all(wanted, common, max_concurrent_downloads, on_progress, on_result)
    errors = [outcome for outcome in outcomes if isinstance(outcome, DownloadError)]
    if errors and on_error == "raise":
        raise ExceptionGroup(f"{len(errors)} of {len(outcomes)} downloads failed", errors)
    return outcomes


def _read(items: Iterable[Item], common: DownloadOptions) -> list[Wanted]:
    """The items, understood and checked. Raises ``TypeError`` or ``ValueError`` that names the first wrong one."""
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise TypeError(f"items: expected a list, of which each is a URL or has one, not {type(items).__name__}")
    wanted: list[Wanted] = []
    for number, item in enumerate(items):
        try:
            each = understand(item, str(common.save_dir))
            if each.own:
                DownloadOptions.of(common, **each.own)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"items[{number}]: {error}") from None
        wanted.append(each)
    if len(wanted) > 1 and common.filename:
        raise ValueError(
            f"filename: {common.filename!r} is one name for {len(wanted)} files; give each its own, as (url, name)"
        )
    return wanted


def _fetch_all(
    wanted: Sequence[Wanted],
    common: DownloadOptions,
    max_concurrent_downloads: int | None,
    on_progress: Callable[[DownloadProgress], object] | None,
    on_result: OnResult | None,
) -> list[DownloadResult | DownloadError]:
    with contextlib.ExitStack() as stack:
        if max_concurrent_downloads is None:
            manager = get_download_manager()
        else:
            manager = stack.enter_context(manager_like_ours(max_concurrent_downloads=max_concurrent_downloads))
        # Made absolute once, and not for each of them.
        return _Bulk(manager, wanted, common.absolute(), on_progress, on_result).run()


class _Outcomes:
    """What came of each item, told as soon as it is known."""

    def __init__(self, wanted: Sequence[Wanted], on_result: OnResult | None, *, renames: bool) -> None:
        self.known: dict[int, DownloadResult | DownloadError] = {}
        self._on_result = on_result
        self._copies: dict[int, list[int]] = defaultdict(list)
        self.same, self.later, refused = _repeated(wanted, renames=renames)
        self.free: list[int] = []
        """Items whose turn it is, since the earlier one whose name they may get has ended."""
        self._followers: dict[int, list[int]] = defaultdict(list)
        for number, first in self.same.items():
            self._copies[first].append(number)
        for number, first in self.later.items():
            self._followers[first].append(number)
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
        self.free += self._followers.pop(number, ())

    def has(self, number: int) -> bool:
        """Whether nothing is to be done for an item yet: it has ended, is the same as another one, or goes after it."""
        return number in self.known or number in self.same or number in self.later

    def in_order(self) -> list[DownloadResult | DownloadError]:
        """All of them; none is missing."""
        return [self.known[number] for number in range(len(self.known))]


class _Queue:
    """Items that are still to be asked for, by host; the hosts take turns."""

    def __init__(self, wanted: Sequence[Wanted], numbers: Iterable[int]) -> None:
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
        wanted: Sequence[Wanted],
        common: DownloadOptions,
        on_progress: Callable[[DownloadProgress], object] | None,
        on_result: OnResult | None,
    ) -> None:
        self._manager = manager
        self._wanted = wanted
        self._common = common
        self._on_progress = on_progress
        self._outcomes = _Outcomes(wanted, on_result, renames=common.auto_file_renaming)
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
            most += self._manager.passed_over(self._asked)
        free = self._outcomes.free
        while (free or queue) and len(self._asked) < most:
            room = min(most - len(self._asked), _TOGETHER)
            numbers: list[int] = []
            while (free or queue) and len(numbers) < room:
                numbers.append(free.pop() if free else queue.take())
            items = [(self._wanted[number].url, self._options_of(self._wanted[number])) for number in numbers]
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

    def _look(self) -> None:
        """Wait a little, see which downloads have ended, and report."""
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
        over = []
        while self._moved:
            download = self._moved.popleft()
            number, _ = self._asked.get(download.gid, (None, None))
            if number is not None and self._settle(number, download):
                over.append(download)
        self._manager.forget(*over)

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
        self._outcomes.put(number, outcome)
        return True

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


def _repeated(
    wanted: Sequence[Wanted], *, renames: bool
) -> tuple[dict[int, int], dict[int, int], dict[int, DownloadError]]:
    """Items that are the same as an earlier one, by its number; those that may get the name of an earlier one, by its
    number, too; and those to which the user has given the name of another one, unless that ``renames`` them.

    What a URL ends in is a guess, and the server may say otherwise. The first goes before the others, so that the name
    is its own where all have it.
    """
    same: dict[int, int] = {}
    later: dict[int, int] = {}
    refused: dict[int, DownloadError] = {}
    names: dict[str, int] = {}
    others: dict[tuple[str, str], int] = {}
    for number, each in enumerate(wanted):
        name, own = each.name, each.own or {}
        if own:
            name = str(own.get("save_dir", "")) + "/" + str(own.get("filename") or name)
        first = names.setdefault(name, number)
        if first == number:
            continue
        if wanted[first] != each:
            first = others.setdefault((name, each.url), number)
        if first != number and wanted[first] == each:
            same[number] = first
        elif own.get("filename") and (wanted[names[name]].own or {}).get("filename") and not renames:
            refused[number] = TargetExists(
                f"{own['filename']}: another item of the same call has that name", url=mask_url(each.url)
            )
        else:
            later[number] = names[name]
    return same, later, refused


# -- workers ------------------------------------------------------------------------------------------------------


def _divide(
    wanted: Sequence[Wanted],
    options: dict[str, Any],
    max_concurrent_downloads: int | None,
    executor: Executor,
    on_result: OnResult | None,
) -> list[DownloadResult | DownloadError]:
    """Give each worker of the executor a share; only plain values cross."""
    import tempfile
    from concurrent.futures import BrokenExecutor, CancelledError, as_completed

    workers = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
    outcomes = _Outcomes(wanted, on_result, renames=bool(options.get("auto_file_renaming")))
    # A host's files stay together, so that what is polite to it stays so, and so do those that may get the same name.
    alike: dict[int, list[int]] = defaultdict(list)
    for number in range(len(wanted)):
        if number not in outcomes.same and number not in outcomes.known:
            alike[outcomes.later.get(number, number)].append(number)
    size = max(1, -(-sum(map(len, alike.values())) // workers))
    shares: list[list[int]] = []
    for first in sorted(alike, key=lambda number: wanted[number].host):
        if not shares or len(shares[-1]) >= size:
            shares.append([])
        shares[-1] += alike[first]
    with contextlib.ExitStack() as stack:
        notes: dict[int, str] = {}
        with contextlib.suppress(OSError):  # without a directory for them, a lost worker costs its whole share
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="rangefetch-"))
            notes = {share[0]: str(Path(directory, str(share[0]))) for share in shares}
        futures: dict[Future[Any], list[int]] = {}
        lost: list[tuple[list[int], BaseException]] = []
        for share in shares:
            items = [(wanted[number].url, dict(wanted[number].own or {})) for number in share]
            note = notes.get(share[0], "")
            try:
                future = executor.submit(_fetch_share, items, options, max_concurrent_downloads, note)
                futures[future] = share
            except BrokenExecutor as error:
                lost.append((share, error))
        for future in as_completed(futures):
            share = futures[future]
            try:
                told = dict(enumerate(future.result()))
            except (BrokenExecutor, CancelledError) as error:
                lost.append((share, error))
            else:
                for place, outcome in told.items():
                    outcomes.put(share[place], outcome)
        for share, why in lost:
            told = _told_in(notes.get(share[0], ""))
            for place, number in enumerate(share):
                words = f"the worker that had it has ended ({why or type(why).__name__}); the same call resumes it"
                outcomes.put(number, told.get(place) or LocalError(words, url=mask_url(wanted[number].url)))
    return outcomes.in_order()


def _told_in(note: str) -> dict[int, DownloadResult | DownloadError]:
    """What a worker that was lost had noted of its share, by place."""
    import pickle

    told: dict[int, DownloadResult | DownloadError] = {}
    # What it was writing when it ended is cut off.
    with contextlib.suppress(OSError, EOFError, pickle.UnpicklingError), Path(note).open("rb") as file:
        while True:
            place, outcome = pickle.load(file)
            told[place] = outcome
    return told


def _fetch_share(
    items: list[tuple[str, dict[str, Any]]],
    options: dict[str, Any],
    max_concurrent_downloads: int | None,
    note: str,
) -> list[DownloadResult | DownloadError]:
    """A worker's part of ``fetch_many``. What has ended goes into a file, too: the worker may not live to tell."""
    import pickle

    plain = [(url, own) if own else url for url, own in items]
    options = dict(options)
    directory = options.pop("save_dir", None)
    with contextlib.ExitStack() as stack:
        tell: OnResult | None = None
        if note:
            with contextlib.suppress(OSError):
                file = stack.enter_context(Path(note).open("wb", buffering=0))

                def tell(place: int, outcome: DownloadResult | DownloadError) -> None:
                    file.write(pickle.dumps((place, outcome)))

        limits: dict[str, Any] = {"max_concurrent_downloads": max_concurrent_downloads, "on_error": "return"}
        outcomes: list[DownloadResult | DownloadError] = []
        outcomes += fetch_many(plain, directory, on_result=tell, **limits, **options)
        return outcomes
