"""Parsing of HTTP headers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rangefetch.importing import no_fork

__all__ = ["merged", "parse_date", "parse_headers", "stated_range"]

_SAID_ONCE = ("etag", "last-modified", "content-range")
_LISTS = ("content-encoding", "link")


def parse_headers(lines: str) -> dict[str, str]:
    """Parse headers as the engine passes them, one per line, into a dict by lower-case name (see :func:`merged`)."""
    return merged((name, value) for name, _, value in (line.partition(": ") for line in lines.split("\n")))


def merged(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Header fields by lower-case name. Of a repeated field the first value counts, except that codings and links,
    which are lists, are joined (RFC 9110, section 5.3).

    If ETag, Last-Modified or Content-Range appears twice with different values, it is dropped: a cache may have added
    its own beside the server's, or have mixed up two responses.
    """
    headers: dict[str, str] = {}
    contradicted: set[str] = set()
    for name, value in fields:
        name = name.lower()
        before = headers.setdefault(name, value)
        if before != value and name in _LISTS:
            headers[name] = f"{before}, {value}"
        elif before != value and name in _SAID_ONCE:
            contradicted.add(name)
    return {name: value for name, value in headers.items() if name not in contradicted}


def parse_date(value: str) -> float | None:
    """Parse an HTTP date into seconds since the epoch; None if it is absent or malformed."""
    if not value:
        return None
    with no_fork:
        import email.utils  # not at the top: it would slow down every start of the command

    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def stated_range(headers: Mapping[str, str]) -> tuple[int, int, int] | None:
    """The Content-Range of a response as start, end and total; None if it is absent or malformed."""
    with no_fork:
        from rangefetch._engine import content_range

    return content_range(headers.get("content-range", "").encode("latin-1", "replace"))
