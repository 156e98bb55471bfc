"""The settings of a source's requests, as one frozen value. The engine's ``Profile`` is made from it, and it is the key
by which an existing ``Profile`` is found.

It has two parts: settings for the origin that the user named, and settings for every request, wherever redirects lead.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rangefetch import records
from rangefetch.errors import LocalError
from rangefetch.importing import no_fork
from rangefetch.net.certificates import Trust, find_trust
from rangefetch.net.cookies import cookies_for
from rangefetch.net.credentials import Login, bearer_token, logins, read_regular
from rangefetch.net.offers import as_offered
from rangefetch.net.proxies import proxies_of
from rangefetch.net.sources import Source
from rangefetch.options import DownloadOptions

if TYPE_CHECKING:
    from rangefetch._engine import Jar, Profile

__all__ = ["Everywhere", "Private", "ProfileSettings", "make_profile", "profile_settings", "secret_headers"]

_NO_LIMIT_MS = 0x7FFFFFFF

Setting = tuple[str, int | str]
"""A libcurl option, without ``CURLOPT_``, and its value."""


@records.dataclass(frozen=True, slots=True, repr=False)
class Private:
    """Settings for the origin that the user named and the ``trusted`` hosts; never sent to other hosts."""

    headers: tuple[tuple[str, str], ...]
    cookie: str
    credentials: tuple[Login, ...]
    trusted: tuple[str, ...]


@records.dataclass(frozen=True, slots=True)
class Everywhere:
    """Settings for every request, wherever redirects lead."""

    settings: tuple[Setting, ...]
    allow_downgrade: bool
    private_addresses: str
    connect_timeout_s: float
    read_timeout_s: float
    http_proxy: str
    https_proxy: str
    direct: tuple[str, ...]


@records.dataclass(frozen=True, slots=True)
class ProfileSettings:
    """All settings of a source's requests."""

    private: Private
    everywhere: Everywhere


def profile_settings(options: DownloadOptions, source: Source, *, head: bool = False) -> ProfileSettings:
    """The settings for requests to ``source``, by HEAD or by GET. libcurl must be loaded. Reads files, so do not call
    it on a thread that others wait for.

    Raises ``LocalError`` if one of the files cannot be used.
    """
    if source.is_offered:
        options = as_offered(options)
    own = dict(options.header_items) if source.is_own else {}
    for name, value in secret_headers(source.url, source.authorization, options):
        if not any(name.lower() == each.lower() for each in own):
            own[name] = value
    authorized = any(name.lower() == "authorization" for name in own)
    # Cookies given here and those set by servers must be in one header field (RFC 6265, section 5.4).
    cookie = "; ".join(own.pop(name) for name in [name for name in own if name.lower() == "cookie"])
    http_proxy, https_proxy, direct = proxies_of(options)
    return ProfileSettings(
        Private(
            headers=tuple(own.items()),
            cookie=cookie,
            credentials=logins(source.url, options, is_own=source.is_own, authorized=authorized),
            trusted=tuple(options.location_trusted),
        ),
        Everywhere(
            settings=(*_settings(options, head=head), *_trust_settings(options)),
            allow_downgrade=options.allow_downgrade,
            private_addresses=options.private_addresses,
            connect_timeout_s=options.connect_timeout,
            read_timeout_s=options.read_timeout,
            http_proxy=http_proxy,
            https_proxy=https_proxy,
            direct=direct,
        ),
    )


