"""Whose word it is what the remote file is.

The URL that was asked for decides, or a saved state that it proved. A mirror's word stands only while the URL has not
said anything, and never against it.
"""

from __future__ import annotations

import dataclasses
import enum

from rangefetch.identity import Identity, Same, same_validators

__all__ = ["Authority", "Word", "is_unvouched"]

_URL = 0  # its number among the sources


class Word(enum.Enum):
    """What is to be made of a source's first answer."""

    GOOD = "good"
    CONTRADICTS = "contradicts"
    """A mirror's file has another size than the URL's."""
    CUT_SHORT = "cut short"
    """It is shorter than the file was before, although nothing shows that it is another version."""
    UNVOUCHED = "unvouched"
    """It has another size and no validator, where the file had one: more likely an error page than a new version."""


class Authority:
    """What was said of one download's remote file, by the numbers of its sources (0: the URL)."""

    def __init__(self) -> None:
        self.source = -1
        """Whose file is being fetched; -1: nobody has answered since the start or since it was started over."""
        self.identity = Identity()
        """What was said last about the whole file, kept when the download starts over."""
        self.is_remembered = False
        """Nobody but a saved state has said so."""
        self._said_by = -1

    def recall(self, source: int, identity: Identity) -> None:
        """A saved state says what ``source`` said in an earlier run."""
        self.source = self._said_by = source
        self.identity = identity
        self.is_remembered = True

    def tell(self, identity: Identity) -> None:
        """The URL has said so just now, to somebody who has asked for the file before."""
        self._said_by = _URL
        self.identity = identity

    def start_over(self) -> None:
        """Nothing is kept of what was fetched; the URL's word is remembered."""
        self.source = -1

    def hear(self, source: int, identity: Identity, *, stated: bool) -> Word:
        """A source has answered. ``stated`` says that the size is one that it stated (in Content-Range)."""
        size, known = identity.size, self.identity.size
        if source != _URL and self._said_by == _URL and min(size, known) >= 0 and size != known:
            return Word.CONTRADICTS
        if (
            source == self._said_by
            and 0 <= size < known
            and not stated
            and same_validators(identity.etag, identity.last_modified, self.identity.etag, self.identity.last_modified)
            is not Same.DIFFERENT
        ):
            return Word.CUT_SHORT
        if source == self._said_by and size >= 0 and not stated and is_unvouched(identity, self.identity):
            return Word.UNVOUCHED
        if self.source < 0 or source == _URL:
            self.source = source
        if source == self.source and (source == _URL or self._said_by != _URL):
            self._said_by = source
            self.identity = identity if size >= 0 else dataclasses.replace(identity, size=known)
            self.is_remembered = False
        return Word.GOOD

    def accepts_length(self, size: int) -> bool:
        """Whether a body whose length nobody announced may be the whole file, now that it has ended after ``size``
        bytes: without a validator of its own, only if it is as long as the file was said to be."""
        known = self.identity
        return known.size in (-1, size) or bool(known.etag or known.last_modified)


def is_unvouched(identity: Identity, known: Identity) -> bool:
    """Whether a response to a request for the whole has another size than the file is known to have, or announces
    none, and has no validator where that had one: most likely an error page."""
    return (
        known.size >= 0
        and identity.size != known.size
        and bool(known.etag or known.last_modified)
        and not (identity.etag or identity.last_modified)
    )
