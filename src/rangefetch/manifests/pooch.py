"""pooch's registries: lines of ``NAME [ALGORITHM:]HASH [URL]``; without an algorithm, the hash is SHA-256."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, digest_of, url_below

__all__ = ["A_LINE_EACH", "NAME", "read", "recognises"]

NAME = "pooch"
A_LINE_EACH = True

_HASH = re.compile(r"(?:(?:md5|sha1|sha256|sha384|sha512|blake2b):)?[0-9A-Fa-f]{32,128}")


def _words(line: str) -> list[str]:
    """The words of a line; names with spaces are quoted, as in a shell. Raises ``ValueError``."""
    return shlex.split(line) if '"' in line or "'" in line else line.split()


def recognises(look: Look) -> bool:
    """Whether the first line is a name, a hash and, optionally, a URL."""
    try:
        words = _words(look.first)
    except ValueError:
        return False
    if len(words) not in (2, 3) or "://" in words[0] or not _HASH.fullmatch(words[1]):
        return False
    return len(words) == 2 or "://" in words[2]


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files."""
    for number, line in look.source.lines():
        if isinstance(line, Mistake):
            yield line
            continue
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            words = _words(line)
            if len(words) not in (2, 3):
                raise ValueError(f"it has {len(words)} words; expected a name, a hash and optionally a URL")
            url = words[2] if len(words) == 3 else url_below(look.source.base_url, words[0])
            if not url:
                raise ValueError("it has a name but no URL; use --base-url to say where the files are")
            yield Row(number, url, words[0], digest_of(words[1], "" if ":" in words[1] else "sha-256"))
        except ValueError as error:
            yield Mistake(number, str(error))
