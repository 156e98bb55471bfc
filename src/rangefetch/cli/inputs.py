"""Lists of URLs in files: one a line; blank lines and those that begin with ``#`` do not count."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator

from rangefetch.checks import check_url

__all__ = ["InputError", "read_urls"]

# URLs that are in order without a closer look, which for 100,000 of them would take as long as to fetch many.
_SURELY_GOOD = re.compile(r"https?://[A-Za-z0-9.-]+(?::[1-9][0-9]{0,3}|:[1-5][0-9]{4})?/[!-~]*")


class InputError(Exception):
    """What is wrong with the list, naming the file, and the line."""


def read_urls(path: str) -> list[str]:
    """The URLs in the file, ``-`` being stdin, as they stand there. Raises :class:`InputError`."""
    shown = "standard input" if path == "-" else path
    try:
        if path == "-":
            if sys.stdin is None:
                raise InputError(f"{shown} is closed")
            return list(_urls(shown, sys.stdin.buffer))
        with open(os.fspath(path), "rb") as file:  # noqa: PTH123 - the name is shown as it was typed
            return list(_urls(shown, file))
    except OSError as error:
        raise InputError(f"{shown}: {error.strerror}") from None


def _urls(shown: str, lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            url = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise InputError(f"{shown}:{number}: this is not text in UTF-8") from None
        if not url or url.startswith("#"):
            continue
        if not _SURELY_GOOD.fullmatch(url):
            try:
                check_url(url, f"{shown}:{number}")
            except ValueError as error:
                raise InputError(str(error)) from None
        yield url
