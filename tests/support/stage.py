"""Bringing downloads into a given status."""

from pathlib import Path
from typing import Any

from rangefetch import DownloadManager, DownloadStatus
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer
from support.downloads import SIZE, SMALL, downloaded, into, status_of
from support.waiting import until

__all__ = ["Stage"]


class Stage:
    """Provides downloads in any status, for a manager that has one active at a time."""

    def __init__(self, manager: DownloadManager, server: MisbehavingServer, valve: Valve, target: Path) -> None:
        self.manager = manager
        self.server = server
        self.valve = valve
        self.target = target

    def status(self, gid: str) -> DownloadStatus:
        return status_of(self.manager, gid)

    def begin(self, name: str = "file.bin", steps: str = "", **options: Any) -> str:
        """Start a download that runs these steps of a script, and then waits until the valve is opened."""
        url = self.server.url("/script/x", size=SIZE, id=name, steps=steps, then="valve")
        return self.manager.download(url, into(self.target, name, **options))

    def download_that_is(self, status: DownloadStatus, name: str = "file.bin") -> str:
        """A download with this status. Only one may be neither finished nor paused."""
        manager = self.manager
        match status:
            case DownloadStatus.WAITING:
                self.download_that_is(DownloadStatus.ACTIVE, "before-it.bin")
                gid = self.begin(name)
            case DownloadStatus.ACTIVE | DownloadStatus.PAUSED | DownloadStatus.REMOVED:
                gid = self.begin(name)
                until(lambda: downloaded(manager, gid) > SMALL)
                if status is DownloadStatus.PAUSED:
                    manager.pause(gid)
                elif status is DownloadStatus.REMOVED:
                    manager.cancel(gid)
            case DownloadStatus.COMPLETE:
                gid = manager.download(self.server.url("/good/x", size=SMALL), into(self.target, name))
                manager.wait(gid)
            case DownloadStatus.ERROR:
                if manager.backend == "aria2":
                    # The first request asks what there is, and a refusal counts only if no other connection works.
                    gid = self.begin(name, steps="good|cut:after=1000000|status:code=451", split=1)
                else:
                    gid = self.begin(name, steps="slow:rate=3M|status:code=451", split=2)
                until(lambda: self.status(gid) is status)
        assert self.status(gid) is status
        return gid
