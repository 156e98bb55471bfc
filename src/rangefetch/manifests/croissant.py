"""Croissant, MLCommons' format for describing data sets: the files in ``distribution``, except those inside others."""

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
# Repositories, which are not files but are fetched with git.
_NOT_A_FILE = ("git+", "application/x-git")


def _is_file(value: object) -> bool:
    kinds = value.get("@type") if isinstance(value, Mapping) else None
    return any(str(kind).endswith("FileObject") for kind in (kinds if isinstance(kinds, list) else [kinds]))


def recognises(look: Look) -> bool:
    """Whether it describes a data set that is distributed as files."""
    return any(_is_file(value) for value in list_in(look.document, "distribution"))


def _row(number: int, value: Mapping[str, Any]) -> Row | None:
    if not _is_file(value) or value.get("containedIn"):
        return None
    url = text_in(value, "contentUrl")
    if not url:
        raise ValueError("it has no contentUrl")
    if text_in(value, "encodingFormat").startswith(_NOT_A_FILE):
        raise ValueError(f"{url} is a repository, not a file")
    # In practice the name is often only a label. It is a file name if it has an extension.
    name = text_in(value, "name")
    size = _BYTES.fullmatch(str(value.get("contentSize", "")).strip())
    digests = {algorithm: value.get(algorithm) for algorithm in ("sha256", "md5")}
    return Row(number, url, name if "." in name else "", strongest(digests), size[1] if size else None)


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files."""
    return each_of(list_in(look.document, "distribution"), _row, "distribution")
