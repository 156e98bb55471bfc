"""What may be on the disk after a power failure: random images of a directory, made from a record of system calls.

The model is that of POSIX and of Linux's file systems at their worst (Pillai et al., "All File Systems Are Not Created
Equal", OSDI 2014; fsync(2); close(2), "NOTES"):

- The power fails after any of the recorded calls.
- Data that was written before an fsync or fdatasync of the file is there. After that, each page of 4 KiB is in the
  state after one of the writes that touched it, or before all of them, independently of other pages: data reaches the
  disk in any order, and may be torn at page boundaries.
- A file has its length at its last sync or at any moment since, or a longer one if a page beyond that is there. Parts
  that no page has filled are zeros. So a file may have its length and none of its data.
- Names (create, rename, link, unlink) are on the disk once their directory was synced. Of later calls, either the first
  few have taken effect, as in a file system with a journal, or any subset of them, in order. A rename is one step: the
  old and the new name are never both gone. fsync of a file does not cover its name (fsync(2)).
- Extended attributes, times and modes are lost; a new file has its initial ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Call", "image", "read_record", "write_image"]

_PAGE = 4096


@dataclass
class Call:
    """One recorded call."""

    what: str
    file: int
    offset: int
    data: bytes
    name: str
    other: str


@dataclass
class _Data:
    """A file's content: what is certainly on the disk, and the writes and lengths since then."""

    durable: bytearray = field(default_factory=bytearray)
    lengths: list[int] = field(default_factory=list)
    pages: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)  # writes to each: offset in the page, data
    newest: bytearray = field(default_factory=bytearray)

    def write(self, offset: int, data: bytes) -> None:
        _put(self.newest, offset, data)
        at = 0
        while at < len(data):
            page, within = divmod(offset + at, _PAGE)
            piece = data[at : at + _PAGE - within]
            self.pages.setdefault(page, []).append((within, piece))
            at += len(piece)
        self.lengths.append(len(self.newest))

    def length(self, size: int) -> None:
        if size < len(self.newest):
            del self.newest[size:]
        else:
            self.newest.extend(bytes(size - len(self.newest)))
        self.lengths.append(size)

    def sync(self) -> None:
        self.durable = bytearray(self.newest)
        self.lengths.clear()
        self.pages.clear()

    def drawn(self, rng: random.Random, kept: float) -> bytes:
        """Draw a content that the disk may have. Each page that was not synced is there with probability ``kept``."""
        content = bytearray(self.durable)
        length = rng.choice([len(content), *self.lengths]) if kept < 1 else len(self.newest)
        if length < len(content) and kept < 1:
            del content[length:]
        content.extend(bytes(max(0, length - len(content))))
        for page, writes in self.pages.items():
            if rng.random() >= kept:
                continue
            for within, piece in writes if kept == 1 else writes[: rng.randint(1, len(writes))]:
                _put(content, page * _PAGE + within, piece)
        if kept == 1:
            del content[length:]
        return bytes(content)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def read_record(path: Path) -> list[Call]:
    """Read the log of ``recorder.c``."""
    calls: list[Call] = []
    files: dict[int, int] = {}  # by inode number, which the system reuses after a file is deleted
    record = path.read_bytes()
    at = 0
    while at < len(record):
        end = record.index(b"\n", at)
        what, inode, offset, size, name, other = record[at:end].decode().split("\t")
        at = end + 1
        if what in ("create", "fresh"):
            files[int(inode)] = len(calls)
        file = files.setdefault(int(inode), len(calls))
        calls.append(Call(what, file, int(offset), record[at : at + int(size)], name, other))
        at += int(size)
    return calls


def _with(names: dict[str, int], call: Call) -> None:
    """Apply a call to the names."""
    if call.what in ("create", "link"):
        names[call.name or call.other] = call.file
    elif call.what == "rename":
        if call.name:
            names.pop(call.name, None)
        if call.other:
            names[call.other] = call.file
    elif call.what == "unlink":
        names.pop(call.name, None)


def image(calls: list[Call], count: int, seed: int | None) -> dict[str, bytes]:
    """Draw the files, by name, that may be left when the power fails after ``count`` calls. With ``seed`` None, nothing
    is lost: the files are as the process saw them.
    """
    rng = random.Random(seed)
    kept = 1.0 if seed is None else rng.choice((0.0, 0.3, 0.7, 1.0))
    how = "all" if seed is None else rng.choice(("none", "first", "any", "any"))
    files: dict[int, _Data] = {}
    durable: dict[str, int] = {}
    since: list[Call] = []
    for call in calls[:count]:
        if call.what == "sync names":
            for each in since:
                _with(durable, each)
            since.clear()
        elif call.what in ("create", "link", "rename", "unlink"):
            since.append(call)
        elif call.what != "fresh":
            data = files.setdefault(call.file, _Data())
            if call.what == "write":
                data.write(call.offset, call.data)
            elif call.what == "length":
                data.length(call.offset)
            elif call.what == "sync":
                data.sync()
    if how == "first":
        since = since[: rng.randint(0, len(since))]
    elif how == "any":
        since = [call for call in since if rng.random() < 0.5]
    for call in since if how != "none" else []:
        _with(durable, call)
    drawn = {file: data.drawn(rng, kept) for file, data in files.items() if file in durable.values()}
    return {name: drawn.get(file, b"") for name, file in durable.items()}


def write_image(there: dict[str, bytes], directory: Path) -> None:
    """Replace the content of the directory by an image."""
    for path in directory.iterdir():
        path.unlink()
    for name, content in there.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)