def make_profile(wanted: ProfileSettings, jar: Jar | None = None) -> Profile:
    """Make the engine's ``Profile``. ``jar`` keeps the cookies that servers set.

    Raises ``LocalError`` for a setting that this libcurl does not support (often HTTP/3).
    """
    with no_fork:
        from rangefetch._engine import Profile, option_number

    private, everywhere = wanted.private, wanted.everywhere
    # Identity, because a range counts the bytes of the encoded form (RFC 9110, section 14.1.2).
    bare_headers = ["Accept-Encoding: identity"]
    # libcurl takes "Name;" for a header without a value.
    own_headers = [f"{name}: {value}" if value else f"{name};" for name, value in private.headers]
    settings: dict[int, Setting] = {}
    for name, value in everywhere.settings:
        number = option_number(name)
        if number is None:
            raise LocalError(f"this libcurl has no CURLOPT_{name}")
        settings[number] = name, value
    try:
        return Profile(
            [(option, value) for option, (_, value) in settings.items()],
            bare_headers + own_headers,
            bare_headers,
            allow_downgrade=everywhere.allow_downgrade,
            connect_timeout_s=everywhere.connect_timeout_s,
            read_timeout_s=everywhere.read_timeout_s,
            http_proxy=everywhere.http_proxy,
            https_proxy=everywhere.https_proxy,
            direct=everywhere.direct,
            cookie=private.cookie,
            jar=jar,
            credentials=private.credentials,
            trusted=private.trusted,
            reach=everywhere.private_addresses,
        )
    except ValueError as error:
        option, why = error.args
        name, value = settings[option]
        raise LocalError(f"this libcurl refuses CURLOPT_{name} = {value}: {why}") from None


def secret_headers(url: str, authorization: str, options: DownloadOptions) -> tuple[tuple[str, str], ...]:
    """The headers for one URL's origin only: Authorization, from the URL or the token file, and Cookie, from the cookie
    file.

    Raises ``LocalError`` if a file cannot be read.
    """
    token = "" if authorization else bearer_token(options)
    authorization = authorization or (f"Bearer {token}" if token else "")
    headers = [("Authorization", authorization)] if authorization else []
    if options.cookies:
        try:
            cookies = cookies_for(url, read_regular(options.cookies), os.fspath(options.cookies))
        except (OSError, ValueError) as error:
            raise LocalError(f"{options.cookies}: cannot read cookies from it: {error}") from None
        if cookies:
            headers.append(("Cookie", cookies))
    return tuple(headers)


@functools.cache
def _numbers() -> dict[str, int]:
    with no_fork:
        from rangefetch._engine import constants

    return constants()


def _settings(options: DownloadOptions, *, head: bool) -> list[Setting]:
    number = _numbers()
    versions = {"1.1": "CURL_HTTP_VERSION_1_1", "2": "CURL_HTTP_VERSION_2TLS", "3": "CURL_HTTP_VERSION_3"}
    settings: list[Setting] = [
        ("USERAGENT", options.user_agent),
        ("CONNECTTIMEOUT_MS", int(options.connect_timeout * 1000) or _NO_LIMIT_MS),
        ("HTTP_VERSION", number[versions[options.http_version]]),
        ("NOBODY", int(head)),  # always set, since handles are reused
        ("COOKIEFILE", ""),  # turns on the cookie engine without reading a file
        ("SSL_VERIFYPEER", int(options.verify_tls)),
        ("SSL_VERIFYHOST", 2 if options.verify_tls else 0),
    ]
    if options.certificate:
        # The key may be in the same file as the certificate.
        settings.append(("SSLCERT", os.fspath(options.certificate)))
        settings.append(("SSLKEY", os.fspath(options.private_key or options.certificate)))
    if options.proxy:
        settings.append(("PROXY", options.proxy))
    if options.no_proxy:
        settings.append(("NOPROXY", options.no_proxy))
    if options.bind_address:
        settings.append(("INTERFACE", options.bind_address))
    if options.ip_version:
        settings.append(("IPRESOLVE", number[f"CURL_IPRESOLVE_V{options.ip_version}"]))
    return settings


def _trust_settings(options: DownloadOptions) -> list[Setting]:
    """The settings for the certificates that servers and proxies are verified with."""
    trust = find_trust(os.fspath(options.ca_file))
    proxys = Trust(os.fspath(options.proxy_ca_file)) if options.proxy_ca_file else trust
    settings: list[Setting] = []
    for each, prefix in ((trust, ""), (proxys, "PROXY_")):
        if each.file and Path(each.file).is_fifo():
            # libcurl would block until something writes to it, and with it all transfers of the loop.
            raise LocalError(f"{each.file}: it is a pipe, not a file of certificates")
        if each.file or each.directory:
            # 0 is NULL, which turns off the compiled-in file when only a directory was named.
            settings.append((f"{prefix}CAINFO", each.file or 0))
        if each.directory:
            settings.append((f"{prefix}CAPATH", each.directory))
    return settings
