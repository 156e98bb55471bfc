"""Whether two responses are of the same file: the only definition, used for first responses, ranges, resumes and
mirrors.

A file is identified by its size, its content coding, and its validators (RFC 9110, section 8.8): an ETag, strong or
weak, and Last-Modified. The engine applies the same rule to every response before it writes a byte of it
(``same_validators`` in ``answer.pxd``); one table of tests covers both.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from rangefetch import records
from rangefetch.headers import parse_date

__all__ = [
    "Basis",
    "Identity",
    "Same",
    "Strength",
    "contradicts",
    "is_strong",
    "must_compare_before_publishing",
    "must_compare_before_resuming",
    "same",
    "same_validators",
]

_DATED_S = 1.0
_COARSE_TIME_S = 2.0  # the resolution of FAT's timestamps


class Same(enum.Enum):
    """The result of comparing two identities."""

    PROVEN = "proven"
    """The same strong ETag: the same bytes."""
    LIKELY = "likely"
    """Nothing differs, but nothing proves equality: their bytes may be combined once some have been compared."""
    DIFFERENT = "different"
    """Two different files, whose bytes must never be combined."""


class Strength(enum.IntEnum):
    """How much the validators of a response prove, from least to most."""

    NONE = 0
    """There are no validators; only the size can be compared."""
    WEAK = 1
    """A weak ETag, or a Last-Modified so new that the file may have changed twice within its second."""
    DATED = 2
    """A Last-Modified at least a second older than the response's Date (RFC 9110, section 8.8.2.2)."""
    STRONG = 3
    """A strong ETag (RFC 9110, section 8.8.1)."""


class Basis(enum.StrEnum):
    """How it was established that a finished file is one version of the requested file."""

    CHECKSUM = "checksum"
    """The file has the digest that the caller gave or the server stated."""
    ETAG = "etag"
    """Every response had the same strong ETag."""
    LAST_MODIFIED = "last-modified"
    """Every response had the same Last-Modified, which was older than the response; nothing could be compared."""
    COMPARED = "compared"
    """Parts were fetched a second time and had the same bytes."""
    ONE_RESPONSE = "one response"
    """The file is the body of a single response."""
    SIZE = "size"
    """Every response had the same size, and the same weak validators or none; nothing more could be checked."""
    MIRRORS = "mirrors"
    """All or part of the file came from mirrors, and could not be compared with the URL's own."""


@records.dataclass(frozen=True, slots=True)
class Identity:
    """What one response says about the identity of its file.

    ``size`` is that of the whole file in bytes (-1: unknown). ``etag`` (with ``W/`` if weak), ``last_modified`` and
    ``date`` are header values as sent, empty if absent. ``coding`` is the content coding in lower case, empty if none.
    """

    size: int = -1
    etag: str = ""
    last_modified: str = ""
    date: str = ""
    coding: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str], size: int = -1) -> Identity:
        """The identity stated by a response with these headers, whose names must be in lower case."""
        coding = headers.get("content-encoding", "").lower()
        return cls(
            size,
            headers.get("etag", ""),
            headers.get("last-modified", ""),
            headers.get("date", ""),
            "" if coding in ("identity", "none") else coding,
        )

    @property
    def strength(self) -> Strength:
        """How much these validators prove."""
        if is_strong(self.etag):
            return Strength.STRONG
        if self.etag:
            return Strength.WEAK
        modified, sent = parse_date(self.last_modified), parse_date(self.date)
        if modified is not None and sent is not None and sent - modified >= _DATED_S:
            return Strength.DATED
        return Strength.WEAK if self.last_modified else Strength.NONE


def is_strong(etag: str) -> bool:
    """Whether equal ETags promise equal bytes. An ETag without quotes is not valid by the grammar, and an empty one
    cannot tell versions apart; neither counts as strong.
    """
    return len(etag) > 2 and etag[0] == etag[-1] == '"' and '"' not in etag[1:-1]


def same_validators(etag: str, last_modified: str, other_etag: str, other_last_modified: str) -> Same:
    """Compare the validators of two responses; empty means absent.

    Two strong ETags decide alone. Otherwise each validator must be unchanged: if one differs, appeared or vanished, it
    is a different file.
    """
    if is_strong(etag) and is_strong(other_etag):
        return Same.PROVEN if etag == other_etag else Same.DIFFERENT
    return Same.LIKELY if (etag, last_modified) == (other_etag, other_last_modified) else Same.DIFFERENT


def same(one: Identity, other: Identity) -> Same:
    """Whether two responses for one URL are of the same file. A size that one side does not know decides nothing.

    Not for comparing mirrors: a validator is only meaningful for one URL (RFC 9110, section 8.8.3), so equal validators
    from two servers do not show that their files are the same.
    """
    if one.coding != other.coding:
        return Same.DIFFERENT
    if one.size >= 0 and other.size >= 0 and one.size != other.size:
        return Same.DIFFERENT
    return same_validators(one.etag, one.last_modified, other.etag, other.last_modified)


def contradicts(one: Identity, other: Identity) -> bool:
    """Whether the identities stated by two URLs show that their files differ; they never show that these are equal."""
    if min(one.size, other.size) >= 0 and one.size != other.size:
        return True
    if one.etag and other.etag:
        return one.etag != other.etag
    earlier, later = parse_date(one.last_modified), parse_date(other.last_modified)
    return earlier is not None and later is not None and abs(earlier - later) > _COARSE_TIME_S


def must_compare_before_resuming(known: Identity, *, checksum: bool, helped: bool = False) -> bool:
    """Whether bytes of an earlier run must be compared with the server's before they are used.

    ``known`` is the identity that the server stated in that run. ``checksum``: the caller's digest will verify the
    whole file. Equal dates do not suffice, since days may have passed and tools that copy files can set any date.
    ``helped``: some of the bytes may come from a mirror, and the server's ETag says nothing about those.
    """
    return not checksum and (helped or known.strength < Strength.STRONG)


def must_compare_before_publishing(known: Identity, *, responses: int, checksum: bool) -> bool:
    """Whether parts of a file that one run fetched must be fetched again and compared before it gets its name.

    ``responses`` is the number of responses that its bytes came from: the body of a single one is consistent.
    """
    return not checksum and responses > 1 and known.strength < Strength.STRONG
