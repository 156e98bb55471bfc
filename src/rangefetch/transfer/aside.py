"""A download at work that can do nothing for a while: another has its place, and it waits to get one again."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rangefetch.transfer.backend import Listener
    from rangefetch.transfer.download import Download

__all__ = ["Aside"]


class _Standing(enum.Enum):
    IN_PLACE = "it has a place"
    ASIDE = "it has nothing to do, and others may have its place"
    WAITING = "it could continue, and waits for a place"


class Aside:
    """Whether one download has its place. All methods are called on its backend's thread."""

    def __init__(self, listener: Listener, download: Download) -> None:
        self._listener = listener
        self._download = download
        self._standing = _Standing.IN_PLACE
        self._then: Callable[[], None] = lambda: None

    @property
    def is_in_place(self) -> bool:
        return self._standing is _Standing.IN_PLACE

    @property
    def waiting_for(self) -> str:
        """What it waits for, in words; empty if not for a place."""
        return "its turn" if self._standing is _Standing.WAITING else ""

    def step(self) -> bool:
        """Called if the download can do nothing until ``back`` is called. Returns whether others may have its place."""
        if self.is_in_place and self._listener.steps_aside(self._download):
            self._standing = _Standing.ASIDE
        return not self.is_in_place

    def back(self, then: Callable[[], None]) -> None:
        """Call ``then`` as soon as the download has a place: at once if nobody has taken its own."""
        if self.is_in_place or self._listener.comes_back(self._download):
            self._standing = _Standing.IN_PLACE
            then()
        else:
            self._standing, self._then = _Standing.WAITING, then

    def go_on(self) -> None:
        """The download has a place again."""
        if self._standing is _Standing.WAITING:
            self._standing = _Standing.IN_PLACE
            self._then()
