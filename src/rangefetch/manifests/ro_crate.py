"""RO-Crate (``ro-crate-metadata.json``): files with a URL of their own, or relative to the crate's URL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, strongest
from rangefetch.manifests.members import each_of, list_in, text_in

__all__ = ["NAME", "read", "recognises"]

NAME = "ro-crate"

_DESCRIPTOR = re.compile(r"(?:.*/)?ro-crate-metadata\.json(?:ld)?")
_BYTES = re.compile(r"(\d{1,20})(?:\s*(?:B|bytes?))?", re.IGNORECASE)


def recognises(look: Look) -> bool:
    """Whether it contains the descriptor of a crate."""
    return any(_DESCRIPTOR.fullmatch(text_in(entity, "@id")) for entity in list_in(look.document, "@graph"))


def _is_file(entity: Mapping[str, Any]) -> bool:
    kinds = entity.get("@type")
    return "File" in (kinds if isinstance(kinds, list) else [kinds])


def _row(number: int, entity: Mapping[str, Any]) -> Row | None:
    identifier = text_in(entity, "@id")
    if not _is_file(entity) or _DESCRIPTOR.fullmatch(identifier):
        return None
    content = entity.get("contentUrl")
    if isinstance(content, list) and content:
        content = content[0]
    if isinstance(content, Mapping):
        content = text_in(content, "@id")
    url = content if isinstance(content, str) and content else identifier
    size = _BYTES.fullmatch(str(entity.get("contentSize", "")).strip())
    digests = {algorithm: entity.get(algorithm) for algorithm in ("sha512", "sha256", "sha1", "md5")}
    # An absolute @id refers to a file elsewhere, a relative one is a path in the crate (RO-Crate 1.2, "Data Entities").
    name = "" if "://" in identifier or identifier.startswith("#") else unquote(identifier)
    return Row(number, url, name.removeprefix("./"), strongest(digests), size[1] if size else None)


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files. ``line`` is the number of the entity."""
    return each_of(list_in(look.document, "@graph"), _row, "entity")
