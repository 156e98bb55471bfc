"""Prepares small files, once for all that start at about the same time: opens their directory, makes their profile.

Both read the file system, so workers do them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from rangefetch.native.directories import Directories, Directory
from rangefetch.net.proxies import VARIABLES
from rangefetch.net.sources import Source
from rangefetch.options import DownloadOptions
from rangefetch.transfer.guarding import guarded, guarded_together

if TYPE_CHECKING:
    from rangefetch._engine import Profile
    from rangefetch.native.backend import NativeBackend
    from rangefetch.native.small import Small
    from rangefetch.transfer.workers import Outcome

__all__ = ["Preparing"]

_FRESH_S = 1.0
_MOST = 64
_NAMES = (
    *(name for each in VARIABLES for name in (each, each.upper())),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
)


class Preparing:
    """The preparations of one backend. All methods run on its thread.

    ``fetch`` is called with small files that share a directory, an origin and a profile; the directory counts
    each of them as a user.
    """

    def __init__(self, backend: NativeBackend, fetch: Callable[[Sequence[Small], Directory, Profile], None]) -> None:
        self._backend = backend
        self._fetch_alike = fetch
        self._directories = Directories()
        self._profiles: dict[str, tuple[DownloadOptions, tuple[str | None, ...], float, Profile]] = {}  # by origin
        self._environment: tuple[str | None, ...] | None = None
        self._waiting: dict[tuple[object, ...], list[Small]] = {}

    def round_begins(self) -> None:
        """The environment may have changed."""
        self._environment = None

    def tend(self, now_s: float) -> None:
        """Close unused directories; called periodically."""
        self._directories.tend(now_s)

    def clear(self) -> None:
        """Forget everything: no more files come."""
        self._directories.clear()
        self._profiles.clear()

    def prepare(self, smalls: Iterable[Small]) -> None:
        """Have the files fetched once they are prepared; call ``not_prepared`` on those that cannot be."""
        alike: list[Small] = []
        last, origin = None, ""
        for small in smalls:
            options, url = small.options, small.download.url
            if (
                last is None
                or not url.startswith(origin)
                # The cookies that a cookie file has for a URL are for that URL only.
                or options.cookies
                or (options is not last and (options.manner is not last.manner or options.save_dir != last.save_dir))
            ):
                self._prepare_alike(alike)
                alike = []
                end = url.find("/", 8)
                last, origin = options, url[: end + 1] if end >= 0 else f"{url}/"
            alike.append(small)
        self._prepare_alike(alike)

    def _prepare_alike(self, alike: list[Small]) -> None:
        """Prepare files that share a directory, and an origin that is asked in the same manner."""
        with guarded_together(alike):
            if alike:
                self._look_for_what_is_ready(alike)

    def _look_for_what_is_ready(self, alike: list[Small]) -> None:
        options, url = alike[0].options, alike[0].download.url
        path, origin = os.fspath(options.save_dir), url[: url.find("/", 8)]
        profile = self._profile_for(options, origin)
        directory = self._directories.get(path, self._backend.now_s())
        if directory is not None and profile is not None:
            self._fetch(alike, directory, profile)
            directory.release()
            return
        key = (path, id(options.manner), url if options.cookies else origin)
        waiting = self._waiting.setdefault(key, [])
        waiting += alike
        if len(waiting) == len(alike):
            opened = directory.use() if directory is not None else None
            try:
                self._backend.work(
                    alike[0],
                    lambda: (opened or Directory(path), profile or self._backend.profile(options, Source(url))),
                    functools.partial(self._is_prepared, key, opened),
                )
            except BaseException:
                del self._waiting[key]  # or files that come later would wait for it as well
                raise
        if directory is not None:
            directory.release()

    def _is_prepared(
        self, key: tuple[object, ...], opened: Directory | None, outcome: Outcome[tuple[Directory, Profile]]
    ) -> None:
        waiting = self._waiting.pop(key)
        error = outcome.exception()
        if error is not None:
            if opened is not None:
                opened.release()
            for each in waiting:
                guarded(each, each.not_prepared, error)
            return
        with guarded_together(waiting):
            self._fetch_those_that_waited(waiting, opened, *outcome.result())

    def _fetch_those_that_waited(
        self, waiting: Sequence[Small], opened: Directory | None, directory: Directory, profile: Profile
    ) -> None:
        now_s = self._backend.now_s()
        options, url = waiting[0].options, waiting[0].download.url
        if not (options.cookies or options.netrc or options.bearer_file):
            self._keep(options, url[: url.find("/", 8)], profile)
        try:
            self._fetch(waiting, directory, profile)
        finally:
            if opened is None:
                self._directories.put(os.fspath(options.save_dir), directory, now_s)
            else:
                opened.release()

    def _fetch(self, alike: Sequence[Small], directory: Directory, profile: Profile) -> None:
        self._fetch_alike(alike, directory.use(len(alike)), profile)

    def _profile_for(self, options: DownloadOptions, origin: str) -> Profile | None:
        """The profile for an origin, if it was made a moment ago and still applies."""
        known = self._profiles.get(origin)
        if known is None or known[0] is not options.manner or known[1] != self._environment_now():
            return None
        return known[3] if self._backend.now_s() - known[2] <= _FRESH_S else None

    def _keep(self, options: DownloadOptions, origin: str, profile: Profile) -> None:
        if len(self._profiles) >= _MOST:
            self._profiles.clear()
        self._profiles[origin] = (options.manner, self._environment_now(), self._backend.now_s(), profile)

    def _environment_now(self) -> tuple[str | None, ...]:
        if self._environment is None:
            self._environment = tuple(map(os.environ.get, _NAMES))
        return self._environment
