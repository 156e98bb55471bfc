"""Driving the engine without the rest of the package: files to fill, and its events by name."""

from __future__ import annotations

import os
import select
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from rangefetch import _engine
from rangefetch._engine import Engine, File, Profile
from rangefetch.net import libcurl

__all__ = ["Driver", "Event", "Part", "plain_profile"]

_POLL_MS = 5.0
_OF_SMALL_FILES = ("overwrite", "named_by_url", "largest_bytes", "origin", "compares")


class Event(NamedTuple):
    """An event, with the fields that ``Engine.events`` documents."""

    name: str
    file: File
    code: int
    status: int
    fault: int
    errno: int
    retry_after_s: int
    offset: int
    received_bytes: int
    text: str
    headers: str
    source: int
    epoch: int
    request: int
    address: str
    host: int
    kept_bytes: int
    trace: dict[str, int] | None


@dataclass
class Part:
    """A file on the disk, which is the ``tag`` of the engine's file."""

    path: Path
    fd: int

    @property
    def octets(self) -> bytes:
        return self.path.read_bytes()

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def plain_profile(*, read_timeout_s: float = 60) -> Profile:
    """A profile that sets only the timeout, and accepts every server's certificate."""
    libcurl.load()
    number = _engine.constants()
    settings = [(number["CURLOPT_SSL_VERIFYPEER"], 0), (number["CURLOPT_SSL_VERIFYHOST"], 0)]
    return Profile(settings, [], [], read_timeout_s=read_timeout_s)


class Driver:
    """An engine, the files given to it and the events that it reported; a context manager."""

    def __init__(self, directory: Path | str, *, loops: int = 1) -> None:
        self.profile = plain_profile()
        self.engine = Engine(loops)
        self.log: list[Event] = []
        self._directory = Path(directory)
        self._parts: list[Part] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.engine.close()
        for part in self._parts:
            part.close()
        # pytest keeps a fixture's value until all fixtures are torn down, and what is left is checked before that.
        self.log.clear()
        del self.engine

    def file(self, url: str, octets: bytes = b"", **options: Any) -> File:
        """A file that is not yet added to the engine, for a new file on the disk that holds ``octets``."""
        fd, path = tempfile.mkstemp(dir=self._directory, suffix=".part")
        part = Part(Path(path), fd)
        self._parts.append(part)
        os.pwrite(fd, octets, 0)
        return File(fd, url, options.pop("profile", self.profile), tag=part, **options)

    def add(self, url: str, octets: bytes = b"", *, loop: int = 0, **options: Any) -> File:
        """A file that is being filled."""
        file = self.file(url, octets, **options)
        self.engine.add(file, loop)
        return file

    def fill(self, url: str, octets: bytes = b"", **options: Any) -> File:
        """A file that has been filled."""
        file = self.add(url, octets, **options)
        assert self.end(file).name == "DONE", self.log
        return file

    def small(self, url: str, directory_fd: int, name: str, *, loop: int = 0, **options: Any) -> File:
        """A file that is being fetched as a small file."""
        how = {each: options.pop(each) for each in list(options) if each in _OF_SMALL_FILES}
        file = File(-1, url, options.pop("profile", self.profile), tag=name, lanes=1, **options)
        file.be_small(directory_fd, name, (f"{name}.part",), **how)
        self.engine.add(file, loop)
        return file

    def take(self) -> list[Event]:
        """The events since the last call, which are also appended to ``log``."""
        news = [Event._make(fields) for fields in self.engine.events()]
        self.log += news
        return news

    def names(self, file: File) -> list[str]:
        """The names of the file's events, in order."""
        return [event.name for event in self.log if event.file is file]

    def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Take events until the condition holds. Raises ``TimeoutError`` if it does not in time."""
        poller = select.poll()
        poller.register(self.engine.fileno(), select.POLLIN)
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds} s; what happened: {self.log}")
            poller.poll(_POLL_MS)
            self.take()

    def end(self, file: File, seconds: float = 30.0) -> Event:
        """The event that ends the file's life in the engine; a failure before it is a ``TimeoutError``."""
        self.until(lambda: {"DONE", "REMOVED"} & set(self.names(file)), seconds)
        return next(event for event in reversed(self.log) if event.file is file)
