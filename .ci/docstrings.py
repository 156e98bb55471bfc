"""An extension for griffe, which reads docstrings for the site: converts their reStructuredText to Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe

# "Title:" with an indented text below it.
_ITEM = re.compile(r"^(?P<title>[A-Z][^\n]*):\n(?P<text>(?: {4}[^\n]+\n?)+)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Converts lists of titled texts, literal blocks and references."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            text = re.sub(r":(?:meth|func|class|mod):`\.?([\w.]+)`", r"``\1``", obj.docstring.value)
            text = text.replace("\n\n::\n\n", "\n\n")
            obj.docstring.value = _ITEM.sub(lambda item: f"- **{item['title']}.** {item['text'].strip()}\n", text)
