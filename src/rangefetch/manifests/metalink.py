"""Metalink 4 (RFC 5854): files with their URLs in order of priority, their sizes and digests.

The document is parsed incrementally. A document type declaration is refused: without one there are no entities, which
could expand without end or refer to local files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from xml.parsers import expat

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, strongest
from rangefetch.manifests.opening import ManifestError

__all__ = ["NAME", "read", "recognises"]

NAME = "metalink"

_NAMESPACE = "urn:ietf:params:xml:ns:metalink"
_PIECE_BYTES = 1 << 16
_LONGEST_TEXT = 1 << 16
_LOWEST_PRIORITY = 999_999
_DEEPEST = 64


def recognises(look: Look) -> bool:
    """Whether it is XML with Metalink's namespace."""
    return look.head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and _NAMESPACE.encode() in look.head


class _Reader:
    """Handles expat's events, and collects the files that are complete in ``ready``."""

    def __init__(self) -> None:
        self.ready: deque[Row | Mistake] = deque()
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._begin
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._refuse
        self._open: list[str] = []
        self._words: list[str] = []
        self._length = 0
        self._of: dict[str, str] = {}  # the attributes of the current element
        self._line = 0
        self._name = ""
        self._urls: list[tuple[int, str]] = []
        self._digests: dict[str, str] = {}
        self._size = ""

    def _refuse(self, *_: object) -> None:
        raise ManifestError("a document type (DOCTYPE) is not allowed in it")

    def _begin(self, tag: str, attributes: dict[str, str]) -> None:
        self._open.append(tag)
        if len(self._open) > _DEEPEST:
            raise ManifestError("its elements are nested too deeply")
        self._words, self._length, self._of = [], 0, attributes
        if self._path() == ["metalink", "file"]:
            self._line = self.parser.CurrentLineNumber
            self._name = attributes.get("name", "")
            self._urls, self._digests, self._size = [], {}, ""

    def _text(self, text: str) -> None:
        self._length += len(text)
        if self._length > _LONGEST_TEXT:
            raise ManifestError("the text of an element is too long")
        self._words.append(text)

    def _path(self) -> list[str]:
        """The names of the open elements; those from other namespaces keep their prefix."""
        return [tag.removeprefix(f"{_NAMESPACE} ") for tag in self._open]

    def _end(self, tag: str) -> None:
        path = self._path()
        self._open.pop()
        text = "".join(self._words).strip()
        self._words, self._length = [], 0
        if path[:2] != ["metalink", "file"]:
            return
        if path[2:] == ["url"]:
            priority = self._of.get("priority", "")
            order = int(priority) if priority.isascii() and priority.isdigit() and len(priority) <= 6 else 0
            self._urls.append((order or _LOWEST_PRIORITY, text))
        elif path[2:] == ["size"]:
            self._size = text
        elif path[2:] == ["hash"]:  # hashes of pieces are nested one level deeper
            self._digests[self._of.get("type", "").lower()] = text
        elif len(path) == 2:
            self.ready.append(self._row())

    def _row(self) -> Row | Mistake:
        if not self._name:
            return Mistake(self._line, "the file has no name")
        if not self._urls:
            return Mistake(self._line, f"{self._name!r} has no URL")
        # The sort is stable, so URLs of equal priority keep their order. Other protocols come last.
        self._urls.sort(key=lambda each: (not each[1].startswith(("http:", "https:")), each[0]))
        url, *mirrors = (url for _, url in self._urls)
        return Row(self._line, url, self._name, strongest(self._digests), self._size, mirrors)


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files, each with its preferred URL first. Raises ``ManifestError``."""
    reader = _Reader()
    stream, shown = look.source.stream, look.source.shown
    while True:
        try:
            octets = stream.read(_PIECE_BYTES)
            reader.parser.Parse(octets, not octets)
        except expat.ExpatError as error:
            words = expat.errors.messages.get(error.code, str(error))
            yield from reader.ready
            raise ManifestError(f"{shown}:{error.lineno}: this is not XML: {words}") from None
        except ManifestError as error:
            raise ManifestError(f"{shown}:{reader.parser.CurrentLineNumber}: {error}") from None
        except (OSError, EOFError, ValueError) as error:
            raise ManifestError(f"{shown}: {error}") from None
        yield from reader.ready
        reader.ready.clear()
        if not octets:
            return
