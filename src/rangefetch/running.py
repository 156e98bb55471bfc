"""``Run``: downloads a list of files, can be stopped at any moment, and is resumed by the same call.

Files that are complete according to the ledger, and are on the disk, are not requested again. A file that was finished
just before the process was killed is not in the ledger yet, and is found on the disk (``finished``).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Self, Unpack, cast
from urllib.parse import urlsplit

from rangefetch import errors, records
from rangefetch.errors import DiskError, DownloadError
from rangefetch.finished import Finished, has_digest
from rangefetch.iterating import NOTHING_MORE, NOTHING_YET, WINDOW, Fetched, Source, fetch_from
from rangefetch.ledger import COMPLETE, FAILED, Ledger, LedgerError, Row
from rangefetch.manifests.item import ManifestItem
from rangefetch.options import CommonOptions, absolute_path
from rangefetch.progress import DownloadProgress, DownloadResult, path_of
from rangefetch.shards import Packer, Shards
from rangefetch.shared import our_downloads
from rangefetch.transfer.space import as_full, is_full

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Run", "is_class_of_failures"]

_TRANSIENT = (
    *(
        errors.ConnectionFailed,
        errors.HostUnreachable,
        errors.TimedOut,
        errors.BadAnswer,
        errors.ContentChanged,
        errors.TargetLocked,
    ),
    *(errors.DiskError, errors.EngineUnavailable, errors.ProcessStartFailed, errors.DaemonUnavailable),
    *(errors.ProcessManagementError, errors.BinaryDownloadFailed, errors.Cancelled),
)
_LOOK_UP_EVERY = 1024
_HOST = re.compile(r"https?://([a-z0-9.-]+)(?::[0-9]+)?/")  # a fast path that matches most URLs
_TRANSIENT_STATUSES = frozenset({408, 425, 429})


def is_class_of_failures(name: str) -> bool:
    """Whether ``name`` selects failures: ``all``, ``none``, ``transient``, an HTTP status or an error class."""
    if name in ("all", "none", "transient"):
        return True
    if name.isascii() and name.isdigit():
        return 100 <= int(name[:4]) <= 599 and len(name) == 3
    return _kind(name) is not None


def _kind(name: str) -> type[DownloadError] | None:
    kind = getattr(errors, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, DownloadError) else None


def _is_of(row: Row, name: str) -> bool:
    """Whether the failure in ``row`` is among those that ``name`` selects."""
    kind = _kind(row.error)
    if name in ("all", "none"):
        return name == "all"
    if name == "transient":
        return row.status in _TRANSIENT_STATUSES or row.status >= 500 or (kind is not None and kind in _TRANSIENT)
    if name.isdigit():
        return row.status == int(name)
    wanted = _kind(name)
    return kind is not None and wanted is not None and issubclass(kind, wanted)


class Run:
    """A resumable download of a list of files, recorded in a ledger: the file ``path``, created if missing. A context
    manager.

    ``fetch`` is ``fetch_iter`` for the items that are not complete yet. You can stop it or kill the process at any
    moment and call it again with the same items. Items that are complete according to the ledger, and whose file has
    the right size on the disk, are skipped; started ones are continued.

    Failed items are tried again if ``retry_failed`` selects them. It is a collection of ``"transient"`` (the default:
    network errors, HTTP 5xx, 408, 425 and 429, most errors on this machine), ``"all"``, ``"none"``, HTTP statuses such
    as ``"404"``, and names of error classes such as ``"ChecksumMismatch"``.

    With ``verify``, complete files are read again and compared with their digests or, if they have none, with the
    server. A shard is compared with the digests of the files in it; a damaged shard is set aside, and its files are
    fetched again.

    With ``shards``, files are put into tar files (:class:`Shards`). A result then has as its ``path`` the path that the
    shard will have once it is full or the run is over, and as its ``filename`` the name inside the shard.

    ``skipped`` counts the items that were complete already, and ``failed_before`` those that had failed and were not
    tried again.

    Raises ``LedgerError``, a ``ValueError``, if the file is not a ledger, belongs to another version or another list,
    or is in use.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        verify: bool = False,
        retry_failed: Collection[str] = ("transient",),
        list_id: str = "",
        shards: Shards | None = None,
    ) -> None:
        for name in retry_failed:
            if not is_class_of_failures(name):
                raise ValueError(f"retry_failed: {name!r} is not all, none, transient, a status or a class of errors")
        self.skipped = self.failed_before = 0
        self._verify = verify
        self._retry_failed = tuple(retry_failed)
        self._list_id = list_id
        self._directory = ""
        self._decodes = False
        self._ledger = Ledger(path, writes=True)
        self._shards = shards
        self._packer: Packer | None = None
        self._finished: Finished | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish writing the ledger and close it. Raises ``LedgerError`` if it cannot be written."""
        if self._packer is not None:
            self._packer.close()
        self._ledger.close()

    def expect(self, count: int) -> None:
        """Record the number of items in the ledger, if it is known before the last one is taken."""
        self._ledger.note("count", count)

    def rows(self, *, state: str = "") -> Iterator[Row]:
        """The rows of the ledger in the order of the items; ``state`` selects ``complete`` or ``failed`` ones."""
        return self._ledger.rows(state=state)

    def fetch(
        self,
        items: Iterable[ManifestItem] | Source,
        directory: str | os.PathLike[str] | None = None,
        *,
        max_concurrent_downloads: int | None = None,
        window: int = WINDOW,
        on_progress: Callable[[DownloadProgress], object] | None = None,
        **options: Unpack[CommonOptions],
    ) -> Generator[Fetched]:
        """Fetch the items of a manifest that this run still needs, and yield results as ``fetch_iter`` does.

        ``number`` counts only the items that are fetched; the ledger has each item's position in the whole list.
        """
        if directory is None:
            directory = our_downloads().defaults.options.save_dir
        self._directory = str(absolute_path(os.path.expanduser(directory)))  # noqa: PTH111 - a string
        self._must_be_the_same()
        self._decodes = bool(options.get("decode"))
        into = self._directory
        if self._shards is not None:
            self._packer = Packer(self._shards, self._directory, self._ledger, verify=self._verify)
            into = self._packer.staged
        if not self._ledger.is_new:
            created_s = float(self._ledger.about("created") or 0)
            self._finished = Finished(into, created_s, decodes=self._decodes)
        waiting = _Waiting(self, items)
        results = fetch_from(
            waiting,
            into,
            max_concurrent_downloads=max_concurrent_downloads,
            window=window,
            on_progress=on_progress,
            options=options,
        )
        return self._recorded(results, waiting)

    def _recorded(self, results: Generator[Fetched], waiting: _Waiting) -> Generator[Fetched]:
        with contextlib.ExitStack() as closing:
            if self._packer is not None:
                closing.callback(self._packer.close)
            closing.enter_context(contextlib.closing(results))
            for fetched in results:
                numbered = fetched.item
                yield Fetched(
                    fetched.number, numbered.item, self._ended(numbered.number, numbered.item, fetched.outcome)
                )
            self._ledger.note("count", waiting.taken)
            if self._packer is not None:
                self._finish(self._packer)

    def _finish(self, packer: Packer) -> None:
        """Publish the last shard. Raises ``DiskError``."""
        try:
            packer.finish()
        except DiskError as error:
            raise as_full(error) if is_full(error, self._directory) else error from None

    def _ended(
        self, number: int, item: ManifestItem, outcome: DownloadResult | DownloadError
    ) -> DownloadResult | DownloadError:
        """Record the outcome of an item, put its file into a shard if there are shards, and return the outcome."""
        if self._packer is None or isinstance(outcome, DownloadError):
            self._ledger.put(self._row(number, item, outcome))
            return outcome
        try:
            placed = self._packer.add(item, outcome)
        except DownloadError as error:
            if is_full(error, self._directory):
                raise as_full(error) from None  # the file itself is complete, and the next run finds it
            self._ledger.put(self._row(number, item, error))
            return error
        moved = records.replace(outcome, path=cast("Path", placed.shard), filename=placed.member)
        row = self._row(number, item, moved)
        self._ledger.put(
            row._replace(member=placed.member, offset=placed.offset, size=placed.size, checksum=placed.checksum)
        )
        self._packer.recorded(outcome)
        return moved

    def _must_be_the_same(self) -> None:
        """Raise ``LedgerError`` if the ledger is of another list or another directory."""
        into = self._shards.template if self._shards is not None else ""
        known = self._ledger.about("shards")
        # The directory is recorded last; without it, these notes are not complete yet.
        if known != into and self._ledger.about("directory"):
            where = f"in tar files ({known})" if known else "not in tar files"
            raise LedgerError(f"{self._ledger.path}: the files of this run are {where}")
        if into and not known:
            self._ledger.note("shards", into)
        for key, mine, what in (
            ("list", self._list_id, "it is the ledger of another list, or of this list read with other options"),
            ("directory", self._directory, "the files of this run are in"),
        ):
            known = self._ledger.about(key)
            if known and mine and known != mine:
                more = f" {known}, not in {mine}" if key == "directory" else ""
                raise LedgerError(f"{self._ledger.path}: {what}{more}")
            if mine and not known:
                self._ledger.note(key, mine)

    # -- choosing the items to fetch ----------------------------------------------------------------------------

    def wants(self, number: int, item: ManifestItem, row: Row | None) -> ManifestItem | None:
        """Return the item to fetch, perhaps with other options, or None if it is not to be fetched. Raises
        ``LedgerError``.
        """
        if row is not None and row.url != item.url:
            raise LedgerError(f"{self._ledger.path}: it is the ledger of another list (item {number} was {row.url})")
        if row is not None and row.state == FAILED and not any(_is_of(row, name) for name in self._retry_failed):
            self.failed_before += 1
            return None
        if row is None or row.state == FAILED or not self._is_there(row):
            # An earlier process may have been killed before it recorded the outcome.
            found = self._finished.find(item) if self._finished is not None else None
            if found is None:
                return item
            if isinstance(self._ended(number, item, found), DownloadError):
                self.failed_before += 1
                return None
        elif self._verify and self._packer is None:
            if not row.checksum or self._decodes:  # the digest of a decoded file is that of the bytes as sent
                return item
            if not has_digest(row.path, row.checksum):
                # This run wrote the file, and it is damaged: it may be overwritten.
                return _overwriting(item)
        self.skipped += 1
        return None

    def _is_there(self, row: Row) -> bool:
        if self._packer is not None:
            return self._packer.has(row)
        try:
            status = os.stat(row.path)  # noqa: PTH116 - faster: it may run for 100,000 files
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == row.size

    def _row(self, number: int, item: ManifestItem, outcome: DownloadResult | DownloadError) -> Row:
        host = match[1] if (match := _HOST.match(item.url)) else urlsplit(item.url).hostname or ""
        if isinstance(outcome, DownloadError):
            return Row(
                *(number, item.line, item.url, host, item.path, FAILED, item.size, item.checksum, outcome.seconds),
                *(len(outcome.tried) or 1, type(outcome).__name__, outcome.status, outcome.reason, time.time()),
            )
        return Row(
            *(number, item.line, item.url, host, path_of(outcome), COMPLETE, outcome.size, outcome.checksum),
            *(outcome.seconds, outcome.retries + 1, "", 0, "", time.time()),
        )


class _Numbered:
    """An item that is to be fetched, and its position in the whole list."""

    __slots__ = ("item", "number")

    def __init__(self, number: int, item: ManifestItem) -> None:
        self.number = number
        self.item = item

    def below(self, directory: str) -> tuple[str, dict[str, Any]]:
        """The URL and the options (``items.ListedItem``)."""
        return self.item.below(directory)


class _Waiting:
    """The items that are to be fetched (``iterating.Source``). Reads the list and the ledger in parallel."""

    def __init__(self, run: Run, items: Iterable[ManifestItem] | Source) -> None:
        self.taken = 0
        self._run = run
        self._source = items if isinstance(items, Source) else None
        self._items = iter(()) if isinstance(items, Source) else iter(items)
        self._wake: Callable[[], object] = lambda: None
        self._rows = run.rows()
        self._row = next(self._rows, None)

    def take(self) -> object:
        """The next item."""
        while True:
            item = self._source.take() if self._source is not None else next(self._items, NOTHING_MORE)
            if item is NOTHING_YET or item is NOTHING_MORE:
                return item
            if not isinstance(item, ManifestItem):
                raise TypeError(f"an item of a run is a ManifestItem, not {type(item).__name__}")
            number, self.taken = self.taken, self.taken + 1
            row = None
            while self._row is not None and self._row.number < number:
                self._row = next(self._rows, None)
            if self._row is not None and self._row.number == number:
                row, self._row = self._row, None
                self._row = next(self._rows, None)
            wanted = self._run.wants(number, item, row)
            if wanted is not None:
                return _Numbered(number, wanted)
            if number % _LOOK_UP_EVERY == 0:
                # Return now and then, so that the caller can show progress and handle signals.
                self._wake()
                return NOTHING_YET

    def wake_with(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        if self._source is not None:
            self._source.wake_with(wake)


def _overwriting(item: ManifestItem) -> ManifestItem:
    options = {**item.options, "overwrite": True}
    return ManifestItem(item.url, item.path, item.checksum, item.size, item.mirrors, options, item.line, item.index)
