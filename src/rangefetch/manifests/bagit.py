"""BagIt's ``fetch.txt`` (RFC 8493, section 2.2.3), with lines of ``URL LENGTH PATH``.

Digests come from the bag's manifests beside it, ``manifest-ALGORITHM.txt`` and ``tagmanifest-ALGORITHM.txt``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row
from rangefetch.manifests.opening import ManifestError, Source

__all__ = ["NAME", "read", "recognises"]

NAME = "bagit"

_LINE = re.compile(r"(\S+)[ \t]+(\d{1,20}|-)[ \t]+(\S.*)")
_DIGEST = re.compile(r"([0-9A-Fa-f]+)[ \t]+\*?(\S.*)")
# Only these characters are encoded in a path (section 2.1.3).
_ENCODED = re.compile(r"%(0[AaDd]|25)")
_ALGORITHMS = ("sha512", "sha384", "sha256", "sha1", "md5")


def recognises(look: Look) -> bool:
    """Whether the first line is a URL, a length and a path."""
    match = _LINE.fullmatch(look.first)
    return match is not None and "://" in match[1]


def _path(text: str) -> str:
    return _ENCODED.sub(lambda match: chr(int(match[1], 16)), text)


def _digests(bag: Path) -> dict[str, str]:
    """The digests of the bag's files by path, with the strongest algorithm it has. Raises ``ManifestError``."""
    for algorithm in _ALGORITHMS:
        digests: dict[str, str] = {}
        for kind in ("tagmanifest", "manifest"):
            path = bag / f"{kind}-{algorithm}.txt"
            if path.is_file():
                with Source(path, "") as source:
                    for _, line in source.lines():
                        if not isinstance(line, Mistake) and (match := _DIGEST.fullmatch(line)):
                            digests[_path(match[2])] = f"{algorithm}={match[1]}"
        if digests:
            return digests
    return {}


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files, named by their paths in the bag. Raises ``ManifestError``."""
    path = look.source.path
    digests: dict[str, str] = {}
    if path is not None and not look.source.url:
        try:
            digests = _digests(path.parent)
        except ManifestError as error:
            raise ManifestError(f"{look.source.shown}: cannot read the digests of the bag: {error}") from None
    for number, line in look.source.lines():
        if isinstance(line, Mistake):
            yield line
        elif line.strip():
            match = _LINE.fullmatch(line.strip())
            if match is None:
                yield Mistake(number, f"{line[:80]!r} is not a URL, a length and a path")
            else:
                name = _path(match[3])
                yield Row(number, match[1], name, digests.get(name, ""), match[2])
