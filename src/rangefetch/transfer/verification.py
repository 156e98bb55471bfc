"""What proves a file's bytes: the digest that it must have, and its own, hashed behind them while they arrive."""

from __future__ import annotations

from collections.abc import Callable

from rangefetch.disk.checksum import FileHasher
from rangefetch.disk.target import Target
from rangefetch.errors import ChecksumMismatch

__all__ = ["Verification"]

_STEP_BYTES = 64 << 20


class Verification:
    """The digest of one download's file. ``checksum`` is the user's, else the server's, as ``algorithm=HEX``.

    What hashes is returned as a job, for a worker: one at a time.
    """

    def __init__(self, checksum: str) -> None:
        self.checksum = checksum
        self._target: Target | None = None
        self._hasher: FileHasher | None = None

    def begin(self, target: Target) -> None:
        """The bytes will come into this file; where they are not kept, there is nothing to prove."""
        self._target = target
        if self.checksum and target.keeps_state:
            self._hasher = FileHasher(target.fd, self.checksum.partition("=")[0])

    def begin_anew(self, checksum: str) -> None:
        """Other bytes will come, and only ``checksum`` holds for them."""
        self.checksum, self._hasher = checksum, None
        if self._target is not None:
            self.begin(self._target)

    @property
    def is_collision_free(self) -> bool:
        """Whether other bytes with the same digest cannot be made by anybody."""
        return self.checksum.partition("=")[0] not in ("", "md5", "sha-1")

    def learn(self, stated: str) -> bool:
        """A source says what its file's digest is. False: it is another one than must be."""
        if stated and not self.checksum and self._target is not None:
            self.checksum = stated
            self.begin(self._target)
        algorithm = self.checksum.partition("=")[0]
        return not stated or stated.partition("=")[0] != algorithm or stated == self.checksum

    def forget(self) -> Callable[[], None] | None:
        """What was hashed is not what the file will hold."""
        return self._hasher.restart if self._hasher is not None else None

    def step(self, end: int, least_bytes: int = 1) -> Callable[[], None] | None:
        """Hash some more of the file up to ``end``; None where there is not as much as that."""
        hasher = self._hasher
        if hasher is None or end - hasher.position < least_bytes:
            return None
        upto = min(end, hasher.position + _STEP_BYTES)
        return lambda: hasher.advance(upto)

    @property
    def actual(self) -> str:
        """The digest of what is hashed, as ``checksum``; that one where nothing is."""
        if self._hasher is None:
            return self.checksum
        return f"{self.checksum.partition('=')[0]}={self._hasher.hexdigest()}"

    def check(self, url: str) -> None:
        """All is hashed: set the file aside where it is the wrong one. Raises ``ChecksumMismatch``."""
        actual = self.actual
        if actual != self.checksum:
            assert self._target is not None
            kept = self._target.set_aside(f"its checksum is {actual}")
            raise ChecksumMismatch(
                f"wrong checksum: expected {self.checksum}, got {actual}; the data is kept in {kept}",
                expected=self.checksum,
                actual=actual,
                url=url,
                kept=kept,
            )
