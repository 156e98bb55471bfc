"""The URLs that can serve one download: the user's, its mirrors, and how each of them stands.

The engine knows them by number, in this order; here is what Python decides by.
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
"""How often in a row a URL is asked again where the target of its redirect fails."""

URL = 0
"""The number, among the sources of a download, of the URL that was asked for."""


@functools.lru_cache(4096)
def host_of(url: str) -> str:
    """``host:port`` of a URL, by which limits and rests are shared."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port or (443 if parts.scheme.lower() == 'https' else 80)}"


def origin_of(url: str) -> tuple[str, str]:
    """Scheme, and host with port (RFC 6454)."""
    return urlsplit(url).scheme.lower(), host_of(url)


@records.dataclass(slots=True)
class Source:
    """One URL. ``resolved_url`` is where redirects led, ``answered`` that it has answered well in this run and is used,
    ``identity`` what its first answer said of the file, ``resolved_again`` how often in a row its own URL was asked
    again since ``resolved_at`` bytes of the file were there, ``failed_at`` the target of a redirect that failed last,
    ``failures`` how often aria2 has failed at it.

    ``slots`` are when the next request to a host may be sent for it, where requests are spaced.

    ``jar`` has the cookies that servers set, where it is not the engine that keeps them.

    ``url`` is where it is requested now; ``given_url`` is the URL as it was given, by which a saved state knows it.
    They differ once ``refresh_url`` has supplied a new link.

    ``is_own``: it has the origin of the URL that was asked for, and gets the user's headers. A mirror is somebody
    else's, and those may be secrets; so is a new link to another host. ``is_offered``: a server has named it, and not
    the user (RFC 6249): it gets nothing of the user's.
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
        """The target of a redirect has failed: the URL itself is asked again, since it may name another. Whether it had
        named this one before, or was asked too often in a row."""
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
    """The sources of one download. The first is the URL that was asked for, and names the download.

    The list is of those at work, which the engine knows by their number in it. Mirrors are ``waiting`` until they were
    found to have the same bytes.
    """

    def __init__(self, url: str, mirrors: Sequence[str] = (), github_mirrors: Sequence[str] = ()) -> None:
        self._list: list[Source] = [Source(*split_userinfo(url))]
        self._dropped: list[Source] = []
        self._refuses_offers = False
        self.waiting: list[Source] = []
        """Mirrors of which nothing is known yet, in the user's order."""
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
        """The URL that was asked for, without userinfo: the identity of the download, whatever links it gets."""
        return self._list[0].given_url

    def move(self, number: int, url: str) -> Source:
        """Request a source at another URL from now on, with the user's headers only at the origin they were given
        for, and with the new URL's own userinfo or none."""
        source = self._list[number]
        source.url, source.authorization = split_userinfo(url)
        source.is_own = origin_of(source.url) == origin_of(self.url)
        source.resolved_url = ""
        return source

    def add(self, url: str) -> None:
        """A further mirror, which waits; nothing if it is there already."""
        source = Source(*split_userinfo(url))
        if not self._has(source.url):
            source.is_own = origin_of(source.url) == origin_of(self.url)
            self.waiting.append(source)

    def offer(self, url: str) -> bool:
        """A further mirror that a server has named, which waits; False: there is one of its origin already."""
        origins = {origin_of(each) for source in self._all for each in (source.url, source.resolved_url) if each}
        if self._refuses_offers or origin_of(url) in origins:
            return False
        self.waiting.append(Source(url, is_own=False, is_offered=True))
        return True

    def refuse_offers(self) -> None:
        """What servers have named is none of this file: not those, and no others. Who is at work is banned."""
        self._refuses_offers = True
        for source in self._all:
            source.banned |= source.is_offered
        self._dropped += [each for each in self.waiting if each.is_offered]
        self.waiting = [each for each in self.waiting if not each.is_offered]

    @property
    def given(self) -> set[str]:
        """The URLs that the user has named."""
        return {each.given_url for each in self._all if not each.is_offered}

    @property
    def _all(self) -> tuple[Source, ...]:
        return (*self._list, *self.waiting, *self._dropped)

    def _has(self, url: str) -> bool:
        return any(url in (each.url, each.given_url) for each in self._all)

    def join(self, source: Source) -> None:
        """A mirror that was waiting is at work from now on."""
        self.waiting.remove(source)
        self._list.append(source)

    def join_all(self) -> None:
        """All are at work, for a backend that asks them as it likes."""
        self._list += self.waiting
        self.waiting = []

    def drop(self, source: Source) -> None:
        """A mirror that was waiting is none of this file."""
        self.waiting.remove(source)
        self._dropped.append(source)

    def part(self) -> None:
        """Mirrors at work have to wait again, but for those that are banned."""
        mirrors = self._list[1:]
        del self._list[1:]
        self._dropped += [each for each in mirrors if each.banned]
        self.waiting = [each for each in mirrors if not each.banned] + self.waiting
        for each in self.waiting:
            each.answered = False
            each.resolved_url = each.etag = each.last_modified = ""

    def usable(self) -> list[Source]:
        """Those that may still be asked."""
        return [each for each in self._list if not each.banned]

    def others(self, number: int) -> bool:
        """Whether any but this one may still be asked."""
        return any(not each.banned for i, each in enumerate(self._list) if i != number)
