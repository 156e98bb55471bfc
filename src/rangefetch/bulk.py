"""Many files at once: small ones in batches that never touch Python, everything else through the manager.

A file is tried as a small one first, where nothing special is asked of it: one request, no probe, no part file. What
turns out to be large, or in any way out of the ordinary, comes back and is fetched as any other download, with
ranges, retries and state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from rangefetch.download import Download
from rangefetch.errors import Cancelled, DownloadError, TargetExists
from rangefetch.manager import DownloadManager, get_download_manager
from rangefetch.network import mask_url
from rangefetch.options import DownloadOptions, check_url, is_followed
from rangefetch.progress import DownloadProgress, DownloadResult, DownloadStatus
from rangefetch.sources import host_of
from rangefetch.target import DEFAULT_FILENAME, filename_from_url

if TYPE_CHECKING:
    from rangefetch._engine import Batch
    from rangefetch.native import NativeBackend

__all__ = ["Item", "fetch_many"]

Item = str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]
"""A URL; a URL and options; or a mapping with ``url`` and options."""

_log = logging.getLogger("rangefetch")
_BATCH_ITEMS = 512
_BATCHES_AHEAD = 2  # for each loop: one that runs, and one for the lanes that it sets free
_MOST_RETURNED = 0.25  # of a batch: beyond, the files are not small and batches are a waste
_PROGRESS_EVERY_S = 0.1
# URLs and names that are in order without a closer look, which for 100,000 of them would take seconds.
_PLAIN_URL = re.compile(
    r"(https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?)/(?:[!-\"$->@-~]*/)?([A-Za-z0-9_][A-Za-z0-9_.+~-]{3,150}[A-Za-z0-9_])"
)
_DONE, _RETURNED = 2, 3


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
    **options: Any,
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
    **options: Any,
) -> list[DownloadResult | DownloadError]: ...
def fetch_many(
    items: Iterable[Item],
    directory: str | os.PathLike[str] = ".",
    *,
    max_concurrent_downloads: int | None = None,
    on_error: str = "raise",
    executor: Executor | None = None,
    on_progress: Callable[[DownloadProgress], object] | None = None,
    **options: Any,
) -> Any:
    """Fetch many URLs into a directory; returns a list in the order of ``items``.

    An item is a URL, ``(url, options)``, or a mapping with ``url`` and options; ``options`` are for all. Each gets
    the name that the server or its URL gives it; of two with the same name the later is refused (``TargetExists``),
    the same URL twice is fetched once. ``on_error="return"`` puts the ``DownloadError`` in the place of a result,
    ``"raise"`` raises an ``ExceptionGroup`` of all of them when everything else is done. ``on_progress`` gets a
    ``DownloadProgress`` of the whole, whose ``filename`` is "N of M files". With an ``executor``
    (``concurrent.futures``) the items are divided among its workers, each with a manager of its own; ``on_progress`` is
    not called then.

    Raises ``ValueError`` or ``TypeError`` for wrong items and options, before anything is opened.
    """
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error: {on_error!r} is neither 'raise' nor 'return'")
    options = {**options, "save_dir": os.fspath(directory)}
    common = DownloadOptions.of(options)
    wanted = [_understand(item) for item in items]
    for each in wanted:
        if each.own:
            DownloadOptions.of(common, **each.own)
    if executor is not None:
        outcomes = _divide(wanted, options, max_concurrent_downloads, executor)
    else:
        outcomes = _fetch_all(wanted, common, max_concurrent_downloads, on_progress)
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
    else:
        raise TypeError(f"items: expected a URL, (url, options) or a mapping, not {type(item).__name__}")
    plain = _PLAIN_URL.fullmatch(url) if isinstance(url, str) else None
    if plain is not None and not is_followed(url):
        return _Wanted(url, own or None, plain[2], plain[1])
    check_url(url)
    # What a torrent brings is named by itself.
    name = url if is_followed(url) else filename_from_url(url) or DEFAULT_FILENAME
    return _Wanted(url, own or None, name, host_of(url))


def _fetch_all(
    wanted: Sequence[_Wanted],
    common: DownloadOptions,
    max_concurrent_downloads: int | None,
    on_progress: Callable[[DownloadProgress], object] | None,
) -> list[DownloadResult | DownloadError]:
    with contextlib.ExitStack() as stack:
        if max_concurrent_downloads is None:
            manager = get_download_manager()
        else:
            manager = stack.enter_context(DownloadManager(max_concurrent_downloads=max_concurrent_downloads))
        return _Bulk(manager, wanted, common, on_progress).run()


class _Bulk:
    """One call of ``fetch_many`` on one manager."""

    def __init__(
        self,
        manager: DownloadManager,
        wanted: Sequence[_Wanted],
        common: DownloadOptions,
        on_progress: Callable[[DownloadProgress], object] | None,
    ) -> None:
        self._manager = manager
        self._wanted = wanted
        self._common = common
        self._on_progress = on_progress
        self._outcomes: list[DownloadResult | DownloadError | None] = [None] * len(wanted)
        self._singles: dict[int, Download] = {}
        self._same: dict[int, int] = {}
        self._ended: deque[Batch] = deque()
        self._wake = threading.Event()
        self._bytes = 0
        self._done = 0

    def run(self) -> list[DownloadResult | DownloadError]:
        singles, small = self._sort()
        try:
            for number in singles:
                self._ask(number)
            self._run_batches(small)
            self._wait_for_singles()
        except BaseException:
            self._manager.pause_these(self._singles.values())
            raise
        for number, first in self._same.items():
            self._outcomes[number] = self._outcomes[first]
        self._report()
        return [outcome for outcome in self._outcomes if outcome is not None]

    def _sort(self) -> tuple[list[int], dict[str, list[int]]]:
        """Which items need the manager, and which may be small files, by host."""
        singles: list[int] = []
        small: dict[str, list[int]] = defaultdict(list)
        plain = _is_plain(self._common) and self._manager.native_backend() is not None
        self._same, refused = _repeated(self._wanted)
        for number, each in enumerate(self._wanted):
            if number in refused:
                self._outcomes[number] = refused[number]
            elif number in self._same:
                continue
            elif not plain or each.own or "@" in each.url or each.url[:4].lower() != "http" or is_followed(each.url):
                singles.append(number)
            else:
                small[each.host].append(number)
        return singles, small

    # -- small files --------------------------------------------------------------------------------------------

    def _run_batches(self, small: Mapping[str, list[int]]) -> None:
        backend = self._manager.native_backend()
        if not small or backend is None:
            return
        try:
            directory_fd = os.open(self._common.save_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            # The manager says what is wrong with it.
            for numbers in small.values():
                for number in numbers:
                    self._ask(number)
            return
        live: dict[Batch, list[int]] = {}
        chunks = self._chunks(small)
        try:
            while True:
                while len(live) < _BATCHES_AHEAD * (os.cpu_count() or 1):
                    numbers = next(chunks, [])
                    if not numbers:
                        break
                    live[self._begin_batch(backend, directory_fd, numbers)] = numbers
                if not live:
                    return
                self._wake.wait(_PROGRESS_EVERY_S)
                self._wake.clear()
                while self._ended:
                    batch = self._ended.popleft()
                    self._collect(batch, live.pop(batch))
                self._report()
        finally:
            self._abandon(live)
            os.close(directory_fd)

    def _chunks(self, small: Mapping[str, list[int]]) -> Iterator[list[int]]:
        """Portions of one host each. When too much of a host's comes back, the rest of it goes to the manager."""
        self._too_large: set[str] = set()
        for host, numbers in small.items():
            for start in range(0, len(numbers), _BATCH_ITEMS):
                portion = numbers[start : start + _BATCH_ITEMS]
                if host not in self._too_large:
                    yield portion
                    continue
                for number in portion:
                    self._ask(number)

    def _begin_batch(self, backend: NativeBackend, directory_fd: int, numbers: Sequence[int]) -> Batch:
        def ended(batch: Batch) -> None:
            self._ended.append(batch)
            self._wake.set()

        items = [(self._wanted[number].url, self._wanted[number].name) for number in numbers]
        return backend.begin_batch(directory_fd, items, self._common, ended, named_by_url=True)

    def _abandon(self, live: Mapping[Batch, object]) -> None:
        """Something broke the wait: nothing may touch the directory's descriptor any more when it is closed."""
        left = set(live)
        for batch in left:
            batch.remove()
        deadline_s = time.monotonic() + 5.0
        while left and time.monotonic() < deadline_s:
            self._wake.wait(_PROGRESS_EVERY_S)
            while self._ended:
                left.discard(self._ended.popleft())

    def _collect(self, batch: Batch, numbers: Sequence[int]) -> None:
        directory = Path(self._common.save_dir).absolute()
        states, sizes = bytes(batch.states), batch.sizes.tolist()
        returned = 0
        for place, number in enumerate(numbers):
            each = self._wanted[number]
            if states[place] == _DONE:
                self._outcomes[number] = DownloadResult(
                    path=directory / each.name,
                    filename=each.name,
                    size=sizes[place],
                    gid=secrets.token_hex(8),
                    sources=(each.url,),
                )
                self._bytes += sizes[place]
                self._done += 1
            else:
                returned += 1
                self._ask(number)
        if returned > _MOST_RETURNED * len(numbers):
            self._too_large.add(self._wanted[numbers[0]].host)

    # -- the others -----------------------------------------------------------------------------------------------

    def _ask(self, number: int) -> None:
        """Have the manager fetch an item."""
        each = self._wanted[number]
        options = DownloadOptions.of(self._common, **each.own) if each.own else self._common
        self._singles[number] = self._manager.submit(each.url, options)

    def _wait_for_singles(self) -> None:
        for number, download in self._singles.items():
            while self._outcomes[number] is None:
                try:
                    result = self._manager.wait_for(download, _PROGRESS_EVERY_S if self._on_progress else None)
                except DownloadError as error:
                    if isinstance(error, Cancelled) and not self._manager.is_started:
                        raise
                    self._outcomes[number] = error
                except TimeoutError:
                    self._report()
                    continue
                else:
                    self._outcomes[number] = result
                    self._bytes += result.size
                self._done += 1
            with contextlib.suppress(KeyError, ValueError):
                self._manager.remove(download.gid)

    def _report(self) -> None:
        if self._on_progress is None:
            return
        count = len(self._wanted)
        progress = DownloadProgress(
            gid="",
            downloaded=self._bytes,
            total=0,
            speed=0.0,
            percentage=100.0 * self._done / count if count else 100.0,
            eta=None,
            filename=f"{self._done} of {count} files",
            status=DownloadStatus.ACTIVE if self._done < count else DownloadStatus.COMPLETE,
        )
        try:
            self._on_progress(progress)
        except Exception:
            _log.exception("on_progress failed")


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


