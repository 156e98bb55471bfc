"""Which proxy a URL takes: the rules of libcurl, for whoever asks without it.

The sources are curl's man page (ENVIRONMENT), ``CURLOPT_PROXY`` and ``CURLOPT_NOPROXY``.
"""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from rangefetch.options import DownloadOptions

__all__ = ["VARIABLES", "is_http_proxy", "no_proxy_entries", "proxies_of", "proxy_for", "with_port"]

VARIABLES = tuple(f"{scheme}_proxy" for scheme in ("http", "https", "ftp", "sftp", "magnet", "all", "no"))
"""What is read from the environment, in lower case; all but ``http_proxy`` are in upper case, too."""

_DEFAULT_PORT = 1080


def _environment(name: str) -> str:
    """A variable in lower or else upper case. An empty one counts as missing, as in curl."""
    # HTTP_PROXY is what a CGI program finds when a client has sent the header "Proxy".
    return os.environ.get(name) or (os.environ.get(name.upper(), "") if name != "http_proxy" else "")


def proxy_for(url: str, options: DownloadOptions) -> str:
    """The proxy for ``url``, "" if it takes none: that of the options, else of the URL's scheme in the environment,
    else ``all_proxy``; and none for hosts of ``no_proxy``."""
    parts = urlsplit(url)
    proxy = options.proxy or _environment(f"{parts.scheme.lower()}_proxy") or _environment("all_proxy")
    return "" if not proxy or _is_exempt(parts.hostname or "", no_proxy_entries(options)) else proxy


def proxies_of(options: DownloadOptions) -> tuple[str, str, tuple[str, ...]]:
    """The proxies of ``http`` and ``https`` with their ports, "" where there is none, and the hosts that take none."""

    def proxy(scheme: str) -> str:
        found = options.proxy or _environment(f"{scheme}_proxy") or _environment("all_proxy")
        return with_port(found) if found else ""

    return proxy("http"), proxy("https"), tuple(no_proxy_entries(options))


def no_proxy_entries(options: DownloadOptions) -> list[str]:
    """The hosts, domains (without the dot before them) and networks that take no proxy; ``*`` is all of them."""
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
    """An HTTP proxy as a URL that names its port, which is 1080 where it names none (``CURLOPT_PROXY``)."""
    url = proxy if "://" in proxy else f"http://{proxy}"
    parts = urlsplit(url)
    if parts.port is None:
        parts = parts._replace(netloc=f"{parts.netloc.rstrip(':')}:{_DEFAULT_PORT}")
    return f"{parts.scheme.lower()}://{parts.netloc}"


def is_http_proxy(proxy: str) -> bool:
    """Whether it is an HTTP proxy that is spoken to without TLS."""
    scheme, separator, _ = proxy.partition("://")
    return not separator or scheme.lower() == "http"
