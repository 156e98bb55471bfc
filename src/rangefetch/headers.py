"""What HTTP headers say, as values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rangefetch.importing import no_fork

__all__ = ["merged", "parse_date", "parse_headers", "stated_range"]

_SAID_ONCE = ("etag", "last-modified", "content-range")
_LISTS = ("content-encoding", "link")


def parse_headers(lines: str) -> dict[str, str]:
    """Headers as the engine hands them over, a line each, by lower-case name (:func:`merged`)."""
    return merged((name, value) for name, _, value in (line.partition(": ") for line in lines.split("\n")))


def merged(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Header fields by lower-case name; of a repeated one the first, but all codings and links, which are lists
    (RFC 9110, section 5.3).

    What a response says twice, in different words, of the file or of its part of it (ETag, Last-Modified,
    Content-Range) it has not said: a cache may have put its own beside the server's, or have mixed up two responses.
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
    """An HTTP date as seconds since the epoch, None where there is none."""
    if not value:
        return None
    with no_fork:
        import email.utils  # not for every start of the command

    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def stated_range(headers: Mapping[str, str]) -> tuple[int, int, int] | None:
    """The part of the file that a response says it is (Content-Range), as start, end and total; None where it says
    nothing of that, or nothing that makes sense."""
    with no_fork:
        from rangefetch._engine import content_range

    return content_range(headers.get("content-range", "").encode("latin-1", "replace"))
