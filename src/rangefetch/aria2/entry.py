"""One download as aria2 has it: what it was asked for, and the gids by which it knows it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rangefetch.aria2.client import RpcError
from rangefetch.disk.control_file import ControlFile
from rangefetch.errors import BadAnswer, DaemonUnavailable, LocalError
from rangefetch.logs import log as _log

if TYPE_CHECKING:
    from rangefetch.aria2.daemon import Aria2Daemon

__all__ = ["STATUS_KEYS", "Entry", "Request", "Status"]

STATUS_KEYS = [
    "gid", "status", "totalLength", "completedLength", "connections", "errorCode", "errorMessage", "followedBy",
]  # fmt: skip
"""What is asked of a download's status from time to time."""

Status = Mapping[str, Any]

_GID_IS_TAKEN = "No URI to download"
"""What aria2 says of a second download of one gid."""
_MOST_REFUSALS = 20


@dataclasses.dataclass(slots=True)
class Request:
    """What aria2 is asked for: URLs, and the options that depend on where they lead and where the file goes."""

    urls: list[str]
    options: dict[str, str | list[str]]
    torrent: str = ""
    """In the place of a URL: a torrent, in Base64."""
    metalink: str = ""
    """The same for a Metalink."""


class Entry:
    """What aria2 has of one download: nothing, one entry of the same gid, or those of what it described.

    Methods raise ``DaemonUnavailable`` where nobody answers, unless they say otherwise.
    """

    def __init__(self, gid: str) -> None:
        self.daemon: Aria2Daemon | None = None
        """The aria2c for it, from when that is known on."""
        self.gids: list[str] = []
        """Empty while aria2 has nothing of it."""
        self.is_held = False
        """aria2 was told to pause it."""
        self._gid = gid
        self._urls: list[str] = []
        self._options: dict[str, Any] = {}
        self._process_id = 0  # the aria2c that has it
        self._uncertain = False  # whether aria2 may have something of this gid already
        self._refused = 0  # how often in a row

    @property
    def _aria2c(self) -> Aria2Daemon:
        assert self.daemon is not None
        return self.daemon

    def option(self, name: str) -> str:
        """The option that aria2 was given last, "" if it was not."""
        return str(self._options.get(name, ""))

    def add(self, request: Request, options: Mapping[str, str]) -> None:
        """Give it to aria2. If nobody answers, ``gids`` stays empty, and it is to be tried again.

        Raises ``LocalError`` if aria2 does not take it, ``BadAnswer`` if that is a torrent or Metalink, and
        ``DaemonUnavailable`` if that aria2c is gone for good.
        """
        daemon = self._aria2c
        if daemon.error is not None:
            raise DaemonUnavailable(daemon.error.reason)
        self._urls, self._options = request.urls, {**options, **request.options, "gid": self._gid}
        method, parameters = "addUri", [request.urls, self._options]
        if request.torrent:
            method, parameters = "addTorrent", [request.torrent, [], self._options]
        elif request.metalink:
            # Each file that it describes gets a gid of its own.
            described = {name: value for name, value in self._options.items() if name != "gid"}
            method, parameters = "addMetalink", [request.metalink, described]
        try:
            if self._uncertain:
                self.gids = [self._gid]
                self.forget()
            added = daemon.client.call(method, *parameters)
        except DaemonUnavailable as error:
            self._uncertain = True
            _log.debug("%s: %s; it is added later", self._gid, error)
        except RpcError as error:
            if self._uncertain or (_GID_IS_TAKEN in error.message and self._refused < _MOST_REFUSALS):
                # aria2 forgets an earlier one of the same gid a moment later than it says so. If that is gone now, the
                # next answer is about this one.
                self._refused += 1
                self._uncertain = self._is_known()
                return
            # What is described is a server's word; all else is ours.
            kind = BadAnswer if request.torrent or request.metalink else LocalError
            raise kind(f"aria2 does not take it: {error.message}") from None
        else:
            self._uncertain = self.is_held = False
            self._refused = 0
            self._process_id = daemon.pid
            self.gids = added if isinstance(added, list) else [added]

    def may_be_known(self) -> None:
        """aria2 had something of this gid, which it forgets a moment later than it says so."""
        self._uncertain = True

    @property
    def is_in_this_process(self) -> bool:
        """Whether the aria2c that was given it is the one that runs, so that what that says is about it."""
        return self._process_id == self._aria2c.pid

    def is_taken_along(self) -> None:
        """A new aria2c has it from its session file, paused as it is, and goes on with it."""
        self._process_id, self.is_held = self._aria2c.pid, False

    def _is_known(self) -> bool:
        return not isinstance(self._aria2c.client.call_all([("tellStatus", [self._gid, ["gid"]])])[0], RpcError)

    def change(self, request: Request, options: Mapping[str, str]) -> None:
        """Give aria2 other options and more URLs; where nobody answers, it is added with them."""
        wanted: dict[str, Any] = {**options, "header": request.options["header"]}
        changed = {name: value for name, value in wanted.items() if self._options.get(name) != value}
        more = [url for url in request.urls if url not in self._urls]
        self._options |= changed
        self._urls = [*self._urls, *more]
        calls: list[tuple[str, list[Any]]] = []
        for gid in self.gids:
            calls += [("changeOption", [gid, changed])] * bool(changed) + [("changeUri", [gid, 1, [], more])] * bool(
                more
            )
        self._tell(calls)

    def follow(self, gids: list[str]) -> list[str]:
        """Go on with what was described; the paths of its files."""
        paths = self.paths(gids)
        self.forget()
        self.gids = gids
        return paths

    def paths(self, gids: list[str] | None = None) -> list[str]:
        """The files that aria2 fetches, or has fetched."""
        return [
            file["path"]
            for gid in (self.gids if gids is None else gids)
            for file in self._aria2c.client.call("tellStatus", gid, ["files"])["files"]
            if file["selected"] == "true"
        ]

    def pieces(self) -> ControlFile | None:
        """Which pieces of its one file aria2 has; None where it does not say."""
        if len(self.gids) != 1:
            return None
        with contextlib.suppress(DaemonUnavailable, RpcError, KeyError, ValueError):
            keys = ["pieceLength", "totalLength", "numPieces", "bitfield"]
            told = self._aria2c.client.call("tellStatus", self.gids[0], keys)
            count = int(told["numPieces"])
            return ControlFile.of_bitfield(
                int(told["pieceLength"]), int(told["totalLength"]), bytes.fromhex(told["bitfield"]), count
            )
        return None

    def hold(self) -> None:
        """Have aria2 pause it, and keep what came."""
        self.is_held = True
        self._tell([("forcePause", [gid]) for gid in self.gids])

    def go_on(self) -> None:
        """Have aria2 go on with it."""
        self.is_held = False
        self._tell([("unpause", [gid]) for gid in self.gids])

    def remove(self) -> None:
        """Have aria2 stop; it is over when the statuses say so. One that is over already stays as it is."""
        self._tell([("forceRemove", [gid]) for gid in self.gids])

    def forget(self) -> None:
        """Have aria2 know nothing of it any more. Where nobody answers, the next aria2c is swept."""
        gids, self.gids = self.gids, []
        self.is_held = False
        calls: list[tuple[str, list[Any]]] = [
            (method, [gid]) for gid in gids for method in ("forceRemove", "removeDownloadResult")
        ]
        self._tell(calls)

    def _tell(self, calls: list[tuple[str, list[Any]]]) -> None:
        """What need not be heard: an aria2c that hangs is not told, for each question would take its time."""
        if calls and not self._aria2c.hangs:
            with contextlib.suppress(DaemonUnavailable, RpcError):
                self._aria2c.client.call_all(calls)
