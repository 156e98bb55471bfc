"""pip's installation report (``pip install --dry-run --report``; pip documentation, "Installation Report")."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, strongest
from rangefetch.manifests.members import each_of, list_in, mapping_in, text_in

__all__ = ["NAME", "read", "recognises"]

NAME = "pip-report"


def recognises(look: Look) -> bool:
    """Whether it is an installation report."""
    document = look.document
    return isinstance(document, Mapping) and "pip_version" in document and isinstance(document.get("install"), list)


def _row(number: int, value: Mapping[str, Any]) -> Row:
    info = mapping_in(value, "download_info")
    archive = info.get("archive_info")
    url = text_in(info, "url")
    if not isinstance(archive, Mapping) or not url:
        name = text_in(mapping_in(value, "metadata"), "name")
        raise ValueError(f"{name or 'it'} is not an archive that can be fetched")
    digests = dict(mapping_in(archive, "hashes"))
    algorithm, _, digest = text_in(archive, "hash").partition("=")
    digests.setdefault(algorithm, digest)
    return Row(number, url, checksum=strongest(digests))


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the archives that would be installed."""
    return each_of(list_in(look.document, "install"), _row, "entry")
