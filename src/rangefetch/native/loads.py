"""Decides which loop of the engine gets a file, by the number of files on each loop and from each host."""

from __future__ import annotations

from collections import Counter

from rangefetch.transfer.governor import loop_of

__all__ = ["Loads"]


class Loads:
    """The files that are in the engine. All methods run on the backend's thread."""

    def __init__(self, loops: int) -> None:
        self._of_loop = [0] * loops
        self._of_host: Counter[int] = Counter()

    def begin(self, host: int, most: int) -> int:
        """The loop for one more file from a host that may have ``most`` connections."""
        loop = loop_of(host, most, self._of_host[host], len(self._of_loop))
        if loop is None:
            loop = self._of_loop.index(min(self._of_loop))
        self._of_loop[loop] += 1
        self._of_host[host] += 1
        return loop

    def begin_all(self, host: int, most: int, files: int) -> list[int]:
        """The loops for several files; see ``begin``."""
        loops: list[int] = []
        while len(loops) < files:
            loop = loop_of(host, most, self._of_host[host], len(self._of_loop))
            if loop is None:
                loops.append(self.begin(host, most))
            else:  # for all further files too, since the number of files only grows
                left = files - len(loops)
                self._of_loop[loop] += left
                self._of_host[host] += left
                loops += [loop] * left
        return loops

    def end(self, host: int, loop: int, files: int = 1) -> None:
        """Record that a loop has let go of one or more files."""
        self._of_loop[loop] -= files
        self._of_host[host] -= files
        if not self._of_host[host]:
            del self._of_host[host]
