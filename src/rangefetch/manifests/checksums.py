"""The output of sha256sum and similar tools, ``HEX  NAME`` or ``SHA256 (NAME) = HEX``, for files below a base URL."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, digest_of, url_below
from rangefetch.manifests.opening import ManifestError

__all__ = ["A_LINE_EACH", "NAME", "parse", "read", "recognises"]

NAME = "checksums"
A_LINE_EACH = True

# A backslash before the digest says that the name contains escapes (GNU coreutils, "md5sum invocation").
_LINE = re.compile(r"(\\?)([0-9A-Fa-f]{32,128}) [ *](.+)")
_TAGGED = re.compile(r"(\\?)(MD5|SHA1|SHA256|SHA384|SHA512|BLAKE2b) \((.+)\) = ([0-9A-Fa-f]+)")
_ESCAPE = re.compile(r"\\(.)")
_ESCAPED = {"n": "\n", "r": "\r", "\\": "\\"}


def parse(line: str) -> tuple[str, str] | None:
    """The digest as ``ALGORITHM=HEX``, and the name; None if the line has neither form. Raises ``ValueError``."""
    if match := _LINE.fullmatch(line):
        escaped, digest, name = match.groups()
        checksum = digest_of(digest)
    elif match := _TAGGED.fullmatch(line):
        escaped, tag, name, digest = match.groups()
        checksum = digest_of(digest, tag.lower())
    else:
        return None
    return checksum, _ESCAPE.sub(lambda each: _ESCAPED.get(each[1], each[0]), name) if escaped else name


def recognises(look: Look) -> bool:
    """Whether the first line has one of the two forms."""
    return _LINE.fullmatch(look.first) is not None or _TAGGED.fullmatch(look.first) is not None


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files. Raises ``ManifestError`` if there is no base URL."""
    base_url = look.source.base_url
    if not base_url:
        raise ManifestError(f"{look.source.shown}: it has names but no URLs; use --base-url to say where the files are")
    for number, line in look.source.lines():
        if isinstance(line, Mistake):
            yield line
        elif line.strip() and not line.startswith("#"):
            try:
                found = parse(line)
            except ValueError as error:
                yield Mistake(number, str(error))
                continue
            if found is None:
                yield Mistake(number, f"{line[:80]!r} is not a digest and a name")
            else:
                checksum, name = found
                yield Row(number, url_below(base_url, name), name, checksum)
