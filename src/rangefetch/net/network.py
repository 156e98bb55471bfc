"""How the engine asks: certificates, proxies, headers, versions, as libcurl options; and URLs without secrets."""

from __future__ import annotations

import base64
import contextlib
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

from rangefetch.errors import LocalError
from rangefetch.net.certificates import Trust, find_trust
from rangefetch.net.cookies import cookies_for
from rangefetch.net.credentials import Login, bearer_token, read_regular
from rangefetch.net.proxies import proxies_of
from rangefetch.options import DownloadOptions

if TYPE_CHECKING:
    from rangefetch._engine import Jar, Profile

__all__ = ["Network", "make_profile", "secret_headers", "split_userinfo"]

_CONNECT_S = 3.0


Place = tuple[str, int]


class Network:
    """Whether this machine has one, told by who answers: the servers that are wanted, and ``hosts`` (``host:port``)."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self._hosts = [(name, int(port)) for name, _, port in (host.rpartition(":") for host in hosts)]
        self._heard: set[Place] = set()

    def heard(self, url: str) -> None:
        """The server of ``url`` has answered."""
        place = _place_of(url)
        if place is not None:
            self._heard.add(place)

    def is_there(self, urls: Sequence[str], *, told: bool) -> bool:
        """Whether there is a network. May take seconds, so not on a thread that others wait for.

        An interface beyond loopback must be up. Then one TCP connection is enough, to the server of one of ``urls``
        (those that are wanted, or the proxy) or to one of the hosts, which are all asked at once; a refusal is an
        answer, too. Silence means that there is no network where the system said so before (``told``), or where one
        of them has ever answered. Otherwise it may as well be a dead server in a closed network.
        """
        wanted = [place for place in map(_place_of, urls) if place is not None]
        if not any(_is_loopback(host) for host, _ in wanted) and not _has_interface():
            return False
        places = list(dict.fromkeys((*wanted, *self._hosts)))
        answering = _first_to_answer(places)
        if answering is not None:
            self._heard.add(answering)
            return True
        return not told and self._heard.isdisjoint(places)


def _place_of(url: str) -> Place | None:
    parts = urlsplit(url)
    if not parts.hostname:
        return None
    return parts.hostname, parts.port or (443 if parts.scheme.lower() == "https" else 80)


def _first_to_answer(places: Sequence[Place]) -> Place | None:
    """Ask all of them at once; None where all keep silent."""
    answers: queue.SimpleQueue[Place | None] = queue.SimpleQueue()

    def ask(place: Place) -> None:
        answers.put(place if _answers(*place) else None)

    for place in places:
        try:
            threading.Thread(target=ask, args=(place,), name="rangefetch-probe", daemon=True).start()
        except RuntimeError:  # no thread is to be had
            answers.put(None)
    deadline_s = time.monotonic() + _CONNECT_S + 1.0  # names may take longer than that, and are not waited for
    with contextlib.suppress(queue.Empty):
        for _ in places:
            answering = answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
            if answering is not None:
                return answering
    return None


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"


def _has_interface() -> bool:
    import psutil

    return any(
        stats.isup and not all(_is_loopback(address.address) for address in addresses)
        for name, addresses in psutil.net_if_addrs().items()
        if (stats := psutil.net_if_stats().get(name)) is not None and not name.startswith("lo")
    )


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return True
    except ConnectionRefusedError:
        return True
    except socket.gaierror as error:
        # "There is no such name" is the word of a name server. macOS says it without any, too.
        return sys.platform == "linux" and error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
    except OSError:
        return False


def split_userinfo(url: str) -> tuple[str, str]:
    """The URL without ``user:password@`` and fragment, and the Authorization value that the userinfo stands for."""
    parts = urlsplit(url)
    userinfo, at, host = parts.netloc.rpartition("@")
    bare = urlunsplit(parts._replace(netloc=host, fragment=""))
    if not at:
        return bare, ""
    # RFC 7617, section 2: with a colon, even where there is no password.
    user, _, password = userinfo.partition(":")
    credentials = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return bare, "Basic " + base64.b64encode(credentials).decode()


def secret_headers(url: str, authorization: str, options: DownloadOptions) -> tuple[tuple[str, str], ...]:
    """The headers that are for one URL's origin alone: its Authorization, from the URL or the file with a token, and
    its cookies from the cookie file.

    Raises ``LocalError`` where a file cannot be read.
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


