"""Many files at once: small ones in batches that never touch Python, everything else through the manager.

A file is tried as a small one first, where nothing special is asked of it: one request, no probe, no part file. What
turns out to be large, or in any way out of the ordinary, comes back and is fetched as any other download, with
ranges, retries and state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import re
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from concurrent.futures import Executor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from rangefetch.disk import provenance
from rangefetch.disk.names import choose_filename, is_plain_filename
from rangefetch.disk.parts import part_paths
from rangefetch.errors import Cancelled, DownloadError, TargetExists, WaitTimeout
from rangefetch.identity import Basis, Identity
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
from rangefetch.transfer import governor
from rangefetch.transfer.download import Download, new_gid

if TYPE_CHECKING:
    from rangefetch._engine import Batch
    from rangefetch.native.backend import NativeBackend

__all__ = ["Item", "OnResult", "fetch_many"]

Item = str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]
"""A URL; a URL and options; or a mapping with ``url`` and options."""

OnResult = Callable[[int, DownloadResult | DownloadError], object]
"""Hears of an item at its end: its number, from 0, and what came of it."""

_BATCH_ITEMS = 512
_BATCHES_AHEAD = 2  # for each loop: one that runs, and one for the places that it sets free
_MOST_RETURNED = 0.25  # of a host's files: beyond, they are not small and batches are a waste
_PROGRESS_EVERY_S = 0.1
_LOOK_AGAIN_S = 1.0  # at downloads that rest, since a manager that is stopped says nothing to those
# URLs and names that are in order without a closer look, which for 100,000 of them would take seconds.
_PLAIN_URL = re.compile(
    r"(https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?)/(?:[!-\"$->@-~]*/)?([A-Za-z0-9_][A-Za-z0-9_.+~-]{3,150}[A-Za-z0-9_])"
)
_DONE = 2
_LATE = 4
_TAKEN = -1  # in the place of an item's number


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

    def in_order(self) -> list[DownloadResult | DownloadError]:
        """All of them; none is missing."""
        return [self.known[number] for number in range(len(self.known))]


class _Directory:
    """An open directory, which is closed when neither we nor a batch that the engine has uses it any more."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises ``OSError``."""
        Path(path).mkdir(parents=True, exist_ok=True)
        self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._users = 1

    def use(self) -> None:
        with self._lock:
            self._users += 1

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                os.close(self.fd)


class _Queue:
    """Small files that wait, by host; the hosts take turns."""

    def __init__(self, small: Mapping[str, Sequence[int]]) -> None:
        self._hosts = deque((host, deque(numbers)) for host, numbers in small.items())

    def take(self, most: int) -> list[int]:
        """The next of them, ``most`` at most."""
        taken: list[int] = []
        while self._hosts and len(taken) < most:
            numbers = self._hosts[0][1]
            taken.append(numbers.popleft())
            self._hosts.rotate(-1)
            if not numbers:
                self._hosts.pop()
        return taken

    def give_up(self, host: str) -> Iterable[int]:
        """Those of one host wait no more."""
        left = next((each for each in self._hosts if each[0] == host), (host, deque[int]()))
        with contextlib.suppress(ValueError):
            self._hosts.remove(left)
        return left[1]


