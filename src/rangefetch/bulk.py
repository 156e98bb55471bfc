"""Many files in one call: which items are the same, the order of results, and errors; the manager fetches them."""

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
"""Called with an item at its end: its number, from 0, and what came of it."""


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
    is done. Where nothing more can be written (``ENOSPC``, ``EDQUOT``), what is under way is stopped, and what has not
    ended fails as ``DiskFull`` without being requested.

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
    """The items, understood and checked. Raises ``TypeError`` or ``ValueError`` that names the first wrong one."""
    if isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise TypeError(f"items: expected a list of URLs, or of items that have one, not {type(items).__name__}")
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
        # Made absolute once, and not for each of them.
        return _Bulk(downloads, wanted, common.absolute(), on_progress, on_result).run()


class _Outcomes:
    """What came of each item, told as soon as it is known."""

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
        """An item has ended, and those that are the same with it. Returns those whose turn it is now: they may get its
        name.
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
        """Whether nothing is to be done for an item yet: it has ended, is the same as another one, or goes after it."""
        return number in self.known or number in self.same or number in self.later

    def in_order(self) -> list[DownloadResult | DownloadError]:
        """All of them; none is missing."""
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
        """Nothing can be written: those that have not ended were not tried, or not to their end."""
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
    ready_tempfile()
    with no_fork:
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
                words = (
                    f"the worker that was fetching it has ended ({why or type(why).__name__}); the same call resumes it"
                )
                outcomes.put(number, told.get(place) or LocalError(words, url=mask_url(wanted[number].url)))
    return outcomes.in_order()


def _told_in(note: str) -> dict[int, DownloadResult | DownloadError]:
    """What a worker that was lost had noted of its share, by place."""
    with no_fork:
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
