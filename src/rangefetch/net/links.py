"""The ``Link`` field of a response: what else there is, and where (RFC 8288)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urljoin

__all__ = ["Link", "parse_links"]

_MOST = 256  # of one response
_TARGET = re.compile(r"[\s,]*<([^<>\s]*)>")
_PARAMETER = re.compile(r"\s*;\s*([!#$%&'*+.^_`|~A-Za-z0-9-]+)\s*(?:=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;,\"]+)))?")


class Link(NamedTuple):
    """One link: its target as an absolute URL, its relations, and what else is said of it, by lower-case name."""

    url: str
    relations: frozenset[str]
    parameters: Mapping[str, str]


def parse_links(value: str, base_url: str) -> list[Link]:
    """The links in a field's value, whose relative targets are relative to ``base_url``. What is malformed ends it."""
    links: list[Link] = []
    at = 0
    while len(links) < _MOST and (target := _TARGET.match(value, at)):
        at = target.end()
        parameters: dict[str, str] = {}
        while (found := _PARAMETER.match(value, at)) is not None:
            at = found.end()
            quoted, plain = found[2], found[3]
            text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain or ""
            parameters.setdefault(found[1].lower(), text)  # of a repeated one the first counts (section 3.3)
        try:
            url = urljoin(base_url, target[1])
        except ValueError:
            continue
        # A link from something else than this response's own resource is none of ours (section 3.2).
        if "anchor" not in parameters:
            links.append(Link(url, frozenset(parameters.get("rel", "").lower().split()), parameters))
    return links
