"""A JSON document that is a list of URLs, a list of objects whose members are the columns, or one such object."""

from __future__ import annotations

from collections.abc import Iterator

from rangefetch.manifests.formats import Asked, Look, parse_json
from rangefetch.manifests.item import Mistake, Row
from rangefetch.manifests.json_lines import Plans

__all__ = ["NAME", "read", "recognises"]

NAME = "json"


def recognises(look: Look) -> bool:
    """Whether it is a JSON document; formats that are more specific have been tried before."""
    return look.document is not None


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files of the objects. ``line`` is the number of the object."""
    document = look.document if look.document is not None else parse_json(look.source)
    plans = Plans(asked, look.source.shown)
    for number, value in enumerate(document if isinstance(document, list) else [document], start=1):
        yield from plans.rows(number, value)
