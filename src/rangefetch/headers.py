"""What HTTP headers say, as values."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["parse_date", "parse_headers", "stated_range"]


def parse_headers(lines: str) -> dict[str, str]:
    """Headers by lower-case name; of a repeated one the first."""
    headers: dict[str, str] = {}
    for line in lines.split("\n"):
        name, _, value = line.partition(": ")
        headers.setdefault(name.lower(), value)
    return headers


def parse_date(value: str) -> float | None:
    """An HTTP date as seconds since the epoch, None where there is none."""
    if not value:
        return None
    import email.utils  # not for every start of the command

    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def stated_range(headers: Mapping[str, str]) -> tuple[int, int, int] | None:
    """The part of the file that a response says it is (Content-Range), as start, end and total; None where it says
    nothing of that, or nothing that makes sense."""
    from rangefetch import _engine

    return _engine.content_range(headers.get("content-range", "").encode("latin-1", "replace"))
