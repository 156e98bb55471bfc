"""Mirrors that a server offers in its answer: ``Link: <URL>; rel=duplicate`` (RFC 6249).

Nothing but the digest of the whole file ties such a mirror to it, so without one there is none (section 5). It was not
the user who chose it: it is treated as the target of a redirect to another origin is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from rangefetch.checks import HTTP, check_url
from rangefetch.net.credentials import split_userinfo
from rangefetch.net.links import Link, parse_links
from rangefetch.net.sources import origin_of
from rangefetch.options import DownloadOptions

__all__ = ["MOST_OFFERED", "as_offered", "names_duplicates", "offered_in"]

MOST_OFFERED = 4
"""Offers of one answer that are used."""
_LAST = 999_999  # the lowest priority (section 3.1)
_SECRETS: Mapping[str, Any] = {
    "headers": {},
    "cookies": "",
    "netrc": False,
    "auth": None,
    "bearer_file": "",
    "location_trusted": (),
    "private_key": "",
    "certificate": "",
}


def offered_in(headers: Mapping[str, str], answered_by: str, options: DownloadOptions) -> list[str]:
    """The mirrors that the answer of the URL ``answered_by`` offers and that may be asked, those first that it would
    have asked first. ``headers`` are by lower-case name.
    """
    if "link" not in headers:
        return []
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for link in parse_links(headers["link"], answered_by):
        if "duplicate" not in link.relations:
            continue
        try:
            url, _ = split_userinfo(check_url(link.url, "Link", HTTP))
            origin = origin_of(url)
        except (TypeError, ValueError):
            continue
        is_downgrade = urlsplit(answered_by).scheme == "https" and origin[0] != "https"
        # A second URL at a server that is asked already is no help to it.
        if origin != origin_of(answered_by) and (options.allow_downgrade or not is_downgrade):
            found[origin] = min(found.get(origin, (_LAST + 1, "")), (_priority(link), url), key=lambda each: each[0])
    return [url for _, url in sorted(found.values(), key=lambda each: each[0])[:MOST_OFFERED]]


def names_duplicates(headers: Mapping[str, str]) -> bool:
    """Whether the answer is of a server that follows RFC 6249: its ``Digest`` is of the whole file, in whatever part of
    it (section 6)."""
    return "link" in headers and any("duplicate" in each.relations for each in parse_links(headers["link"], ""))


def _priority(link: Link) -> int:
    """From 1, the highest; what has none comes last."""
    stated = link.parameters.get("pri", "")
    return int(stated) if stated.isascii() and stated.isdigit() and 1 <= len(stated) <= len(str(_LAST)) else _LAST


def as_offered(options: DownloadOptions) -> DownloadOptions:
    """How a mirror is asked that a server has offered: with nothing of what the user gave for hosts that they named,
    and at addresses to which redirects may lead."""
    changes = dict(_SECRETS)
    if options.private_addresses == "named":
        changes["private_addresses"] = "refuse"
    return DownloadOptions.of(options, **changes)
