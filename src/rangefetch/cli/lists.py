"""The list of ``-i``: reads a manifest in any format, adds the URLs of the command line, and reports bad lines.

A list in a file is read before anything is fetched, so that its names can be compared, unless it is too long for that.
A pipe is read by a thread as data arrives, so that finished files are reported without waiting for the next line.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from rangefetch import records
from rangefetch.checks import check_path
from rangefetch.cli.arguments import Request
from rangefetch.cli.display import Quiet, counted
from rangefetch.disk.names import filename_from_url
from rangefetch.errors import LocalError
from rangefetch.iterating import NOTHING_MORE, NOTHING_YET, Source
from rangefetch.manifests.item import ManifestItem
from rangefetch.manifests.opening import ManifestError
from rangefetch.manifests.reading import Manifest, read_manifest
from rangefetch.masking import mask_url
from rangefetch.options import absolute_path

__all__ = ["Listing"]

MOST_COMPARED = 100_000
"""The longest list that is searched for duplicate names before anything is fetched."""
_MOST_NOTES = 10
_MOST_FED = 1000


class Listing:
    """The items to fetch. ``count`` is the number of items, None if not known yet; ``mistakes`` counts the lines that
    cannot be used. Raises ``ManifestError`` and ``DiskError``.
    """

    def __init__(self, request: Request, display: Quiet) -> None:
        self.count: int | None = None
        self.mistakes = 0
        self._request = request
        self._display = display
        self.shown = "standard input" if request.input_file == "-" else request.input_file
        self._heard: Callable[[int, str], object] = self.bad_line
        self._typed = [ManifestItem(url) for url in request.urls]
        self._manifest = self._opened() if _is_whole(request.input_file) else None

    def _opened(self) -> Manifest:
        request = self._request
        manifest = read_manifest(
            request.input_file,
            input_format=request.input_format,
            base_url=request.base_url,
            columns=request.columns,
            name=request.name_template,
            directory=os.path.normpath(absolute_path(check_path(request.options.save_dir, "save_dir"))),
            strict=request.strict,
            options=request.options.given,
            on_bad_line=lambda line, what: self._heard(line, what),
        )
        self.shown = manifest.shown
        return manifest

    def bad_line(self, line: int, what: str) -> None:
        """Report a line that cannot be used."""
        self.mistakes += 1
        self._display.error(f"{self.shown}:{line}: {what}")

    def identify(self) -> str:
        """A hash of the list and the options for reading it; "" for a pipe, whose content is not known yet."""
        if self._manifest is None:
            return ""
        request = self._request
        how = (request.urls, request.input_format, request.base_url, sorted(request.columns.items()))
        told = hashlib.sha256(repr((how, request.name_template)).encode(errors="surrogateescape"))
        told.update(self._manifest.fingerprint())
        return told.hexdigest()

    def close(self) -> None:
        """Close the list. A pipe is left to the thread that reads it."""
        if self._manifest is not None:
            self._manifest.close()

    def items(self) -> Iterable[ManifestItem] | Source:
        """The items, for ``iterating``. Raises ``ManifestError`` and ``LocalError``."""
        if self._manifest is None:
            fed = _Fed(self._from_pipe(), self.bad_line)
            self._heard = fed.bad_line
            fed.start()
            return fed
        everything = self._all_of(self._manifest)
        if self._manifest.is_longer_than(MOST_COMPARED):
            # Reading it all would delay the first request by a second or two.
            return itertools.chain(self._for_one(list(itertools.islice(everything, 2))), everything)
        ahead = list(itertools.islice(everything, MOST_COMPARED + 1))
        if len(ahead) <= MOST_COMPARED:
            ahead = self._compared(ahead)
            self.count = len(ahead)
        return itertools.chain(_consumed(self._for_one(ahead)), everything)

    def _all_of(self, manifest: Manifest) -> Iterator[ManifestItem]:
        """The URLs of the command line, then the listed items, without columns that were only needed for names."""
        yield from self._typed
        for item in manifest:
            yield item if self._request.tar_json or not item.columns else records.replace(item, columns={})

    def _from_pipe(self) -> Iterator[ManifestItem]:
        everything = self._all_of(self._opened())
        if self._request.for_one:
            yield from self._for_one(list(itertools.islice(everything, 2)))
        yield from everything

    def _for_one(self, items: list[ManifestItem]) -> list[ManifestItem]:
        """Check that options for a single file are used with one item only, and give that item its name."""
        if self._request.for_one and len(items) > 1:
            option, noun = self._request.for_one[0]
            number = f"{self.count} URLs" if self.count is not None else "more than one URL"
            raise ManifestError(f"{option}: one {noun} cannot be used for {number}")
        name = self._request.options.filename
        return [records.replace(item, path=name) for item in items] if name else items

    def _compared(self, items: list[ManifestItem]) -> list[ManifestItem]:
        """The items without duplicates. Items with the name of another are reported."""
        renames = self._request.options.auto_file_renaming
        known: dict[tuple[str, str], ManifestItem] = {}
        names: dict[str, ManifestItem] = {}
        kept: list[ManifestItem] = []
        repeated = 0
        alike: list[str] = []
        for item in items:
            if known.setdefault((item.url, item.path), item) is not item:
                repeated += 1
                continue
            is_told = bool(item.path) and not item.path.endswith("/")
            name = item.path if is_told else item.path + filename_from_url(item.url)
            first = names.setdefault(name, item) if name else item
            if first is not item and not renames:
                where = f"line {first.line}" if first.line else mask_url(first.url)
                if is_told and first.path:
                    what = f"{name}: {where} has this name, too"
                    if self._request.strict:
                        raise ManifestError(f"{self.shown}:{item.line}: {what}")
                    self.bad_line(item.line, what)
                    continue
                alike.append(f"{self.shown}:{item.line}: it may get the name {name}, like {where}")
            kept.append(item)
        if repeated:
            self._display.note(f"{counted(repeated, 'URL')} given more than once, fetched once")
        for note in alike[:_MOST_NOTES]:
            self._display.note(f"warning: {note}; use --name to give each its own name")
        if len(alike) > _MOST_NOTES:
            self._display.note(f"warning: the same is true of {len(alike) - _MOST_NOTES} more lines")
        return kept


def _is_whole(name: str) -> bool:
    """Whether the whole list can be read at once, because it is a file or a URL."""
    if name.startswith(("http://", "https://")):
        return True
    try:
        status = os.stat(0 if name == "-" else name)  # noqa: PTH116 - it also takes a descriptor
    except OSError:
        return True  # opening it will report the error
    return stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)


def _consumed(items: list[ManifestItem]) -> Iterator[ManifestItem]:
    """Yield the items, dropping the reference to each."""
    items.reverse()
    while items:
        yield items.pop()


class _Raised:
    def __init__(self, error: Exception) -> None:
        self.error = error


class _Fed:
    """Items that a separate thread reads (``iterating.Source``)."""

    def __init__(self, items: Iterable[ManifestItem], bad_line: Callable[[int, str], object]) -> None:
        self._items = items
        self._bad_line = bad_line
        self._ready: deque[object] = deque()
        self._room = threading.Semaphore(_MOST_FED)
        self._wake: Callable[[], object] = lambda: None

    def start(self) -> None:
        """Start reading. The thread may still be waiting for a line when the program ends. Raises ``LocalError``."""
        try:
            threading.Thread(target=self._read, name="rangefetch-list", daemon=True).start()
        except RuntimeError as error:
            raise LocalError(f"cannot start a thread: {error}; see ulimit -u") from error

    def bad_line(self, line: int, what: str) -> None:
        """Have the thread that takes the items report a bad line."""
        self._put((line, what))

    def take(self) -> object:
        while self._ready:
            item = self._ready.popleft()
            self._room.release()
            if isinstance(item, tuple):
                self._bad_line(*item)
            elif isinstance(item, _Raised):
                raise item.error
            else:
                return item
        return NOTHING_YET

    def wake_with(self, wake: Callable[[], object]) -> None:
        self._wake = wake
        wake()

    def _put(self, what: object) -> None:
        self._room.acquire()
        self._ready.append(what)
        self._wake()

    def _read(self) -> None:
        try:
            for item in self._items:
                self._put(item)
        except Exception as error:
            self._put(_Raised(error))
        else:
            self._put(NOTHING_MORE)
