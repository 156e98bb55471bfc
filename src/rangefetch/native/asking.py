"""Asks a server about a file without fetching it, and interprets the answer.

The first request is a GET for one byte, because a link signed for GET is refused for HEAD. If the server refuses that,
or sends something else, HEAD follows; if HEAD is refused in another way, a GET without a range, of which only the
header is taken. Everything else, from redirects to retries, is as in a download.
"""

from __future__ import annotations

import enum
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from rangefetch.disk import checksum
from rangefetch.disk.names import choose_filename
from rangefetch.headers import stated_range
from rangefetch.masking import without_userinfo
from rangefetch.net.links import Link, parse_links
from rangefetch.net.sources import URL
from rangefetch.progress import DownloadResult, FileInfo
from rangefetch.transfer.failure import Failure, how_refused
from rangefetch.transfer.retry import AFTER_A_WAIT, Kind

if TYPE_CHECKING:
    from rangefetch._engine import Profile
    from rangefetch.native.task import NativeTask

__all__ = ["Asking"]

_REFUSED = AFTER_A_WAIT | {Kind.PERMANENT, Kind.DOUBTFUL, Kind.NO_RANGES}
"""Kinds of failures that may be due to the way of asking, not to the file."""


_OF_A_METHOD = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})
"""Statuses for a method that is not allowed; servers that send ranges use them too."""


class _Way(enum.Enum):
    ONE_BYTE = "a GET for the first byte"
    HEAD = "HEAD"
    PLAINLY = "a GET without a range"


class Asking:
    """The question of one task. All methods run on the backend's thread, except ``profiles``."""

    def __init__(self, task: NativeTask) -> None:
        self._task = task
        self._way = _Way.ONE_BYTE
        self._refused_as: int | None = None  # how the GET for the first byte was refused
        self._get: Profile | None = None
        self._head: Profile | None = None

    def profiles(self) -> list[Profile]:
        """The profiles for asking the URL; on a worker, because files are read."""
        task = self._task
        source = task.sources[URL]
        self._get = task.backend.profile(task.options, source)
        self._head = task.backend.profile(task.options, source, head=True)
        return [self._get]

    def ask_otherwise(self, failure: Failure, kind: Kind) -> bool:
        """Handle a failed request. Returns True if the next request will be of another kind."""
        task = self._task
        how = how_refused(failure)
        if how is None or kind not in _REFUSED:
            return False
        profile: Profile | None
        may_mean_the_range = task.backend.manners.may_mean_the_range(task.host_of(failure), how)
        if self._way is _Way.ONE_BYTE and (may_mean_the_range or how in _OF_A_METHOD):
            self._way, self._refused_as, profile = _Way.HEAD, how, self._head
        elif self._way is _Way.HEAD and (how != self._refused_as or how == HTTPStatus.FORBIDDEN):
            self._way, profile = _Way.PLAINLY, self._get
        elif self._way is _Way.HEAD and kind in AFTER_A_WAIT:
            # The way of asking was not the cause.
            self._way, profile = _Way.ONE_BYTE, self._get
        else:
            return False
        assert profile is not None
        task.file.ask_plainly(self._way is not _Way.ONE_BYTE)
        task.file.ask_as(URL, profile)
        return True

    def answered(self, headers: dict[str, str]) -> None:
        """Report what the server has said about the file."""
        task = self._task
        source, size = task.sources[URL], task.file.size
        is_part = stated_range(headers) is not None
        final_url = source.resolved_url or task.url
        filename = task.options.filename or choose_filename(
            task.url, source.resolved_url, headers.get("content-disposition", "")
        )
        task.download.info = FileInfo(
            url=without_userinfo(task.download.url),
            final_url=without_userinfo(final_url),
            filename=filename,
            size=size if size >= 0 else None,
            etag=headers.get("etag", ""),
            last_modified=headers.get("last-modified", ""),
            supports_ranges=is_part or (self._way is not _Way.ONE_BYTE and headers.get("accept-ranges") == "bytes"),
            digests=checksum.all_stated_by_server(headers, whole=not is_part),
            content_type=headers.get("content-type", ""),
            content_encoding=headers.get("content-encoding", ""),
            links=_by_relation(parse_links(headers.get("link", ""), final_url)),
        )
        task.result = DownloadResult(path=Path(filename), filename=filename, size=0, gid=task.download.gid)
        task.life.stop()


def _by_relation(links: list[Link]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for link in links:
        for relation in sorted(link.relations):
            found[relation] = (*found.get(relation, ()), link.url)
    return found
