"""The sources of one download, the user's URL and its mirrors, and what is known of each.

The engine knows sources by their number in this order. The information here is what Python bases its decisions on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rangefetch import records
from rangefetch.identity import Identity
from rangefetch.net.credentials import split_userinfo
from rangefetch.net.mirrors import rewrite

if TYPE_CHECKING:
    from rangefetch.net.jar import SessionCookies

__all__ = ["MOST_RESOLVED_AGAIN", "URL", "Source", "Sources", "host_of", "origin_of"]

MOST_RESOLVED_AGAIN = 3
"""How often in a row a URL is requested again after the target of its redirect has failed."""

URL = 0
"""The source number of the requested URL."""


@functools.lru_cache(4096)
def host_of(url: str) -> str:
    """``host:port`` of a URL. Sources with the same value share limits and rests."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme.lower() == 'https' else 80)}"


def origin_of(url: str) -> tuple[str, str]:
    """The origin of a URL: scheme, and host with port (RFC 6454)."""
    return urlsplit(url).scheme.lower(), host_of(url)


@records.dataclass(slots=True)
class Source:
    """One URL that can serve the file.

    ``url`` is the URL that is requested now. ``given_url`` is the URL as it was given, by which a saved state knows the
    source; it differs from ``url`` once ``refresh_url`` has supplied a new link. ``resolved_url`` is the URL after
    redirects.

    ``answered``: it has given a good answer in this run and is in use. ``identity`` is what its first answer stated
    about the file. ``failed_at`` is the redirect target that failed last. ``resolved_again`` counts how often in a row
    the URL itself was requested again because of that, since the time when ``resolved_at`` bytes of the file were
    there. ``failures`` counts how often aria2 has failed at this source.

    ``slots`` says, by host, when the next request for this source may be sent, if requests are spaced. ``jar`` has the
    cookies that servers set, if the engine does not keep them.

    ``is_own``: it has the same origin as the requested URL, and gets the user's headers. A mirror, or a new link to
    another host, belongs to somebody else and does not get them, since they may be secrets. ``is_offered``: a server
    named it, not the user (RFC 6249), so it gets none of the user's headers, cookies, credentials or certificates.
    """

    url: str
    authorization: str = ""
    is_own: bool = True
    is_offered: bool = False
    etag: str = ""
    last_modified: str = ""
    resolved_url: str = ""
    answered: bool = False
    identity: Identity = records.field(default_factory=Identity)
    banned: bool = False
    failures: int = 0
    resolved_again: int = 0
    resolved_at: int = -1
    failed_at: str = ""
    asked_plainly: bool = False
    jar: SessionCookies | None = None
    slots: dict[int, float] = records.field(default_factory=dict)
    given_url: str = records.field(init=False)

    def __post_init__(self) -> None:
        self.given_url = self.url

    def failed_beyond(self, address: str) -> bool:
        """Note that the target of a redirect has failed. The URL itself is requested again then, since it may redirect
        to another target. Returns True if it has redirected to the same target as last time, or was requested too often
        in a row.
        """
        named_again = address == self.failed_at or self.resolved_again >= MOST_RESOLVED_AGAIN
        self.failed_at = address
        self.resolved_again += 1
        return named_again

    @property
    def host(self) -> str:
        return host_of(self.resolved_url or self.url)

    @property
    def redirected(self) -> bool:
        return bool(self.resolved_url) and self.resolved_url != self.url


class Sources:
    """The sources of one download. The first is the requested URL, which names the download.

    As a sequence, this contains the sources in use, which the engine knows by their index. Mirrors are ``waiting``
    until some of their bytes have been compared.
    """

    def __init__(self, url: str, mirrors: Sequence[str] = (), github_mirrors: Sequence[str] = ()) -> None:
        self._list: list[Source] = [Source(*split_userinfo(url))]
        self._dropped: list[Source] = []
        self._refuses_offers = False
        self.waiting: list[Source] = []
        """Mirrors that have not been compared yet, in the user's order."""
        for each in dict.fromkeys([*rewrite(url, github_mirrors), *mirrors]):
            self.add(each)

    def __getitem__(self, number: int) -> Source:
        return self._list[number]

    def __len__(self) -> int:
        return len(self._list)

    def __iter__(self) -> Iterator[Source]:
        return iter(self._list)

    @property
    def url(self) -> str:
        """The requested URL, without userinfo. It identifies the download, whatever new links are supplied later."""
        return self._list[0].given_url

    def move(self, number: int, url: str) -> Source:
        """Use another URL for a source from now on. It gets the user's headers only if it has the origin for which they
        were given, and its own userinfo or none.
        """
        source = self._list[number]
        source.url, source.authorization = split_userinfo(url)
        source.is_own = origin_of(source.url) == origin_of(self.url)
        source.resolved_url = ""
        return source

    def add(self, url: str) -> None:
        """Add a mirror, which waits to be compared, unless it is known already."""
        source = Source(*split_userinfo(url))
        if not self._has(source.url):
            source.is_own = origin_of(source.url) == origin_of(self.url)
            self.waiting.append(source)

    def offer(self, url: str) -> bool:
        """Add a mirror that a server has offered, which waits to be compared. Returns False if it is not wanted,
        because another source has its origin or offers are refused.
        """
        origins = {origin_of(each) for source in self._all for each in (source.url, source.resolved_url) if each}
        if self._refuses_offers or origin_of(url) in origins:
            return False
        self.waiting.append(Source(url, is_own=False, is_offered=True))
        return True

    def refuse_offers(self) -> None:
        """Drop all mirrors that servers have offered, ban those in use, and accept no more, because one had a wrong
        file.
        """
        self._refuses_offers = True
        for source in self._all:
            source.banned |= source.is_offered
        self._dropped += [each for each in self.waiting if each.is_offered]
        self.waiting = [each for each in self.waiting if not each.is_offered]

    @property
    def given(self) -> set[str]:
        """The URLs that the user gave."""
        return {each.given_url for each in self._all if not each.is_offered}

    @property
    def _all(self) -> tuple[Source, ...]:
        return (*self._list, *self.waiting, *self._dropped)

    def _has(self, url: str) -> bool:
        return any(url in (each.url, each.given_url) for each in self._all)

    def join(self, source: Source) -> None:
        """Use a waiting mirror from now on."""
        self.waiting.remove(source)
        self._list.append(source)

    def join_all(self) -> None:
        """Use all waiting mirrors, for a backend that chooses among them itself."""
        self._list += self.waiting
        self.waiting = []

    def drop(self, source: Source) -> None:
        """Drop a waiting mirror, because it does not have the same file."""
        self.waiting.remove(source)
        self._dropped.append(source)

    def part(self) -> None:
        """Make the mirrors in use wait again, and drop those that are banned."""
        mirrors = self._list[1:]
        del self._list[1:]
        self._dropped += [each for each in mirrors if each.banned]
        self.waiting = [each for each in mirrors if not each.banned] + self.waiting
        for each in self.waiting:
            each.answered = False
            each.resolved_url = each.etag = each.last_modified = ""

    def usable(self) -> list[Source]:
        """The sources in use that are not banned."""
        return [each for each in self._list if not each.banned]

    def others(self, number: int) -> bool:
        """Whether any other source in use is not banned."""
        return any(not each.banned for i, each in enumerate(self._list) if i != number)