def _is_plain(options: DownloadOptions) -> bool:
    """Nothing is asked of the files but that they come."""
    return not (
        options.filename
        or options.checksum
        or options.expected_size
        or options.durable
        or options.max_download_limit
        or options.mirrors
        or options.use_github_mirror
        or options.cookies
    )


# -- workers ------------------------------------------------------------------------------------------------------


def _divide(
    wanted: Sequence[_Wanted], options: dict[str, Any], max_concurrent_downloads: int | None, executor: Executor
) -> list[DownloadResult | DownloadError]:
    """Give each worker of the executor a share; only plain values cross."""
    workers = getattr(executor, "_max_workers", None) or os.cpu_count() or 1
    same, refused = _repeated(wanted)
    outcomes: dict[int, DownloadResult | DownloadError] = dict(refused)
    # A host's files stay together, so that what is polite to it stays so.
    order = sorted(
        (number for number in range(len(wanted)) if number not in same and number not in refused),
        key=lambda number: wanted[number].host,
    )
    size = max(1, -(-len(order) // workers))
    shares = [order[start : start + size] for start in range(0, len(order), size)]
    futures = [
        executor.submit(
            _fetch_share,
            [(wanted[number].url, dict(wanted[number].own or {})) for number in share],
            options,
            max_concurrent_downloads,
        )
        for share in shares
    ]
    for share, future in zip(shares, futures, strict=True):
        outcomes.update(zip(share, future.result(), strict=True))
    return [outcomes[same.get(number, number)] for number in range(len(wanted))]


def _fetch_share(
    items: list[tuple[str, dict[str, Any]]], options: dict[str, Any], max_concurrent_downloads: int | None
) -> list[DownloadResult | DownloadError]:
    """A worker's part of ``fetch_many``."""
    plain = [(url, own) if own else url for url, own in items]
    options = dict(options)
    directory = options.pop("save_dir")
    return fetch_many(plain, directory, max_concurrent_downloads=max_concurrent_downloads, on_error="return", **options)