def make_profile(
    options: DownloadOptions,
    headers: Sequence[tuple[str, str]],
    secrets: Sequence[tuple[str, str]] = (),
    credentials: Sequence[Login] = (),
    jar: Jar | None = None,
    *,
    head: bool = False,
) -> Profile:
    """The options as the engine's ``Profile``; libcurl must be loaded.

    ``headers`` (the user's) and ``secrets`` go to the origin of the source's URL and the hosts that the user trusts
    alone, not where other redirects lead. ``jar`` keeps the cookies that servers set.

    Raises ``LocalError`` for what this libcurl cannot do (HTTP/3, for most).
    """
    import rangefetch._engine as engine

    number = engine.constants()
    settings: list[tuple[int, int | str]] = [
        (number["CURLOPT_USERAGENT"], options.user_agent),
        (number["CURLOPT_CONNECTTIMEOUT_MS"], int(options.connect_timeout * 1000) or 0x7FFFFFFF),
        (
            number["CURLOPT_HTTP_VERSION"],
            {
                "1.1": number["CURL_HTTP_VERSION_1_1"],
                "2": number["CURL_HTTP_VERSION_2TLS"],
                "3": number["CURL_HTTP_VERSION_3"],
            }[options.http_version],
        ),
        (number["CURLOPT_NOBODY"], int(head)),  # always, since handles are used again
        (number["CURLOPT_COOKIEFILE"], ""),  # cookies are understood, and none is read from a file
        (number["CURLOPT_SSL_VERIFYPEER"], int(options.verify_tls)),
        (number["CURLOPT_SSL_VERIFYHOST"], 2 if options.verify_tls else 0),
    ]
    settings += _trust_settings(options)
    if options.certificate:
        # OpenSSL finds the key in the same file, unless there is one of its own.
        key = options.private_key or options.certificate
        settings += [(number["CURLOPT_SSLCERT"], os.fspath(options.certificate))]
        settings += [(number["CURLOPT_SSLKEY"], os.fspath(key))]
    if options.proxy:
        settings.append((number["CURLOPT_PROXY"], options.proxy))
    if options.no_proxy:
        settings.append((number["CURLOPT_NOPROXY"], options.no_proxy))
    if options.bind_address:
        settings.append((number["CURLOPT_INTERFACE"], options.bind_address))
    if options.ip_version:
        settings.append((number["CURLOPT_IPRESOLVE"], number[f"CURL_IPRESOLVE_V{options.ip_version}"]))

    # Identity, because the bytes of a range are those of the encoded form (RFC 9110, section 14.1.2).
    bare_headers = ["Accept-Encoding: identity"]
    own = dict(headers)
    for name, value in secrets:
        if not any(name.lower() == each.lower() for each in own):
            own[name] = value
    # One field for these and for those of the jar (RFC 6265, section 5.4).
    cookie = "; ".join(own.pop(name) for name in [name for name in own if name.lower() == "cookie"])
    # "Name;" is how libcurl is told of a header without a value.
    all_headers = bare_headers + [f"{name}: {value}" if value else f"{name};" for name, value in own.items()]
    http_proxy, https_proxy, direct = proxies_of(options)
    try:
        return engine.Profile(
            settings,
            all_headers,
            bare_headers,
            allow_downgrade=options.allow_downgrade,
            connect_timeout_s=options.connect_timeout,
            read_timeout_s=options.read_timeout,
            http_proxy=http_proxy,
            https_proxy=https_proxy,
            direct=direct,
            cookie=cookie,
            jar=jar,
            credentials=credentials,
            trusted=options.location_trusted,
        )
    except ValueError as error:
        option, why = error.args
        name = next(each for each, code in number.items() if code == option and each.startswith("CURLOPT_"))
        raise LocalError(f"this libcurl refuses {name} = {dict(settings)[option]}: {why}") from None


def _trust_settings(options: DownloadOptions) -> list[tuple[int, int | str]]:
    """The certificates that servers and proxies are verified with, as libcurl options."""
    from rangefetch._engine import constants

    number = constants()
    trust = find_trust(os.fspath(options.ca_file))
    proxys = Trust(os.fspath(options.proxy_ca_file)) if options.proxy_ca_file else trust
    settings: list[tuple[int, int | str]] = []
    for each, prefix in ((trust, "CURLOPT_"), (proxys, "CURLOPT_PROXY_")):
        if each.file and Path(each.file).is_fifo():
            # libcurl would wait for its writer, and with it all transfers of the loop.
            raise LocalError(f"{each.file}: it is a pipe, not a file of certificates")
        if each.file or each.directory:
            # 0 is NULL: without the file that was compiled in, where a directory was named in its place.
            settings.append((number[f"{prefix}CAINFO"], each.file or 0))
        if each.directory:
            settings.append((number[f"{prefix}CAPATH"], each.directory))
    return settings