def _by_loop(
    small: Mapping[str, list[int]], wanted: Sequence[_Wanted], options: DownloadOptions, loops: int
) -> list[_Queue]:
    """What each loop may take from: the same for all, or the hosts that are its own."""
    own: list[dict[str, list[int]]] = [{} for _ in range(loops)]
    for host, numbers in small.items():
        number = governor.host_of_connection(wanted[numbers[0]].url, options)
        loop = governor.loop_of(number, options.max_connection_per_server, loops)
        if loop is None:
            return [_Queue(small)] * loops
        own[loop][host] = numbers
    return [_Queue(each) for each in own]


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
        self._singles: dict[int, Download] = {}  # that have not ended
        self._at_work: set[int] = set()  # of them
        self._moved: deque[int] = deque()
        self._live: dict[Batch, list[int]] = {}
        self._queues: list[_Queue] = []
        self._loop_of: dict[Batch, int] = {}
        self._on_loop: Counter[int] = Counter()  # batches that it has
        self._tried: Counter[str] = Counter()  # small files, by host
        self._came_back: Counter[str] = Counter()  # of them, those that are not small
        self._late: list[int] = []  # of hosts that have not answered, for when all else is done
        self._places = 0  # how many small files may be at work at a time
        self._ended: deque[Batch] = deque()
        self._wake = threading.Event()
        self._bytes = 0  # of items that have ended
        self._batch_bytes = 0
        self._meter = SpeedMeter()  # of batches; the others have their own
        self._next_report_s = 0.0

    def run(self) -> list[DownloadResult | DownloadError]:
        self._manager.start()
        self._starts = self._manager.starts
        singles, small = self._sort()
        try:
            try:
                self._ask_for_places(small)
                for number in singles:
                    self._ask(number)
                self._run_batches(small)
            finally:
                self._manager.lend_places(self, 0)
            self._wait_for_singles()
        except BaseException:
            self._manager.let_go(self._singles.values())
            raise
        self._report()
        return self._outcomes.in_order()

    def _sort(self) -> tuple[list[int], dict[str, list[int]]]:
        """Which items need the manager, and which may be small files, by host."""
        singles: list[int] = []
        small: dict[str, list[int]] = defaultdict(list)
        plain = _is_plain(self._common) and self._manager.native_backend() is not None
        begun = _unfinished(self._common.save_dir) if plain else frozenset()
        for number, each in enumerate(self._wanted):
            if number in self._outcomes.same or number in self._outcomes.known:
                continue
            if not plain or each.own or "@" in each.url or each.url[:4].lower() != "http" or is_metadata_url(each.url):
                singles.append(number)
            elif begun and not begun.isdisjoint(path.name for path in part_paths("", "", each.url)):
                # It was the manager's once, which has left something of it, or of that file under another URL.
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
            directory = _Directory(self._common.save_dir)
        except OSError:
            # The manager says what is wrong with it.
            for numbers in small.values():
                for number in numbers:
                    self._ask(number)
            return
        live = self._live
        loops = max(1, min(backend.loops, self._manager.most_small))
        self._queues = _by_loop(small, self._wanted, self._common, loops)
        portion = min(_BATCH_ITEMS, -(-sum(map(len, small.values())) // loops))
        try:
            while True:
                for ahead, loop in itertools.product(range(_BATCHES_AHEAD), range(loops)):
                    if self._on_loop[loop] <= ahead and (numbers := self._queues[loop].take(portion)):
                        batch = self._begin_batch(backend, directory, numbers, loop)
                        self._on_loop[loop] += 1
                        live[batch] = numbers
                        self._loop_of[batch] = loop
                if not live:
                    break
                self._look()
                while self._ended:
                    batch = self._ended.popleft()
                    self._on_loop[self._loop_of.pop(batch)] -= 1
                    self._end_batch(batch, live.pop(batch))
        finally:
            self._abandon(live)
            directory.release()
        for number in self._late:
            self._ask(number)

    def _begin_batch(self, backend: NativeBackend, directory: _Directory, numbers: Sequence[int], loop: int) -> Batch:
        def ended(batch: Batch) -> None:
            directory.release()
            self._ended.append(batch)
            self._wake.set()

        self._tried.update(self._wanted[number].host for number in numbers)
        items = [(self._wanted[number].url, self._wanted[number].name) for number in numbers]
        lanes = min(self._manager.most_small, len(items))
        directory.use()
        try:
            return backend.begin_batch(
                directory.fd, items, self._common, ended, loop=loop, lanes=lanes, named_by_url=True
            )
        except BaseException:
            directory.release()
            raise

    def _abandon(self, live: Mapping[Batch, list[int]]) -> None:
        """Something broke the wait: end what is at work, and tell what is done. A loop that hangs in the file system
        is not waited for, and keeps the directory's descriptor.
        """
        left = set(live)
        for batch in left:
            batch.remove()
        deadline_s = time.monotonic() + 5.0
        while left and time.monotonic() < deadline_s:
            self._wake.wait(_PROGRESS_EVERY_S)
            while self._ended:
                left.discard(self._ended.popleft())
        for batch, numbers in live.items():
            self._collect(batch, numbers)

    def _collect(self, batch: Batch, numbers: list[int]) -> None:
        """Take what is done of a batch that may still be at work; those places are ``_TAKEN`` then."""
        directory, sizes = Path(self._common.save_dir).absolute(), batch.sizes
        for place, state in enumerate(bytes(batch.states)):
            number = numbers[place]
            if state != _DONE or number == _TAKEN:
                continue
            numbers[place] = _TAKEN
            each = self._wanted[number]
            size = sizes[place]
            provenance.wrote(directory / each.name, each.url)
            self._bytes += size
            self._batch_bytes += size
            result = DownloadResult(
                path=directory / each.name,
                filename=each.name,
                size=size,
                gid=new_gid(),
                sources=(each.url,),
                identity=Basis.ONE_RESPONSE,
            )
            self._outcomes.put(number, result)

    def _end_batch(self, batch: Batch, numbers: list[int]) -> None:
        """What is not done comes back, and is for the manager."""
        self._collect(batch, numbers)
        for other, theirs in self._live.items():
            # A name may be taken by an item of another batch, where case is ignored.
            self._collect(other, theirs)
        returned: dict[int, int] = {}  # with their places in the batch
        for place, (number, state) in enumerate(zip(numbers, bytes(batch.states), strict=True)):
            if number != _TAKEN and state == _LATE:
                self._late.append(number)
            elif number != _TAKEN:
                returned[number] = place
        if returned:
            self._must_go_on()
        for number, place in returned.items():
            self._came_back[self._wanted[number].host] += 1
            told = batch.told(place)
            self._ask(number, Identity(*told) if told is not None else None)
        for host in {self._wanted[number].host for number in returned}:
            if self._came_back[host] > _MOST_RETURNED * self._tried[host]:
                for queue in self._queues:
                    for number in queue.give_up(host):
                        self._ask(number)

    # -- the others -----------------------------------------------------------------------------------------------

    def _ask(self, number: int, known: Identity | None = None) -> None:
        """Have the manager fetch an item, of which its server has said what is ``known``."""
        each = self._wanted[number]
        options = DownloadOptions.of(self._common, **each.own) if each.own else self._common
        download = self._singles[number] = self._manager.submit(each.url, options, starts=self._starts, known=known)

        def moved(_: Download) -> None:
            self._moved.append(number)
            self._wake.set()

        download.watch(moved)
        # It may have moved before.
        moved(download)

    def _wait_for_singles(self) -> None:
        while self._singles:
            self._look()
            if self._singles:
                # Those that were paused before heard nothing of a stop.
                self._must_go_on()

    def _must_go_on(self) -> None:
        """Raises ``Cancelled`` if the manager was stopped, even if it was started again."""
        if not self._manager.is_started or self._manager.starts != self._starts:
            raise Cancelled("the manager was stopped")

    def _look(self) -> None:
        """Wait a little, see which downloads have ended, and report."""
        self._wake.wait(_PROGRESS_EVERY_S if self._live or self._on_progress else _LOOK_AGAIN_S)
        self._wake.clear()
        while self._moved:
            number = self._moved.popleft()
            if number in self._singles:
                self._settle(number, self._singles[number])
        for batch, numbers in self._live.items():
            self._collect(batch, numbers)
        self._ask_for_places(self._live)
        if time.monotonic() >= self._next_report_s:
            self._report()

    def _ask_for_places(self, small: Sized) -> None:
        """How many small files may be at work at a time changes with the other downloads."""
        if small:
            self._places = self._manager.lend_places(self, self._manager.most_small)

    def _settle(self, number: int, download: Download) -> None:
        """A download has moved: it is at work now, or it is at rest, or it has ended."""
        outcome: DownloadResult | DownloadError
        if download.status is DownloadStatus.ACTIVE:
            self._at_work.add(number)
            return
        try:
            outcome = self._manager.wait_for(download, 0)
        except DownloadError as error:
            if isinstance(error, Cancelled):
                self._must_go_on()
            outcome = error
        except WaitTimeout:
            return
        self._at_work.discard(number)
        del self._singles[number]
        self._bytes += download.progress().downloaded
        with contextlib.suppress(KeyError, ValueError):
            self._manager.remove(download.gid)
        self._outcomes.put(number, outcome)

    def _report(self) -> None:
        if self._on_progress is None:
            return
        now_s = time.monotonic()
        self._next_report_s = now_s + _PROGRESS_EVERY_S
        at_work = [self._singles[number].progress() for number in self._at_work]
        self._meter.sample(now_s, self._batch_bytes)
        count, done = len(self._wanted), len(self._outcomes.known)
        over = done == count
        progress = DownloadProgress(
            gid="",
            downloaded=self._bytes + sum(each.downloaded for each in at_work),
            total=0,
            speed=0.0 if over else self._meter.speed() + sum(each.speed for each in at_work),
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


def _unfinished(directory: str | os.PathLike[str]) -> frozenset[str]:
    """The part files there whose names are hashes."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries]
    except OSError:
        return frozenset()
    return frozenset(name for name in names if name.startswith("rangefetch-") and name.endswith(".part"))


def _is_plain(options: DownloadOptions) -> bool:
    """Nothing is asked of the files but that they come."""
    return not (
        options.filename
        or options.checksum
        or options.expected_size
        or options.durable
        or options.decode
        or options.max_download_limit
        or options.mirrors
        or options.use_github_mirror
        or options.cookies
    )


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
        (number for number in range(len(wanted)) if number not in outcomes.same and number not in outcomes.known),
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
