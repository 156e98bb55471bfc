"""Croissant, MLCommons' descriptions of data sets: the files of its ``distribution`` that are not in another file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, strongest
from rangefetch.manifests.members import each_of, list_in, text_in

__all__ = ["NAME", "read", "recognises"]

NAME = "croissant"

_BYTES = re.compile(r"(\d{1,20})(?:\s*B)?")
# Places that are not files: a repository is fetched with git.
_NOT_A_FILE = ("git+", "application/x-git")


def _is_file(value: object) -> bool:
    kinds = value.get("@type") if isinstance(value, Mapping) else None
    return any(str(kind).endswith("FileObject") for kind in (kinds if isinstance(kinds, list) else [kinds]))


def recognises(look: Look) -> bool:
    """Whether it is a data set that is distributed in files."""
    return any(_is_file(value) for value in list_in(look.document, "distribution"))


def _row(number: int, value: Mapping[str, Any]) -> Row | None:
    if not _is_file(value) or value.get("containedIn"):
        return None
    url = text_in(value, "contentUrl")
    if not url:
        raise ValueError("it has no contentUrl")
    if text_in(value, "encodingFormat").startswith(_NOT_A_FILE):
        raise ValueError(f"{url} is a repository, not a file")
    # In practice the name is often a word for it; that of a file has its extension.
    name = text_in(value, "name")
    size = _BYTES.fullmatch(str(value.get("contentSize", "")).strip())
    digests = {algorithm: value.get(algorithm) for algorithm in ("sha256", "md5")}
    return Row(number, url, name if "." in name else "", strongest(digests), size[1] if size else None)


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """The files."""
    return each_of(list_in(look.document, "distribution"), _row, "distribution")
