"""Rewrites GitHub URLs for mirrors. Pure text, no network.

GitHub is slow or unreachable in some places, and mirrors serve its files under other URLs. A mirror is given as a
rewrite rule, ``PREFIX`` or ``FROM=TO``: a prefix is put before the whole URL
(``https://mirror.example/https://github.com/…``), and a pair replaces the start of the URL. There are no default rules,
since users must decide whom they trust with downloads.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

__all__ = ["GITHUB_HOSTS", "rewrite"]

GITHUB_HOSTS = frozenset(
    {
        "github.com",
        "codeload.github.com",
        "gist.github.com",
        "gist.githubusercontent.com",
        "objects.githubusercontent.com",
        "raw.githubusercontent.com",
    }
)
"""The hosts whose URLs are rewritten."""


def rewrite(url: str, rules: Sequence[str]) -> list[str]:
    """The URLs under which mirrors serve ``url``, in the order of the rules; empty if ``url`` is not on GitHub."""
    parts = urlsplit(url)
    if parts.hostname not in GITHUB_HOSTS or parts.username:
        return []
    rewritten = []
    for rule in rules:
        head, _, tail = rule.rpartition("=http")
        if not head:
            rewritten.append(rule.rstrip("/") + "/" + url)
        elif url.startswith(head):
            rewritten.append("http" + tail + url[len(head) :])
    return rewritten
