"""Whether two responses are of the same file: the one definition, for first responses, ranges, resumes and mirrors.

What identifies a file is its size, its content coding, and its validators (RFC 9110, section 8.8): an ETag, strong or
weak, and Last-Modified. The engine applies the same rule to every response before it writes a byte of it
(``same_validators`` in ``answer.pxd``); one table of tests drives both.
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
_COARSE_TIME_S = 2.0  # FAT counts in steps of that


class Same(enum.Enum):
    """What two identities say of each other."""

    PROVEN = "proven"
    """The same strong ETag: the same bytes."""
    LIKELY = "likely"
    """Nothing differs, and nothing proves it: their bytes may be used together once some were compared."""
    DIFFERENT = "different"
    """Two files: not one byte of one belongs beside those of the other."""


class Strength(enum.IntEnum):
    """How much the validators of a response prove, least first."""

    NONE = 0
    """There are none; only the size can tell."""
    WEAK = 1
    """A weak ETag, or a Last-Modified so new that the file may have changed twice within its second."""
    DATED = 2
    """A Last-Modified at least a second older than the response's Date (RFC 9110, section 8.8.2.2)."""
    STRONG = 3
    """A strong ETag (RFC 9110, section 8.8.1)."""


class Basis(enum.StrEnum):
    """How it was established that a finished file is one version of the file that was asked for."""

    CHECKSUM = "checksum"
    """All of its bytes have the digest that the caller gave or the server stated."""
    ETAG = "etag"
    """Every response had the same strong ETag."""
    LAST_MODIFIED = "last-modified"
    """Every response had the same Last-Modified, which was older than the response; nothing could be compared."""
    COMPARED = "compared"
    """Parts were fetched a second time and had the same bytes."""
    ONE_RESPONSE = "one response"
    """It is the body of a single response."""
    SIZE = "size"
    """Every response had the same size, and the same weak validators or none; nothing more could be checked."""
    MIRRORS = "mirrors"
    """It came from mirrors, in whole or in part, and the URL could not be asked whether that is its file."""


@records.dataclass(frozen=True, slots=True)
class Identity:
    """What one response says of its file.

    ``size`` is bytes of the whole file (-1: unknown). ``etag`` (with ``W/`` if it is weak), ``last_modified`` and
    ``date`` are header values as they were sent, empty where absent. ``coding`` is the content coding in lower case,
    empty for none.
    """

    size: int = -1
    etag: str = ""
    last_modified: str = ""
    date: str = ""
    coding: str = ""

    @classmethod
    def of(cls, headers: Mapping[str, str], size: int = -1) -> Identity:
        """That of a response with these headers, whose names are in lower case."""
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
    """Whether an ETag promises the same bytes. One that is not a string in quotes is no ETag by the grammar, an empty
    one tells no version from another, and neither promises anything.
    """
    return len(etag) > 2 and etag[0] == etag[-1] == '"' and '"' not in etag[1:-1]


def same_validators(etag: str, last_modified: str, other_etag: str, other_last_modified: str) -> Same:
    """What two responses' validators say; empty: absent.

    Two strong ETags decide alone. Otherwise each validator must be what it was: one that differs, appeared or
    vanished is another file.
    """
    if is_strong(etag) and is_strong(other_etag):
        return Same.PROVEN if etag == other_etag else Same.DIFFERENT
    return Same.LIKELY if (etag, last_modified) == (other_etag, other_last_modified) else Same.DIFFERENT


def same(one: Identity, other: Identity) -> Same:
    """Whether two responses for one URL are of the same file. A size that is unknown on one side decides nothing.

    Validators are one URL's own (RFC 9110, section 8.8.3): what a mirror sends says nothing about another server's
    file, however equal it looks.
    """
    if one.coding != other.coding:
        return Same.DIFFERENT
    if one.size >= 0 and other.size >= 0 and one.size != other.size:
        return Same.DIFFERENT
    return same_validators(one.etag, one.last_modified, other.etag, other.last_modified)


def contradicts(one: Identity, other: Identity) -> bool:
    """Whether what two URLs say speaks against their having the same file, which their validators never prove."""
    if min(one.size, other.size) >= 0 and one.size != other.size:
        return True
    if one.etag and other.etag:
        return one.etag != other.etag
    earlier, later = parse_date(one.last_modified), parse_date(other.last_modified)
    return earlier is not None and later is not None and abs(earlier - later) > _COARSE_TIME_S


def must_compare_before_resuming(known: Identity, *, checksum: bool, helped: bool = False) -> bool:
    """Whether bytes of an earlier run must be compared with the server's before they are used.

    ``known`` is what that run was told; ``checksum`` says that the caller's digest will verify the whole file. Equal
    dates do not suffice: days may have passed, and tools that copy files set them as they like. ``helped``: some of
    the bytes may be a mirror's, of which the server's ETag says nothing.
    """
    return not checksum and (helped or known.strength < Strength.STRONG)


def must_compare_before_publishing(known: Identity, *, responses: int, checksum: bool) -> bool:
    """Whether some of a file that one run fetched must be fetched again and compared before it gets its name.

    ``responses`` is from how many its bytes came: the body of one is consistent in itself.
    """
    return not checksum and responses > 1 and known.strength < Strength.STRONG
