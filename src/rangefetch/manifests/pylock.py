"""``pylock.toml`` (PEP 751): the wheels, sdists and archives of all locked packages."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, strongest
from rangefetch.manifests.members import each_of, list_in, mapping_in, text_in
from rangefetch.manifests.opening import ManifestError

__all__ = ["NAME", "read", "recognises"]

NAME = "pylock"

_VERSION = re.compile(r"lock-version\s*=")


def recognises(look: Look) -> bool:
    """Whether it has a ``lock-version``."""
    return any(_VERSION.match(line) for line in look.lines) and not look.first.startswith(("{", "["))


def _files(package: object) -> Iterator[object]:
    found = [*list_in(package, "wheels"), *list_in(package, "sdist"), *list_in(package, "archive")]
    if not found:
        name = text_in(package, "name") or "a package"
        yield {"mistake": f"{name} has no wheel, sdist or archive"}
    yield from found


def _row(number: int, value: Mapping[str, Any]) -> Row:
    if mistake := text_in(value, "mistake"):
        raise ValueError(mistake)
    url = text_in(value, "url") or text_in(value, "path")
    size = value.get("size")
    return Row(number, url, text_in(value, "name"), strongest(mapping_in(value, "hashes")), size)


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files. ``line`` is the number of the file. Raises ``ManifestError``."""
    try:
        document = tomllib.loads(look.source.document().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{look.source.shown}: this is not TOML: {error}") from None
    files = (file for package in list_in(document, "packages") for file in _files(package))
    return each_of(files, _row, "file")
