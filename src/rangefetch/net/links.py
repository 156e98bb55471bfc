"""Parsing of the ``Link`` header field (RFC 8288)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urljoin

__all__ = ["Link", "parse_links"]

_MOST = 256  # links per response
_TARGET = re.compile(r"[\s,]*<([^<>\s]*)>")
_PARAMETER = re.compile(r"\s*;\s*([!#$%&'*+.^_`|~A-Za-z0-9-]+)\s*(?:=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;,\"]+)))?")


class Link(NamedTuple):
    """One link: its target as an absolute URL, its relations, and all its parameters by lower-case name."""

    url: str
    relations: frozenset[str]
    parameters: Mapping[str, str]


def parse_links(value: str, base_url: str) -> list[Link]:
    """The links in a field's value, with targets resolved against ``base_url``. Parsing ends at a malformed link."""
    links: list[Link] = []
    at = 0
    while len(links) < _MOST and (target := _TARGET.match(value, at)):
        at = target.end()
        parameters: dict[str, str] = {}
        while (found := _PARAMETER.match(value, at)) is not None:
            at = found.end()
            quoted, plain = found[2], found[3]
            text = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain or ""
            parameters.setdefault(found[1].lower(), text)  # of a repeated parameter, the first counts (section 3.3)
        try:
            url = urljoin(base_url, target[1])
        except ValueError:
            continue
        # Ignore links whose context is another resource than that of this response (section 3.2).
        if "anchor" not in parameters:
            links.append(Link(url, frozenset(parameters.get("rel", "").lower().split()), parameters))
    return links
