"""Finds out what the columns of a table contain, by their usual names or the user's choice, and reads its rows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rangefetch.manifests import ena
from rangefetch.manifests.formats import Asked
from rangefetch.manifests.item import Mistake, Row, digest_of, strongest
from rangefetch.manifests.opening import ManifestError

__all__ = ["OPTION_OF", "Plan", "has_urls"]

_USUAL: dict[str, tuple[str, ...]] = {
    "url": (
        *("url", "uri", "href", "link", "downloadurl", "downloadlink", "fileurl", "contenturl", "sourceurl"),
        *("imageurl", "dataurl", "mediaurl", "accessurl", "httpurl", "httpsurl", "urls"),
    ),
    "name": (
        *("filename", "filepath", "path", "out", "output", "outputpath", "localpath", "targetpath", "destination"),
        *("dest", "file", "name"),
    ),
    "checksum": ("checksum", "digest", "hash"),
    "size": ("size", "bytes", "filesize", "sizebytes", "sizeinbytes", "filesizebytes", "length", "contentlength"),
    "mirrors": ("mirrors", "mirror", "mirrorurls", "alternateurls", "alternatives"),
    "headers": ("headers", "header", "httpheaders", "requestheaders"),
}
"""The names by which columns are recognised, without separators between words. The first that is present is used."""

_DIGESTS = {
    **dict.fromkeys(("sha256", "sha256sum", "sha256hash", "checksumsha256"), "sha-256"),
    **dict.fromkeys(("sha512", "sha512sum"), "sha-512"),
    **dict.fromkeys(("sha384", "sha384sum"), "sha-384"),
    **dict.fromkeys(("sha1", "sha1sum"), "sha-1"),
    **dict.fromkeys(("md5", "md5sum", "md5hash", "checksummd5"), "md5"),
    **dict.fromkeys(("blake2b", "b2sum"), "blake2b"),
}
OPTION_OF = {kind: f"--{kind}-column" for kind in _USUAL}

_BETWEEN_WORDS = re.compile(r"[\s_.-]+")
_BETWEEN_URLS = re.compile(r"\s+|[;|,]\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)")


def _folded(name: str) -> str:
    return _BETWEEN_WORDS.sub("", name.strip().lower())


def has_urls(names: Sequence[str], asked: Asked) -> bool:
    """Whether one of the columns contains URLs, judging by the names."""
    if asked.columns.get("url"):
        return asked.columns["url"] in names
    folded = {_folded(name) for name in names}
    return not folded.isdisjoint(_USUAL["url"]) or any(name in ena.COLUMNS for name in names)


class Plan:
    """What the columns of a table contain. Raises ``ManifestError`` if none has URLs, or if one that the user named is
    missing."""

    def __init__(self, names: Sequence[str], asked: Asked, shown: str) -> None:
        folded: dict[str, str] = {}
        for name in names:
            folded.setdefault(_folded(name), name)
        self._of: dict[str, str] = {}
        for kind, usual in _USUAL.items():
            if kind in asked.columns:
                name = asked.columns[kind]
                if name and name not in names:
                    raise ManifestError(
                        f"{shown}: there is no column {name!r} ({OPTION_OF[kind]}); the columns are {_listed(names)}"
                    )
            else:
                name = next((folded[each] for each in usual if each in folded), "")
            if name:
                self._of[kind] = name
        self._ena = ena.choose(names, self._of.get("url", ""))
        if not self._ena and "url" not in self._of:
            raise ManifestError(
                f"{shown}: cannot tell which column has the URLs; name it with {OPTION_OF['url']}; "
                f"the columns are {_listed(names)}"
            )
        self._digests: dict[str, str] = {}
        if "checksum" not in asked.columns:
            self._digests = {folded[each]: name for each, name in _DIGESTS.items() if each in folded}
        # If the user's choice is a column called "md5" or the like, its digests are of that kind.
        self._algorithm = _DIGESTS.get(_folded(self._of.get("checksum", "")), "")

    def rows(
        self, line: int, values: Mapping[str, Any], columns: Mapping[str, str] | None = None
    ) -> Iterator[Row | Mistake]:
        """Yield the files of one row of the table: ``values`` are its values by column, ``columns`` these as text."""
        try:
            if columns is None:
                columns = {name: _text(value) for name, value in values.items()}
            if self._ena:
                yield from ena.rows(self._ena, line, columns)
            else:
                yield self._row(line, values, columns)
        except ValueError as error:
            yield Mistake(line, str(error))

    def _row(self, line: int, values: Mapping[str, Any], columns: Mapping[str, str]) -> Row:
        of = self._of
        url = columns.get(of["url"], "").strip()
        mirrors = _urls_in(values.get(of["mirrors"])) if "mirrors" in of else []
        given = values.get(of["url"])
        if isinstance(given, list):
            url, *more = _urls_in(given) or [""]
            mirrors = more + mirrors
        size = values.get(of["size"]) if "size" in of else None
        return Row(
            line,
            url,
            columns.get(of["name"], "").strip() if "name" in of else "",
            self._checksum(columns),
            size,
            mirrors,
            _headers_in(values.get(of["headers"])) if "headers" in of else (),
            columns=columns,
        )

    def _checksum(self, columns: Mapping[str, str]) -> str:
        if "checksum" in self._of and (text := columns.get(self._of["checksum"], "")):
            return digest_of(text, self._algorithm)
        if not self._digests:
            return ""
        digests: dict[str, str] = {}
        for column, algorithm in self._digests.items():
            if found := digest_of(columns.get(column, ""), algorithm):
                digests[algorithm] = found.partition("=")[2]
        return strongest(digests)


def _listed(names: Sequence[str]) -> str:
    most = 20
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name[:60]) for name in names[:most]) + more


def _text(value: object) -> str:
    """The value as text, as it appears in names made from a template."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return json.dumps(value, default=str) if isinstance(value, bool | list | dict) else str(value)


def _urls_in(value: object) -> list[str]:
    if isinstance(value, list):
        if not all(isinstance(each, str) for each in value):
            raise ValueError("the list of URLs has an element that is not a string")
        return value
    return [url for url in _BETWEEN_URLS.split(_text(value).strip()) if url]


def _headers_in(value: object) -> Mapping[str, str] | Sequence[str]:
    """Header fields from an object or a list of lines, or from the text of either."""
    if isinstance(value, str):
        if value.lstrip()[:1] in ("{", "["):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise ValueError("the headers begin like JSON but are not valid JSON") from None
        else:
            return [line for line in value.splitlines() if line.strip()]
    if isinstance(value, dict):
        return {str(name): _text(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_text(line) for line in value]
    if value is None:
        return ()
    raise ValueError(f"{value!r} is not a mapping or list of headers")
