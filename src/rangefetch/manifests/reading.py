"""``read_manifest``: reads a manifest in any format."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from rangefetch.checks import HTTP, check_url
from rangefetch.importing import no_fork
from rangefetch.logs import log as _log
from rangefetch.manifests import formats
from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import ManifestItem, Mistake, item_of
from rangefetch.manifests.opening import ManifestError, Source
from rangefetch.masking import mask_text

if TYPE_CHECKING:
    from rangefetch.manifests.naming import Template

__all__ = ["COLUMNS", "BadLine", "Manifest", "read_manifest"]

COLUMNS = ("url", "name", "checksum", "size", "mirrors", "headers")
"""The kinds of content for which a column can be named."""

_FINGERPRINT_BYTES = 1 << 20

BadLine = Callable[[int, str], object]
"""Called for each line that cannot be used, with its number (from 1) and what is wrong with it."""


def read_manifest(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    input_format: str = "",
    base_url: str = "",
    columns: Mapping[str, str] | None = None,
    name: str = "",
    directory: str = "",
    strict: bool = False,
    on_bad_line: BadLine | None = None,
    options: Mapping[str, Any] | None = None,
) -> Manifest:
    """Read a manifest: returns an iterator of :class:`ManifestItem`, which reads lazily.

    ``source`` is a path, ``-`` for standard input, an http(s) URL, or a file that is open in binary mode. It may be
    compressed with gzip, bzip2, xz or zstd (which needs ``rangefetch[zstd]`` before Python 3.14). ``input_format`` is
    one of the formats in the guide "Manifests"; by default it is detected from the content. ``base_url`` is the base of
    relative URLs, and of names without a URL (default: the manifest's own URL). ``columns`` maps ``url``, ``name``,
    ``checksum``, ``size``, ``mirrors`` and ``headers`` to the names of a table's columns; an empty name means not to
    use any column for it. ``name`` is a template (``{host}/{path}``) for files that the manifest does not name.
    ``directory`` is where files will be saved, for formats that may state it. ``options`` are used to request a
    manifest at a URL (``proxy``, ``headers``, ``ca_file`` and so on); those that apply to files are ignored.

    A line that cannot be used is skipped, and ``on_bad_line`` is called with its number and what is wrong with it;
    without ``on_bad_line``, a warning is logged. With ``strict``, such a line raises ``ManifestError``. So does a
    manifest that cannot be read, is empty, lacks a column or has no usable line. ``ManifestError`` is a ``ValueError``;
    its message names the manifest and the line. Invalid arguments raise ``ValueError`` or ``TypeError``.

    URLs, names, digests and sizes are checked. Names are treated like names from servers: they stay below the directory
    that files are saved into, and no file is hidden.
    """
    for kind in columns or {}:
        if kind not in COLUMNS:
            raise ValueError(f"columns: {kind!r} is not one of {', '.join(COLUMNS)}")
    if base_url:
        check_url(base_url, "base_url", HTTP)
        base_url = base_url if base_url.endswith("/") else f"{base_url}/"
    template = None
    if name:
        with no_fork:
            from rangefetch.manifests.naming import Template

        template = Template(name)
    asked = Asked(dict(columns or {}), directory)
    known = formats.find(input_format) if input_format else None
    opened = Source(source, base_url, options)
    try:
        look = formats.look_at(opened, asked)
        return Manifest(look, known or formats.recognise(look), asked, template, strict, on_bad_line)
    except BaseException:
        opened.close()
        raise


class Manifest:
    """An iterator of a manifest's items. ``format`` is the name of its format.

    ``rows`` and ``mistakes`` count the good and bad entries read so far. The file is closed at the end of the manifest,
    or earlier by ``close``.
    """

    def __init__(
        self,
        look: Look,
        read_as: formats.Format,
        asked: Asked,
        template: Template | None,
        strict: bool,
        on_bad_line: BadLine | None,
    ) -> None:
        self.format = read_as.NAME
        self.shown = look.source.shown
        self.is_regular = look.source.is_regular
        self.rows = self.mistakes = 0
        self._source = look.source
        self._is_by_line = getattr(read_as, "A_LINE_EACH", False)
        self._read = read_as.read(look, asked)
        self._template = template
        self._strict = strict
        self._on_bad_line = on_bad_line
        self._items: Generator[ManifestItem] = self._checked()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ManifestItem:
        return next(self._items)

    def fingerprint(self) -> bytes:
        """The file's length, beginning and end, by which it can be told from others; b"" if it is not a file."""
        path = self._source.named
        if path is None:
            return b""
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            head = file.read(_FINGERPRINT_BYTES)
            file.seek(max(0, size - _FINGERPRINT_BYTES))
            return f"{size} ".encode() + head + file.read(_FINGERPRINT_BYTES)

    def is_longer_than(self, lines: int) -> bool:
        """Whether it is a file with one line per item and more than ``lines`` lines. False also if counting would take
        too long."""
        path = self._source.named
        if path is None or not self._is_by_line:
            return False
        with Source(path, "") as again:
            count = again.counts_lines(lines + 1)
        return count is not None and count > lines

    def close(self) -> None:
        """Close the file. The iterator is exhausted then."""
        self._items.close()
        self._source.close()

    def _checked(self) -> Generator[ManifestItem]:
        index = 0
        base_url = self._source.base_url
        template = self._template
        try:
            for found in self._read:
                if isinstance(found, Mistake):
                    self._bad(found)
                else:
                    try:
                        item = item_of(found, index, base_url)
                        if template is not None and (not item.path or item.path.endswith("/")):
                            item = _named(item, template)
                    except ValueError as error:
                        self._bad(Mistake(found.line, str(error)))
                    else:
                        self.rows += 1
                        yield item
                index += 1
        finally:
            self._source.close()
        if not self.rows:
            what = "no line in it can be used" if self.mistakes else "there is nothing in it"
            raise ManifestError(f"{self.shown}: {what}")

    def _bad(self, mistake: Mistake) -> None:
        self.mistakes += 1
        what = mask_text(mistake.what)
        if self._strict:
            raise ManifestError(f"{self.shown}:{mistake.line}: {what}")
        if self._on_bad_line is not None:
            self._on_bad_line(mistake.line, what)
        else:
            _log.warning("%s:%d: %s", self.shown, mistake.line, what)


def _named(item: ManifestItem, template: Template) -> ManifestItem:
    return ManifestItem(
        item.url,
        item.path + template.name(item),
        item.checksum,
        item.size,
        item.mirrors,
        item.options,
        item.line,
        item.index,
        item.columns,
    )
