"""Data packages (``datapackage.json``; specs.frictionlessdata.io): the files of their resources."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, digest_of, url_below
from rangefetch.manifests.members import list_in, text_in

__all__ = ["NAME", "read", "recognises"]

NAME = "datapackage"


def recognises(look: Look) -> bool:
    """Whether it has resources, each with a path or its data."""
    resources = list_in(look.document, "resources")
    return bool(resources) and all(
        isinstance(each, Mapping) and ("path" in each or "data" in each or "url" in each) for each in resources
    )


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files. ``line`` is the number of the resource."""
    base_url = look.source.base_url
    for number, resource in enumerate(list_in(look.document, "resources"), start=1):
        given = resource.get("path") or resource.get("url") or []
        paths = given if isinstance(given, list) else [given]
        # If there are several parts, size and digest are those of all parts together.
        is_whole = len(paths) == 1
        for path in paths:
            if not isinstance(path, str):
                yield Mistake(number, f"resource {number} has a path that is not text")
                continue
            is_url = "://" in path
            url = path if is_url else url_below(base_url, path)
            if not url:
                yield Mistake(number, f"{path!r} is a path, not a URL; use --base-url to say where it is")
                continue
            try:
                checksum = digest_of(text_in(resource, "hash"))
            except ValueError as error:
                yield Mistake(number, str(error))
                continue
            size = resource.get("bytes") if is_whole else None
            yield Row(number, url, "" if is_url else path, checksum if is_whole else "", size)
