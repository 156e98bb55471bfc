"""One download as an entry in aria2: what aria2 was asked for, and the gids that it uses for it."""

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
"""The status fields that are polled."""

Status = Mapping[str, Any]

_GID_IS_TAKEN = "No URI to download"
"""Part of aria2's error message when a gid is already in use."""
_MOST_REFUSALS = 20


@dataclasses.dataclass(slots=True)
class Request:
    """What aria2 is asked for: URLs, and the options that depend on where these lead and where the file goes."""

    urls: list[str]
    options: dict[str, str | list[str]]
    torrent: str = ""
    """A torrent in Base64, instead of URLs."""
    metalink: str = ""
    """A Metalink in Base64, instead of URLs."""


class Entry:
    """What aria2 has of one download: nothing, one entry with the same gid, or the entries that a torrent, magnet link
    or Metalink turned into.

    Methods raise ``DaemonUnavailable`` if aria2c does not answer, unless they say otherwise.
    """

    def __init__(self, gid: str) -> None:
        self.daemon: Aria2Daemon | None = None
        """The aria2c that is to run it; None until it is chosen."""
        self.gids: list[str] = []
        """Empty while aria2 does not have the download."""
        self.is_held = False
        """Whether we told aria2 to pause it."""
        self._gid = gid
        self._urls: list[str] = []
        self._options: dict[str, Any] = {}
        self._process_id = 0  # the aria2c process that has it
        self._uncertain = False  # whether aria2 may already have an entry with this gid
        self._refused = 0  # refusals in a row

    @property
    def _aria2c(self) -> Aria2Daemon:
        assert self.daemon is not None
        return self.daemon

    def option(self, name: str) -> str:
        """The value of this option that aria2 was last given; "" if none."""
        return str(self._options.get(name, ""))

    def add(self, request: Request, options: Mapping[str, str]) -> None:
        """Add the download to aria2. If aria2c does not answer, ``gids`` stays empty: call again later.

        If aria2 refuses it, raises ``BadAnswer`` for a torrent or Metalink, ``LocalError`` for anything else. Raises
        ``DaemonUnavailable`` if aria2c is gone for good.
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
            _log.debug("%s: %s; will be added later", self._gid, error)
        except RpcError as error:
            if self._uncertain or (_GID_IS_TAKEN in error.message and self._refused < _MOST_REFUSALS):
                # aria2 frees the gid of an earlier entry slightly later than it reports. If that entry is gone now, the
                # next refusal is about this request.
                self._refused += 1
                self._uncertain = self._is_known()
                return
            # A torrent or Metalink comes from a server; everything else in the request is ours.
            kind = BadAnswer if request.torrent or request.metalink else LocalError
            raise kind(f"aria2 rejected it: {error.message}") from None
        else:
            self._uncertain = self.is_held = False
            self._refused = 0
            self._process_id = daemon.pid
            self.gids = added if isinstance(added, list) else [added]

    def may_be_known(self) -> None:
        """Note that aria2 may still have an earlier entry with this gid, since it frees gids with a slight delay."""
        self._uncertain = True

    @property
    def is_in_this_process(self) -> bool:
        """Whether the running aria2c process is the one that was given the download, so that its statuses apply."""
        return self._process_id == self._aria2c.pid

    def is_taken_along(self) -> None:
        """Note that a restarted aria2c has loaded the download from its session file, and will continue it."""
        self._process_id, self.is_held = self._aria2c.pid, False

    def _is_known(self) -> bool:
        return not isinstance(self._aria2c.client.call_all([("tellStatus", [self._gid, ["gid"]])])[0], RpcError)

    def change(self, request: Request, options: Mapping[str, str]) -> None:
        """Give aria2 changed options and additional URLs. They are kept for the next ``add`` if it does not answer."""
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
        """Continue with the entries that this one turned into; returns the paths of their files."""
        paths = self.paths(gids)
        self.forget()
        self.gids = gids
        return paths

    def paths(self, gids: list[str] | None = None) -> list[str]:
        """The paths of the selected files."""
        return [
            file["path"]
            for gid in (self.gids if gids is None else gids)
            for file in self._aria2c.client.call("tellStatus", gid, ["files"])["files"]
            if file["selected"] == "true"
        ]

    def pieces(self) -> ControlFile | None:
        """Which pieces of its single file aria2 has; None if aria2 does not tell. Raises nothing."""
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
        """Have aria2 pause the download; what it has fetched stays."""
        self.is_held = True
        self._tell([("forcePause", [gid]) for gid in self.gids])

    def go_on(self) -> None:
        """Have aria2 resume the download."""
        self.is_held = False
        self._tell([("unpause", [gid]) for gid in self.gids])

    def remove(self) -> None:
        """Tell aria2 to stop the download. Its status says when it has; an ended download keeps its status."""
        self._tell([("forceRemove", [gid]) for gid in self.gids])

    def forget(self) -> None:
        """Have aria2 drop the download and its result. If aria2c does not answer, the backend cleans up after its
        restart."""
        gids, self.gids = self.gids, []
        self.is_held = False
        calls: list[tuple[str, list[Any]]] = [
            (method, [gid]) for gid in gids for method in ("forceRemove", "removeDownloadResult")
        ]
        self._tell(calls)

    def _tell(self, calls: list[tuple[str, list[Any]]]) -> None:
        """Make calls that need not succeed. A hung aria2c is not called, since each call would wait for its timeout."""
        if calls and not self._aria2c.hangs:
            with contextlib.suppress(DaemonUnavailable, RpcError):
                self._aria2c.client.call_all(calls)
