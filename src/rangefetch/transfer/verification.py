"""Verifies a file's digest, hashing the bytes while the rest still arrives."""

from __future__ import annotations

from collections.abc import Callable

from rangefetch.disk.checksum import FileHasher
from rangefetch.disk.target import Target
from rangefetch.errors import ChecksumMismatch

__all__ = ["Verification"]

_STEP_BYTES = 64 << 20


class Verification:
    """The digest that one download's file must have. ``checksum`` is the user's, otherwise the server's, as
    ``algorithm=HEX``.

    Methods that hash return a job for a worker; run one at a time.
    """

    def __init__(self, checksum: str) -> None:
        self.checksum = checksum
        self._target: Target | None = None
        self._hasher: FileHasher | None = None

    def begin(self, target: Target) -> None:
        """Set the file that the bytes go to. A target that keeps no state is not hashed."""
        self._target = target
        if self.checksum and target.keeps_state:
            self._hasher = FileHasher(target.fd, self.checksum.partition("=")[0])

    def begin_anew(self, checksum: str) -> None:
        """Start over with other bytes, for which only ``checksum`` is valid."""
        self.checksum, self._hasher = checksum, None
        if self._target is not None:
            self.begin(self._target)

    @property
    def is_collision_free(self) -> bool:
        """Whether the algorithm is one for which nobody can construct a collision."""
        return self.checksum.partition("=")[0] not in ("", "md5", "sha-1")

    def learn(self, stated: str) -> bool:
        """Take a source's stated digest, if there is none yet. Returns False if it contradicts the expected one."""
        if stated and not self.checksum and self._target is not None:
            self.checksum = stated
            self.begin(self._target)
        algorithm = self.checksum.partition("=")[0]
        return not stated or stated.partition("=")[0] != algorithm or stated == self.checksum

    def forget(self) -> Callable[[], None] | None:
        """Returns a job that discards what was hashed, because the file will hold other bytes."""
        return self._hasher.restart if self._hasher is not None else None

    def step(self, end: int, least_bytes: int = 1) -> Callable[[], None] | None:
        """Returns a job that hashes the next bytes, up to ``end``; None if fewer than ``least_bytes`` are there."""
        hasher = self._hasher
        if hasher is None or end - hasher.position < least_bytes:
            return None
        upto = min(end, hasher.position + _STEP_BYTES)
        return lambda: hasher.advance(upto)

    @property
    def actual(self) -> str:
        """The computed digest as ``algorithm=HEX``; ``checksum`` itself if nothing is hashed."""
        if self._hasher is None:
            return self.checksum
        return f"{self.checksum.partition('=')[0]}={self._hasher.hexdigest()}"

    def check(self, url: str) -> None:
        """Once all is hashed: if the digest is wrong, set the file aside and raise ``ChecksumMismatch``."""
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
