"""Decides whose word counts on what the remote file is.

The URL that was asked for decides, or a saved state that it confirmed. A mirror's word counts only until the URL has
answered, and never against it.
"""

from __future__ import annotations

import enum

from rangefetch import records
from rangefetch.identity import Identity, Same, same_validators

__all__ = ["Authority", "Word", "is_unvouched"]

_URL = 0  # its number among the sources
_MEANINGLESS = 3  # so many different totals stated for one file


class Word(enum.Enum):
    """How to treat a source's first answer."""

    GOOD = "good"
    CONTRADICTS = "contradicts"
    """A mirror's file has another size than the URL's."""
    CUT_SHORT = "cut short"
    """It is shorter than the file was before, although nothing shows that it is another version."""
    UNVOUCHED = "unvouched"
    """It has another size and no validator, although the file had one: more likely an error page than a new version."""


class Authority:
    """What was said of one download's remote file; sources are given by number (0: the URL)."""

    def __init__(self) -> None:
        self.source = -1
        """The source whose file is being fetched; -1: none has answered since the download started, or started over."""
        self.identity = Identity()
        """The last description of the whole file; kept when the download starts over."""
        self.is_remembered = False
        """Whether the description comes from a saved state alone."""
        self.ends_at = -1
        """Where the file ends, said the server when it refused a range, whatever it said before; -1: it has not."""
        self._said_by = -1
        self._totals: set[int] = set()

    def recall(self, source: int, identity: Identity) -> None:
        """Restore from a saved state what ``source`` said in an earlier run."""
        self.source = self._said_by = source
        self.identity = identity
        self.is_remembered = True

    def tell(self, identity: Identity) -> None:
        """Record what the URL said earlier, in answer to another request."""
        self._said_by = _URL
        self.identity = identity

    def start_over(self) -> None:
        """Forget whose file was being fetched, but not what the URL has said."""
        self.source = -1

    def contradicts_itself(self, source: int, *, total: int = -1, ends_at: int = -1) -> None:
        """Note doubts about the size: ``source`` stated another ``total`` for a range, or refused a range because the
        file ends at ``ends_at``.
        """
        if source != self._said_by:
            return
        if ends_at >= 0:
            self.ends_at = ends_at
        if total >= 0 and len(self._totals) < _MEANINGLESS:
            self._totals |= {total, self.identity.size}

    def _may_be_shorter(self, size: int) -> bool:
        """Whether ``size`` bytes may be all of a file that was said to have more: the server serves nothing beyond
        them, or has stated a different total each time.
        """
        return size == self.ends_at or len(self._totals) >= _MEANINGLESS

    def hear(self, source: int, identity: Identity, *, stated: bool) -> Word:
        """Judge and record a source's answer. ``stated`` says that it stated the size (in Content-Range)."""
        size, known = identity.size, self.identity.size
        if source != _URL and self._said_by == _URL and min(size, known) >= 0 and size != known:
            return Word.CONTRADICTS
        if (
            source == self._said_by
            and 0 <= size < known
            and not stated
            and not self._may_be_shorter(size)
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
            self.identity = identity if size >= 0 else records.replace(identity, size=known)
            self.is_remembered = False
        return Word.GOOD

    def accepts_length(self, size: int) -> bool:
        """Whether a body of unannounced length that ended after ``size`` bytes may be the whole file.

        Without a validator, it must be as long as the file was said to be.
        """
        known = self.identity
        return known.size in (-1, size) or bool(known.etag or known.last_modified)


def is_unvouched(identity: Identity, known: Identity) -> bool:
    """Whether a response for the whole file has another size than known, or none, and no validator although the known
    file had one: most likely an error page.
    """
    return (
        known.size >= 0
        and identity.size != known.size
        and bool(known.etag or known.last_modified)
        and not (identity.etag or identity.last_modified)
    )
