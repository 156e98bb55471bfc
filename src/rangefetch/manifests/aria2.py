"""aria2's input file (aria2 manual, "Input File").

A line has the URLs of one file, separated by TABs. The lines below it that begin with white space are the file's
options, one per line, without dashes.

Options that identify, verify or request the file are honoured. Options about aria2 itself are ignored, and so are those
by which a list from elsewhere could weaken the user's settings: certificate verification, overwriting, and proxies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row

__all__ = ["NAME", "read", "recognises"]

NAME = "aria2"


def _whole(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a whole number") from None


def _seconds(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a number of seconds") from None


def _flag(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError(f"{value!r} is neither true nor false")
    return value == "true"


_OPTIONS: dict[str, tuple[str, Callable[[str], object]]] = {
    "auto-file-renaming": ("auto_file_renaming", _flag),
    "connect-timeout": ("connect_timeout", _seconds),
    "file-allocation": ("file_allocation", str),
    "max-connection-per-server": ("max_connection_per_server", _whole),
    "max-download-limit": ("max_download_limit", str),
    "max-tries": ("max_tries", _whole),
    "min-split-size": ("min_split_size", str),
    "retry-wait": ("retry_wait", _seconds),
    "split": ("split", _whole),
    "timeout": ("read_timeout", _seconds),
    "user-agent": ("user_agent", str),
}
"""aria2's options: our names for them, and their converters."""


def recognises(look: Look) -> bool:
    """Whether there are lines with several URLs, or options below the URLs."""
    told = look.told
    first = next((line for line in told if not line[:1].isspace()), "")
    if "://" not in first.split("\t")[0]:
        return False
    return any(
        (line[:1].isspace() and "=" in line and "://" not in line.partition("=")[0])
        or ("\t" in line and all("://" in url for url in line.strip().split("\t") if url))
        for line in told
    )


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files, each with its options."""
    entry = _Entry(0, "")
    for number, line in look.source.lines():
        if isinstance(line, Mistake):
            yield from entry.ended(asked.directory)
            entry = _Entry(0, "")
            yield line
        elif not line.strip() or line.startswith("#"):
            continue
        elif line[0] in " \t":
            if entry.number:
                entry.take(number, line.strip())
            else:
                yield Mistake(number, f"{line.strip()!r}: this option has no URL above it")
        else:
            yield from entry.ended(asked.directory)
            entry = _Entry(number, line)
    yield from entry.ended(asked.directory)


class _Entry:
    """A line of URLs, and the options below it."""

    def __init__(self, number: int, line: str) -> None:
        self.number = number
        self._urls = [url.strip() for url in line.split("\t") if url.strip()]
        self._directory = self._name = self._checksum = ""
        self._headers: list[str] = []
        self._options: dict[str, Any] = {}
        self._mistakes: list[Mistake] = []

    def take(self, number: int, text: str) -> None:
        """Add an option. A bad one makes the whole entry unusable: without it, the request would be a different one."""
        name, equals, value = text.partition("=")
        name, value = name.strip().removeprefix("--"), value.strip()
        if not equals:
            self._mistakes.append(Mistake(number, f"{text!r} is not NAME=VALUE"))
        elif name == "out":
            self._name = value
        elif name == "dir":
            self._directory = value
        elif name == "checksum":
            self._checksum = value
        elif name == "header":
            self._headers.append(value)
        elif name == "referer":
            self._headers.append(f"Referer: {value}")
        elif name in _OPTIONS:
            ours, convert = _OPTIONS[name]
            try:
                self._options[ours] = convert(value)
            except ValueError as error:
                self._mistakes.append(Mistake(number, f"{name}: {error}"))

    def ended(self, within: str) -> Iterator[Row | Mistake]:
        """The entry's row, or its mistakes; ``within`` is the output directory."""
        if not self.number:
            return
        if self._mistakes:
            yield from self._mistakes
            return
        directory = self._directory
        if directory and within:
            # An absolute path is allowed if it is below the output directory.
            with contextlib.suppress(ValueError):
                directory = str(Path(directory).relative_to(within))
        yield Row(
            self.number,
            self._urls[0],
            name=f"{directory}/{self._name}" if directory else self._name,
            checksum=self._checksum,
            mirrors=self._urls[1:],
            headers=self._headers,
            options=self._options,
        )
