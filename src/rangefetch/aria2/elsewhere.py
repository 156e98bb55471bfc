"""Downloads that another program has paused in aria2, over its RPC.

Such a download is paused here as well: its work is saved, and nobody touches its files. aria2 is given a stand-in with
the same gid, so that the other program still sees a paused download, and can resume or remove it. The stand-in never
fetches anything: it is a dry run through a proxy that refuses connections.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rangefetch.aria2.abilities import NOWHERE
from rangefetch.aria2.client import RpcError
from rangefetch.errors import DaemonUnavailable
from rangefetch.logs import log as _log
from rangefetch.progress import DownloadStatus

if TYPE_CHECKING:
    from rangefetch.aria2.daemon import Aria2Daemon
    from rangefetch.transfer.download import Download

__all__ = ["PausedElsewhere"]

_WHERE = "http://stand-in.invalid/"


@dataclasses.dataclass(slots=True, eq=False)
class _StandIn:
    """A stand-in for a download. ``process_id`` is the aria2c that has it, 0 if none has it yet."""

    download: Download
    daemon: Aria2Daemon
    gid: str
    process_id: int = 0


class PausedElsewhere:
    """The downloads of one backend that other programs have paused. All methods run on the backend's thread.

    ``tell`` is called when another program resumes such a download (``WAITING``) or removes it (``REMOVED``).
    """

    def __init__(self, tell: Callable[[Download, DownloadStatus], None]) -> None:
        self._tell = tell
        self._all: list[_StandIn] = []

    def __bool__(self) -> bool:
        return bool(self._all)

    def add(self, download: Download, daemon: Aria2Daemon, gids: list[str]) -> None:
        """The download was paused under these gids, and aria2 has released it: keep stand-ins for it."""
        self._all += [_StandIn(download, daemon, gid) for gid in gids]

    def drop(self, download: Download) -> bool:
        """Remove the download's stand-ins from aria2. Returns whether it had any."""
        mine = [each for each in self._all if each.download is download]
        for each in mine:
            self._drop(each)
        return bool(mine)

    def gids_in(self, daemon: Aria2Daemon) -> set[str]:
        """The gids of the stand-ins in the current process of this daemon."""
        return {each.gid for each in self._all if each.daemon is daemon and each.process_id == daemon.pid}

    def clear(self) -> None:
        """Forget all stand-ins, after aria2 has ended."""
        self._all.clear()

    def look(self) -> None:
        """Check whether another program has resumed or removed a stand-in."""
        for each in list(self._all):
            try:
                wanted = self._look_at(each)
            except DaemonUnavailable as error:
                _log.debug("%s: %s", each.gid, error)
                continue
            if wanted is not None:
                self.drop(each.download)
                if wanted is not DownloadStatus.PAUSED:
                    _log.info("%s: another program has set it to %s in aria2", each.download.gid, wanted)
                    self._tell(each.download, wanted)

    def _look_at(self, each: _StandIn) -> DownloadStatus | None:
        """What the other program wants: None if nothing has changed, ``PAUSED`` if no stand-in is needed any more."""
        if each.download.status is not DownloadStatus.PAUSED:
            return DownloadStatus.PAUSED
        if not each.daemon.is_alive():
            return None
        process_id = each.daemon.pid
        if each.process_id != process_id:
            options: dict[str, Any] = {"gid": each.gid, "pause": "true", "dry-run": "true", "out": f"{each.gid}.part"}
            options |= {f"{scheme}-proxy": NOWHERE for scheme in ("http", "https", "all")}
            try:
                each.daemon.client.call("addUri", [_WHERE], options)
            except RpcError as error:
                # aria2 frees a gid slightly later than it reports.
                _log.debug("%s: aria2 did not add its stand-in yet: %s", each.gid, error)
            else:
                each.process_id = process_id
            return None
        try:
            status = each.daemon.client.call("tellStatus", each.gid, ["status"])["status"]
        except RpcError:
            return DownloadStatus.REMOVED if each.daemon.pid == process_id else None
        return {"paused": None, "removed": DownloadStatus.REMOVED}.get(status, DownloadStatus.WAITING)

    def _drop(self, each: _StandIn) -> None:
        self._all.remove(each)
        if each.process_id and each.process_id == each.daemon.pid and not each.daemon.hangs:
            try:
                each.daemon.client.call_all([("forceRemove", [each.gid]), ("removeDownloadResult", [each.gid])])
            except (DaemonUnavailable, RpcError) as error:
                _log.debug("%s: %s", each.gid, error)
