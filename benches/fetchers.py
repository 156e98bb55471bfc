"""The Python peers, each used as somebody who knows the library would use it. One run is for one peer.

    python fetchers.py PEER one CONNECTIONS CA_FILE URL FILE
    python fetchers.py PEER many CONNECTIONS CA_FILE LIST DIRECTORY

CA_FILE may be empty. Each function imports its own library, so that no peer pays for another's.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_PIECE = 1 << 20


def _write(file: int, data: bytes | memoryview, offset: int) -> int:
    """Write all of ``data`` at ``offset``; returns the offset of its end."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written
    return offset


def _range_size(size: int, connections: int, largest: int) -> int:
    """A range size small enough for every connection to get one, from 1 MiB to ``largest``."""
    return max(1 << 20, min(largest, -(-size // connections)))


def _name(url: str) -> str:
    return url.rpartition("/")[2]


def requests_one(connections: int, ca_file: str, url: str, path: str) -> None:
    """Fetch with a single stream, as nearly everyone does."""
    import requests

    with (
        requests.get(url, stream=True, timeout=60, verify=ca_file or True) as answer,
        Path(path).open("wb") as file,
    ):
        answer.raise_for_status()
        for piece in answer.iter_content(_PIECE):
            file.write(piece)


def requests_many(connections: int, ca_file: str, urls: list[str], directory: str) -> None:
    import requests

    with requests.Session() as session, ThreadPoolExecutor(connections) as pool:
        session.verify = ca_file or True
        adapter = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=connections)
        session.mount("http://", adapter)
        session.mount("https://", adapter)

        def fetch(url: str) -> None:
            answer = session.get(url, timeout=60)
            answer.raise_for_status()
            Path(directory, _name(url)).write_bytes(answer.content)

        for _ in pool.map(fetch, urls):
            pass


def aiohttp_one(connections: int, ca_file: str, url: str, path: str) -> None:
    """Have ``connections`` tasks claim ranges in order, and write each at its offset."""
    asyncio.run(_aiohttp_one(connections, ca_file, url, path))


async def _aiohttp_one(connections: int, ca_file: str, url: str, path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    async with _aiohttp_session(connections, ca_file) as session:
        async with session.head(url) as answer:
            size = int(answer.headers["Content-Length"])
        os.truncate(file, size)
        step = _range_size(size, connections, 16 << 20)
        starts = iter(range(0, size, step))

        async def work() -> None:
            for start in starts:
                end = min(start + step, size)
                async with session.get(url, headers={"Range": f"bytes={start}-{end - 1}"}) as answer:
                    if answer.status != 206:
                        raise RuntimeError(f"status {answer.status}")
                    offset = start
                    async for piece in answer.content.iter_any():
                        offset = _write(file, piece, offset)
                if offset != end:
                    raise RuntimeError("a short answer")

        await asyncio.gather(*(work() for _ in range(connections)))
    os.close(file)


def aiohttp_many(connections: int, ca_file: str, urls: list[str], directory: str) -> None:
    asyncio.run(_aiohttp_many(connections, ca_file, urls, directory))


async def _aiohttp_many(connections: int, ca_file: str, urls: list[str], directory: str) -> None:
    waiting = iter(urls)
    async with _aiohttp_session(connections, ca_file) as session:

        async def work() -> None:
            for url in waiting:
                async with session.get(url) as answer:
                    answer.raise_for_status()
                    Path(directory, _name(url)).write_bytes(await answer.read())

        await asyncio.gather(*(work() for _ in range(connections)))


def _aiohttp_session(connections: int, ca_file: str):  # type: ignore[no-untyped-def]  # of a package that need not be here
    import ssl

    import aiohttp

    tls = ssl.create_default_context(cafile=ca_file) if ca_file else True
    connector = aiohttp.TCPConnector(limit=connections, ssl=tls)
    # read_bufsize: with the default of 64 KiB the transport pauses and resumes every few pieces.
    return aiohttp.ClientSession(connector=connector, read_bufsize=_PIECE, auto_decompress=False)


def _obstore(ca_file: str, url: str):  # type: ignore[no-untyped-def]  # of a package that need not be here
    from obstore.store import HTTPStore

    options = {"allow_http": True, "timeout": "600s"}
    if ca_file:
        options["root_certificate"] = Path(ca_file).read_bytes()
    base, _, name = url.rpartition("/")
    return HTTPStore.from_url(base, client_options=options), name


def obstore_one(connections: int, ca_file: str, url: str, path: str) -> None:
    """Fetch ranges with ``get_range_async``, ``connections`` at a time, and write each at its offset."""
    asyncio.run(_obstore_one(connections, ca_file, url, path))


async def _obstore_one(connections: int, ca_file: str, url: str, path: str) -> None:
    import obstore

    store, name = _obstore(ca_file, url)
    size = (await obstore.head_async(store, name))["size"]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    os.truncate(file, size)
    # The whole response is kept in memory; of 2 to 32 MiB, 2 and 4 were the fastest on loopback.
    step = _range_size(size, connections, 4 << 20)
    starts = iter(range(0, size, step))

    async def work() -> None:
        for start in starts:
            data = await obstore.get_range_async(store, name, start=start, end=min(start + step, size))
            _write(file, memoryview(data), start)

    await asyncio.gather(*(work() for _ in range(connections)))
    os.close(file)


def obstore_many(connections: int, ca_file: str, urls: list[str], directory: str) -> None:
    asyncio.run(_obstore_many(connections, ca_file, urls, directory))


async def _obstore_many(connections: int, ca_file: str, urls: list[str], directory: str) -> None:
    import obstore

    store, _ = _obstore(ca_file, urls[0])
    names = iter([_name(url) for url in urls])

    async def work() -> None:
        for name in names:
            answer = await obstore.get_async(store, name)
            Path(directory, name).write_bytes(memoryview(await answer.bytes_async()))

    await asyncio.gather(*(work() for _ in range(connections)))


def hf_transfer_one(connections: int, ca_file: str, url: str, path: str) -> None:
    """Use the chunk size and the retries that huggingface_hub set."""
    import hf_transfer

    hf_transfer.download(url, path, connections, 10 << 20, parallel_failures=min(3, connections), max_retries=5)


def bytehaul_one(connections: int, ca_file: str, url: str, path: str) -> None:
    import bytehaul

    bytehaul.download(url, path, max_connections=connections, ca_info=ca_file or None)


def bytehaul_many(connections: int, ca_file: str, urls: list[str], directory: str) -> None:
    import bytehaul

    downloader = bytehaul.Downloader(ca_info=ca_file or None)

    def fetch(url: str) -> None:
        downloader.download(url, str(Path(directory, _name(url)))).wait()

    with ThreadPoolExecutor(connections) as pool:
        for _ in pool.map(fetch, urls):
            pass


def pypdl_one(connections: int, ca_file: str, url: str, path: str) -> None:
    from pypdl import Pypdl

    trust = {"ssl": ssl.create_default_context(cafile=ca_file)} if ca_file else {}
    _succeed(Pypdl().start(url, path, segments=connections, display=False, **trust))


def pypdl_many(connections: int, ca_file: str, urls: list[str], directory: str) -> None:
    from pypdl import Pypdl

    trust = {"ssl": ssl.create_default_context(cafile=ca_file)} if ca_file else {}
    tasks = [{"url": url, "file_path": str(Path(directory, _name(url)))} for url in urls]
    _succeed(Pypdl(max_concurrent=connections).start(tasks=tasks, multisegment=False, display=False, **trust))


def parfive_one(connections: int, ca_file: str, url: str, path: str) -> None:
    from parfive import Downloader

    # SSL_CERT_FILE names the temporary CA; aiohttp's default context reads it.
    downloader = Downloader(max_conn=1, max_splits=connections, progress=False, overwrite=True)
    downloader.enqueue_file(url, path=str(Path(path).parent), filename=Path(path).name)
    _succeed(not downloader.download().errors)


def parfive_many(connections: int, ca_file: str, urls: list[str], directory: str) -> None:
    from parfive import Downloader

    downloader = Downloader(max_conn=connections, max_splits=1, progress=False, overwrite=True)
    for url in urls:
        downloader.enqueue_file(url, path=directory, filename=_name(url))
    _succeed(not downloader.download().errors)


def _succeed(outcome: object) -> None:
    if not outcome:
        raise SystemExit("not all of it was fetched")


_ONE: dict[str, Callable[[int, str, str, str], None]] = {
    "requests": requests_one,
    "aiohttp": aiohttp_one,
    "obstore": obstore_one,
    "hf_transfer": hf_transfer_one,
    "bytehaul": bytehaul_one,
    "pypdl": pypdl_one,
    "parfive": parfive_one,
}
_MANY: dict[str, Callable[[int, str, list[str], str], None]] = {
    "requests": requests_many,
    "aiohttp": aiohttp_many,
    "obstore": obstore_many,
    "bytehaul": bytehaul_many,
    "pypdl": pypdl_many,
    "parfive": parfive_many,
}


def main(peer: str, what: str, connections: str, ca_file: str, source: str, target: str) -> None:
    if what == "one":
        _ONE[peer](int(connections), ca_file, source, target)
    else:
        _MANY[peer](int(connections), ca_file, Path(source).read_text().split(), target)


if __name__ == "__main__":
    main(*sys.argv[1:])
