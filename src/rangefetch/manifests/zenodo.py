"""Records of Zenodo and other InvenioRDM repositories, as their API returns them (``/api/records/ID``)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, digest_of
from rangefetch.manifests.members import each_of, mapping_in, text_in

__all__ = ["NAME", "read", "recognises"]

NAME = "zenodo"

# The URL of a file's description; the file itself is at ``/content`` below it.
_DESCRIPTION = re.compile(r"https?://[^/]+/api/records/\d+/files/[^/?]+")


def _files(document: object) -> list[Any] | None:
    """The files of a record, in the older or the newer form, or of a separate list of a record's files."""
    if not isinstance(document, Mapping):
        return None
    files = document.get("files") if "files" in document else document if "entries" in document else None
    if isinstance(files, Mapping):
        entries = files.get("entries")
        files = list(entries.values()) if isinstance(entries, Mapping) else entries
    return files if isinstance(files, list) else None


def recognises(look: Look) -> bool:
    """Whether it has a record's list of files."""
    files = _files(look.document)
    return bool(files) and all(
        isinstance(each, Mapping) and text_in(each, "key", "filename") and isinstance(each.get("links"), Mapping)
        for each in files or ()
    )


def _row(number: int, value: Mapping[str, Any]) -> Row:
    links = mapping_in(value, "links")
    url = text_in(links, "content", "download", "self")
    if _DESCRIPTION.fullmatch(url):
        url += "/content"
    size = value.get("size", value.get("filesize"))
    checksum = digest_of(text_in(value, "checksum"), "md5")
    return Row(number, url, text_in(value, "key", "filename"), checksum, size)


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files of the record."""
    return each_of(_files(look.document) or (), _row, "file")
