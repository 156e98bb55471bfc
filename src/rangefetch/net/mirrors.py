"""Rewriting of GitHub URLs for mirrors: pure text, no network.

GitHub is slow or unreachable in places, and mirrors serve its files under URLs of their own. A mirror is a rewrite
rule, ``PREFIX`` or ``FROM=TO``: a prefix goes before the whole URL (``https://mirror.example/https://github.com/…``),
a pair replaces the head of it. There is no list by default, since whom to trust with downloads is the user's choice.
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
    """The URLs under which mirrors serve ``url``, in the order of the rules; none if it is not GitHub's."""
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
