"""Mirrors that a server offers in its response: ``Link: <URL>; rel=duplicate`` (RFC 6249).

Only a digest of the whole file shows that such a mirror has the same file, so without one it is not used (section 5).
The user did not choose it, so it is treated like the target of a redirect to another origin.
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
"""How many offers of one response are used."""
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
    """The usable mirrors offered in a response from ``answered_by``, in the order of their priority. The names in
    ``headers`` are in lower case.
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
        # Another URL on the same server would not help.
        if origin != origin_of(answered_by) and (options.allow_downgrade or not is_downgrade):
            found[origin] = min(found.get(origin, (_LAST + 1, "")), (_priority(link), url), key=lambda each: each[0])
    return [url for _, url in sorted(found.values(), key=lambda each: each[0])[:MOST_OFFERED]]


def names_duplicates(headers: Mapping[str, str]) -> bool:
    """Whether the response is from a server that follows RFC 6249: its ``Digest`` is then that of the whole file, even
    in a response with only a part of it (section 6).
    """
    return "link" in headers and any("duplicate" in each.relations for each in parse_links(headers["link"], ""))


def _priority(link: Link) -> int:
    """The priority of a link, from 1 (highest); a link without one comes last."""
    stated = link.parameters.get("pri", "")
    return int(stated) if stated.isascii() and stated.isdigit() and 1 <= len(stated) <= len(str(_LAST)) else _LAST


def as_offered(options: DownloadOptions) -> DownloadOptions:
    """The options for a mirror that a server has offered: without the headers, cookies, credentials and client
    certificate that the user gave, and only connecting to addresses that redirects may lead to.
    """
    changes = dict(_SECRETS)
    if options.private_addresses == "named":
        changes["private_addresses"] = "refuse"
    return DownloadOptions.of(options, **changes)
