"""``fetch_many``: finds duplicate items, orders the results and collects the errors; the manager fetches the files."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from rangefetch.batch import Batch, Standing
from rangefetch.checks import check_count, check_function, check_path
from rangefetch.downloads import Downloads
from rangefetch.errors import DownloadError, LocalError, TargetExists
from rangefetch.importing import no_fork, ready_tempfile
from rangefetch.items import Item, Wanted, understand
from rangefetch.logs import log as _log
from rangefetch.manager import downloads_of
from rangefetch.masking import mask_url
from rangefetch.options import CommonOptions, DownloadOptions
from rangefetch.progress import DownloadProgress, DownloadResult
from rangefetch.shared import manager_like_ours, our_downloads

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

__all__ = ["OnResult", "fetch_many"]

OnResult = Callable[[int, DownloadResult | DownloadError], object]
"""Called as each item finishes, with its position (from 0) and its result or error."""


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
    """Download many URLs into a directory and return a list of results in the order of ``items``.

    Without a ``directory``, files go to the ``save_dir`` of the manager's defaults, which is the current directory
    unless you set another.

    An item is a URL, ``(url, name)``, ``(url, options)``, or a mapping with ``url`` and options. ``options`` apply to
    all items; ``filename`` is accepted only for a single item. Otherwise the server or the URL names the file. If two
    items end up with the same name, the later one fails with ``TargetExists`` before its bytes are fetched or, with
    ``auto_file_renaming``, is numbered. A URL given twice is downloaded once.

    With ``on_error="return"``, the list has a ``DownloadError`` in place of each missing result. With ``"raise"``, an
    ``ExceptionGroup`` of all errors is raised after everything else is done. If the disk or a quota is full
    (``ENOSPC``, ``EDQUOT``), the active downloads are stopped, and all unfinished items fail with ``DiskFull`` without
    further requests.

    ``on_progress`` is called with a ``DownloadProgress`` for the whole call, at most every 100 ms: its ``filename`` is
    "N of M files" (N have ended), its ``percentage`` is their share, and its bytes and speed are sums over ended and
    active items. An exception in it stops the call as Ctrl-C does, keeps downloaded data and propagates to the caller.
    ``on_result`` is called as each item finishes, with its position and its result or error; exceptions in it are
    logged. Both are called in the calling thread.

    With an ``executor`` (from ``concurrent.futures``), the items are divided among its workers, each with its own
    manager. ``on_progress`` is then not called, and ``on_result`` is called for all items of a worker when that worker
    is done. If a worker dies, its unfinished items become errors.

    Raises ``ValueError`` or ``TypeError`` for bad items and options, before any file or connection is opened.
    """
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error: {on_error!r} is neither 'raise' nor 'return'")
    if max_concurrent_downloads is not None:
        check_count(max_concurrent_downloads, "max_concurrent_downloads", 1, 1_000_000)
    check_function(on_progress, "on_progress")
    check_function(on_result, "on_result")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        raise TypeError(f"executor: expected an executor from concurrent.futures, not {type(executor).__name__}")
    merged: dict[str, Any] = {**options}
    if directory is not None:
        merged["save_dir"] = check_path(directory, "directory")
    common = DownloadOptions.of(merged).over(our_downloads().defaults.options)
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
    """Parse and check the items. Raises ``TypeError`` or ``ValueError`` naming the first bad one."""
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise TypeError(f"items: expected a list of URLs, or of items with URLs, not {type(items).__name__}")
    wanted = [understand(number, item, common) for number, item in enumerate(items)]
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
            downloads = our_downloads()
        else:
            downloads = downloads_of(
                stack.enter_context(manager_like_ours(max_concurrent_downloads=max_concurrent_downloads))
            )
        # Make the paths absolute once, not for each item.
        return _Bulk(downloads, wanted, common.absolute(), on_progress, on_result).run()


class _Outcomes:
    """The result or error of each item, passed to ``on_result`` as soon as it is known."""

    def __init__(self, wanted: Sequence[Wanted], on_result: OnResult | None, *, renames: bool) -> None:
        self.known: dict[int, DownloadResult | DownloadError] = {}
        self._on_result = on_result
        self._copies: dict[int, list[int]] = defaultdict(list)
        self.same, self.later, refused = _repeated(wanted, renames=renames)
        self._followers: dict[int, list[int]] = defaultdict(list)
        for number, first in self.same.items():
            self._copies[first].append(number)
        for number, first in self.later.items():
            self._followers[first].append(number)
        for number, error in refused.items():
            self.put(number, error)

    def put(self, number: int, outcome: DownloadResult | DownloadError) -> list[int]:
        """Record the outcome of an item and of its duplicates. Returns the items that waited for it because they may
        get the same name; they can be fetched now.
        """
        for each in (number, *self._copies.get(number, ())):
            self.known[each] = outcome
            if self._on_result is not None:
                try:
                    self._on_result(each, outcome)
                except Exception:
                    _log.exception("on_result failed")
        return self._followers.pop(number, [])

    def has(self, number: int) -> bool:
        """Whether an item must not be queued now: it has ended, is a duplicate, or waits for an earlier item."""
        return number in self.known or number in self.same or number in self.later

    def in_order(self) -> list[DownloadResult | DownloadError]:
        """All outcomes in the order of the items; every item must have ended."""
        return [self.known[number] for number in range(len(self.known))]


class _Bulk(Batch):
    """One call of ``fetch_many`` on one manager."""

    def __init__(
        self,
        downloads: Downloads,
        wanted: Sequence[Wanted],
        common: DownloadOptions,
        on_progress: Callable[[DownloadProgress], object] | None,
        on_result: OnResult | None,
    ) -> None:
        super().__init__(common, on_progress)
        self._downloads = downloads
        self._wanted = wanted
        self._outcomes = _Outcomes(wanted, on_result, renames=common.auto_file_renaming)

    def run(self) -> list[DownloadResult | DownloadError]:
        known = self._outcomes
        for number, each in enumerate(self._wanted):
            if not known.has(number):
                self.turns.add(number, each.host)
        with self.at_work_on(self._downloads):
            self.ask()
            while not self.is_idle:
                self.look()
                if self.stopped_by is not None:
                    self.break_off()
                    self._end_the_rest()
                    break
                self.ask()
        self.report()
        return known.in_order()

    def _end_the_rest(self) -> None:
        """Fail all unfinished items with ``DiskFull``."""
        for number, each in enumerate(self._wanted):
            if number not in self._outcomes.known:
                self._outcomes.put(number, self.not_tried(mask_url(each.url)))

    def wanted(self, number: int) -> Wanted:
        return self._wanted[number]

    def ended(self, number: int, outcome: DownloadResult | DownloadError) -> None:
        for following in self._outcomes.put(number, outcome):
            self.enter(following)

    def standing(self) -> Standing:
        done, count = len(self._outcomes.known), len(self._wanted)
        return Standing(done, count, is_over=done == count)


def _repeated(
    wanted: Sequence[Wanted], *, renames: bool
) -> tuple[dict[int, int], dict[int, int], dict[int, DownloadError]]:
    """Find items that repeat or collide. Returns three mappings, keyed by item number: duplicates, to the number of the
    first such item; items that may get the same name as an earlier item, to the number of that item; and, unless
    ``renames`` is set, items to which the user gave the name of an earlier item, to their error.

    The last part of a URL is only a guess at the name, since the server may give another. The first of such items is
    fetched before the others, so that it gets the name if they do turn out to share it.
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
    """Give each worker of the executor a share of the items. Only plain values are passed to and from workers."""
    ready_tempfile()
    with no_fork:
        import tempfile
        from concurrent.futures import BrokenExecutor, CancelledError, as_completed

    workers = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
    outcomes = _Outcomes(wanted, on_result, renames=bool(options.get("auto_file_renaming")))
    # Keep a host's files on one worker, so that limits per host still hold, and likewise items that may share a name.
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
        with contextlib.suppress(OSError):  # without this directory, a dead worker loses the outcomes of its share
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
                words = (
                    f"the worker that was fetching it has died ({why or type(why).__name__}); repeat the call to resume"
                )
                outcomes.put(number, told.get(place) or LocalError(words, url=mask_url(wanted[number].url)))
    return outcomes.in_order()


def _told_in(note: str) -> dict[int, DownloadResult | DownloadError]:
    """The outcomes that a dead worker had written to its file ``note``, by position in its share."""
    with no_fork:
        import pickle

    told: dict[int, DownloadResult | DownloadError] = {}
    # The last record may be incomplete.
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
    """Fetch one share, in a worker. Each outcome is also written to the file ``note``, in case the worker dies."""
    with no_fork:
        import pickle

    plain = [(url, own) if own else url for url, own in items]
    options = dict(options)
    directory = options.pop("save_dir", None)
    with contextlib.ExitStack() as stack:
        on_result: OnResult | None = None
        if note:
            with contextlib.suppress(OSError):
                file = stack.enter_context(Path(note).open("wb", buffering=0))

                def tell(place: int, outcome: DownloadResult | DownloadError) -> None:
                    file.write(pickle.dumps((place, outcome)))

                on_result = tell

        limits: dict[str, Any] = {"max_concurrent_downloads": max_concurrent_downloads, "on_error": "return"}
        outcomes: list[DownloadResult | DownloadError] = []
        outcomes += fetch_many(plain, directory, on_result=on_result, **limits, **options)
        return outcomes
