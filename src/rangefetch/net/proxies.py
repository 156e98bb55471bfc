"""Chooses the proxy for a URL by libcurl's rules, for requests that are made without libcurl.

The rules are from curl's man page (ENVIRONMENT), ``CURLOPT_PROXY`` and ``CURLOPT_NOPROXY``.
"""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from rangefetch.options import DownloadOptions

__all__ = ["VARIABLES", "is_http_proxy", "no_proxy_entries", "proxies_of", "proxy_for", "with_port"]

VARIABLES = tuple(f"{scheme}_proxy" for scheme in ("http", "https", "ftp", "sftp", "magnet", "all", "no"))
"""The environment variables that are read. All except ``http_proxy`` are also read in upper case."""

_DEFAULT_PORT = 1080


def _environment(name: str) -> str:
    """The value of a variable in lower or else upper case. An empty one counts as missing, as in curl."""
    # Not HTTP_PROXY: in a CGI program, a client can set it by sending a "Proxy" header.
    return os.environ.get(name) or (os.environ.get(name.upper(), "") if name != "http_proxy" else "")


def proxy_for(url: str, options: DownloadOptions) -> str:
    """The proxy for ``url``, or "". It is that of the options, else the one for the URL's scheme in the environment,
    else ``all_proxy``; hosts in ``no_proxy`` use none.
    """
    parts = urlsplit(url)
    proxy = options.proxy or _environment(f"{parts.scheme.lower()}_proxy") or _environment("all_proxy")
    return "" if not proxy or _is_exempt(parts.hostname or "", no_proxy_entries(options)) else proxy


def proxies_of(options: DownloadOptions) -> tuple[str, str, tuple[str, ...]]:
    """The proxies for ``http`` and ``https``, with their ports ("": none), and the hosts that use no proxy."""

    def proxy(scheme: str) -> str:
        found = options.proxy or _environment(f"{scheme}_proxy") or _environment("all_proxy")
        return with_port(found) if found else ""

    return proxy("http"), proxy("https"), tuple(no_proxy_entries(options))


def no_proxy_entries(options: DownloadOptions) -> list[str]:
    """The hosts, domains (without a leading dot) and networks that use no proxy; ``*`` stands for all."""
    text = options.no_proxy or _environment("no_proxy")
    return [entry.lower().removeprefix(".").rstrip(".") for entry in re.split(r"[,\s]+", text) if entry]


def _is_exempt(host: str, entries: list[str]) -> bool:
    host = host.lower().rstrip(".")
    if entries == ["*"]:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return any(entry and (host == entry or host.endswith("." + entry)) for entry in entries)
    for entry in entries:
        try:
            if address in ipaddress.ip_network(entry.strip("[]"), strict=False):
                return True
        except ValueError:
            continue
    return False


def with_port(proxy: str) -> str:
    """The proxy as a URL with a port, which is 1080 if none is given (``CURLOPT_PROXY``)."""
    url = proxy if "://" in proxy else f"http://{proxy}"
    parts = urlsplit(url)
    if parts.port is None:
        parts = parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{_DEFAULT_PORT}")
    return f"{parts.scheme.lower()}://{parts.netloc}"


def is_http_proxy(proxy: str) -> bool:
    """Whether this is an HTTP proxy that is contacted without TLS."""
    scheme, separator, _ = proxy.partition("://")
    return not separator or scheme.lower() == "http"
