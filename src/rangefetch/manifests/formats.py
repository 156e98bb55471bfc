"""The manifest formats, and how they are recognised.

A format is a module, or another object, with ``NAME``, ``recognises`` and ``read`` (:class:`Format`). Other packages
can add formats with the entry point ``rangefetch.manifests``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from rangefetch import records
from rangefetch.importing import no_fork
from rangefetch.logs import log as _log
from rangefetch.manifests.item import Mistake, Row
from rangefetch.manifests.opening import ManifestError, Source

__all__ = ["NAMES", "Asked", "Format", "Look", "find", "look_at", "recognise"]


@records.dataclass(frozen=True, slots=True)
class Asked:
    """The user's settings for a manifest.

    ``columns`` maps ``url``, ``name``, ``checksum``, ``size``, ``mirrors`` and ``headers`` to the names of the columns
    that contain them; an empty name means that no column is to be used. ``directory`` is the absolute output directory,
    if it is known.
    """

    columns: Mapping[str, str] = records.field(default_factory=dict)
    directory: str = ""


@records.dataclass(slots=True)
class Look:
    """The beginning of a manifest: ``head`` as bytes, and its complete ``lines`` as text. If the whole manifest is one
    JSON document, ``document`` is its parsed content, otherwise None.
    """

    source: Source
    head: bytes
    lines: list[str]
    document: Any = None
    asked: Asked = records.field(default_factory=Asked)

    @property
    def first(self) -> str:
        """The first line that is neither blank nor a comment."""
        return next((line for line in self.told), "")

    @property
    def told(self) -> list[str]:
        """The lines that are neither blank nor comments."""
        return [line for line in self.lines if line.strip() and not line.lstrip().startswith("#")]


class Format(Protocol):
    """A manifest format."""

    NAME: str
    """The name for ``--input-format``. A format with ``A_LINE_EACH`` set has one line per file."""

    def recognises(self, look: Look) -> bool:
        """Whether the manifest is in this format, judging by its beginning."""
        ...

    def read(self, look: Look, asked: Asked) -> Iterator[Row | Mistake]:
        """Yield the listed files lazily. Raises ``ManifestError`` if the manifest as a whole cannot be used."""
        ...


NAMES: dict[str, str] = {
    "parquet": "parquet",
    "metalink": "metalink",
    "tsv-http-data": "tsv_http_data",
    "conda-explicit": "conda",
    "pylock": "pylock",
    "pip-report": "pip_report",
    "huggingface": "huggingface",
    "zenodo": "zenodo",
    "stac": "stac",
    "ro-crate": "ro_crate",
    "croissant": "croissant",
    "datapackage": "datapackage",
    "json": "json_rows",
    "jsonl": "json_lines",
    "bagit": "bagit",
    "checksums": "checksums",
    "pooch": "pooch",
    "common-crawl": "common_crawl",
    "aria2": "aria2",
    "rclone": "rclone",
    "csv": "csv_rows",
    "tsv": "tsv_rows",
    "urls": "urls",
}
"""The built-in formats and their modules, in the order in which they are tried: the more specific ones first."""

# A URL without any character that separates fields in one of the formats.
_ONLY_A_URL = re.compile(r"https?://[^\s,;|\"']+")
_WEB_PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html)\b", re.IGNORECASE)
_GROUP = "rangefetch.manifests"


def find(name: str) -> Format:
    """The format with this name. Raises ``ManifestError``."""
    if name in NAMES:
        return _ours(name)
    others = _others()
    if name not in others:
        raise ManifestError(f"{name!r} is not a manifest format; the formats are {', '.join([*NAMES, *others])}")
    return others[name]


def recognise(look: Look) -> Format:
    """The format of a manifest; a list of URLs if it looks like nothing else. Raises ``ManifestError`` for a file that
    is no list at all, of which every line would be bad.

    If every line is a URL, the most common case, no other format's module is loaded.
    """
    if _is_nothing_but_urls(look):
        return _ours("urls")
    for name in NAMES:
        if name != "urls" and (found := _ours(name)).recognises(look):
            return found
    for other in _others().values():
        if other.recognises(look):
            return other
    if what := _is_no_list(look.head):
        raise ManifestError(f"{look.source.shown}: {what}")
    return _ours("urls")


def _is_no_list(head: bytes) -> str:
    """Why the file cannot be a list; "" if it may be one."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "it is in UTF-16; convert it to UTF-8"
    if b"\0" in head:
        return "it is neither text nor in a known binary format"
    if _WEB_PAGE.match(head):
        return "it is a web page, not a list"
    return ""


def look_at(source: Source, asked: Asked) -> Look:
    """The beginning of a manifest. Raises ``ManifestError``."""
    text = source.head.decode("utf-8-sig", errors="replace")
    lines = text.splitlines()
    if len(source.head) >= 1 << 16 and lines and not text.endswith("\n"):
        lines.pop()  # it may be incomplete
    look = Look(source, source.head, lines, asked=asked)
    if text.lstrip()[:1] in ("{", "[") and not _is_json_lines(look):
        look.document = parse_json(source)
    return look


def _is_nothing_but_urls(look: Look) -> bool:
    """Whether each line at the beginning is a URL and nothing else, with no indented lines (options) and no fields."""
    lines = [line for line in look.lines if line and not line.startswith("#")]
    return bool(lines) and all(map(_ONLY_A_URL.fullmatch, lines))


def _is_json_lines(look: Look) -> bool:
    """Whether each line is a separate JSON object, judging by the first lines."""
    told = [line for line in look.lines if line.strip()]
    if not told or not told[0].lstrip().startswith("{"):
        return False
    with no_fork:
        import json

    try:
        first = json.loads(told[0])
    except (ValueError, RecursionError):
        # A line that looks like a complete object is a bad line rather than the beginning of a document.
        return len(told) > 1 and told[0].rstrip().endswith("}") and told[1].lstrip().startswith("{")
    if len(told) > 1 or not look.source.is_regular:
        return True
    return isinstance(first, dict) and all(not isinstance(value, list | dict) for value in first.values())


def parse_json(source: Source) -> Any:
    """Parse the manifest as one JSON document. Raises ``ManifestError``."""
    with no_fork:
        import json

    try:
        return json.loads(source.document())
    except RecursionError:
        raise ManifestError(f"{source.shown}: this JSON is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ManifestError(f"{source.shown}:{error.lineno}: this is not JSON: {error.msg}") from None
    except ValueError as error:  # not UTF-8, or a number of too many digits
        raise ManifestError(f"{source.shown}: this is not JSON: {error}") from None


def _ours(name: str) -> Format:
    found: Any = importlib.import_module(f"rangefetch.manifests.{NAMES[name]}")
    return found  # type: ignore[no-any-return]  # a module that has the methods of Format


def _others() -> dict[str, Format]:
    """The formats of other packages, by name. One that cannot be loaded is logged and skipped."""
    with no_fork:
        from importlib.metadata import entry_points

    found: dict[str, Format] = {}
    for point in entry_points(group=_GROUP):
        try:
            found[point.name] = point.load()
        except Exception as error:
            _log.warning("cannot load the manifest format %s: %s", point.name, error)
    return found
