"""What the manager's tests share: options, states, and downloads that are brought into one."""

import itertools
from pathlib import Path
from typing import Any

from flow.helpers import QUICK, downloaded
from helpers import MIB, until
from rangefetch import DownloadManager, DownloadStatus
from servers.directed import Valve
from servers.misbehaving import MisbehavingServer, Request

__all__ = ["SIZE", "SMALL", "Stage", "gaps", "into", "status_of"]

SIZE = 9 * MIB + 12_345
SMALL = 100_001


def into(target: Path, name: object = "file.bin", **options: Any) -> dict[str, Any]:
    """Options for a file in the target's directory."""
    return QUICK | {"save_dir": target.parent, "filename": str(name)} | options


def status_of(manager: DownloadManager, gid: str) -> DownloadStatus:
    return manager.get_download_progress(gid).status


def gaps(requests: list[Request]) -> list[float]:
    """The seconds between one request and the next."""
    return [after.time - before.time for before, after in itertools.pairwise(requests)]


class Stage:
    """Downloads in whatever state a test wants, of a manager that has one active at a time."""

    def __init__(self, manager: DownloadManager, server: MisbehavingServer, valve: Valve, target: Path) -> None:
        self.manager = manager
        self.server = server
        self.valve = valve
        self.target = target

    def status(self, gid: str) -> DownloadStatus:
        return status_of(self.manager, gid)

    def begin(self, name: str = "file.bin", steps: str = "", **options: Any) -> str:
        """A download that goes on until the valve is opened, after these steps of a script."""
        url = self.server.url("/script/x", size=SIZE, id=name, steps=steps, then="valve")
        return self.manager.download(url, into(self.target, name, **options))

    def download_that_is(self, status: DownloadStatus, name: str = "file.bin") -> str:
        """One in this state. Of those that are not finished and not paused there may be one."""
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
                    # It is asked first what there is, and a refusal matters only where no other connection works.
                    gid = self.begin(name, steps="good|cut:after=1000000|status:code=404", split=1)
                else:
                    gid = self.begin(name, steps="slow:rate=3M|status:code=404", split=2)
                until(lambda: self.status(gid) is status)
        assert self.status(gid) is status
        return gid
