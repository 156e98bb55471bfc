"""``-i``: the same list gives the same files in every format, compressed or not.

``make test`` tries each format uncompressed and with one compression; ``make torture`` (``RANGEFETCH_TORTURE=1``)
tries all combinations.
"""

from __future__ import annotations

import base64
import bz2
import functools
import gzip
import hashlib
import http.server
import importlib
import lzma
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rangefetch.manifests import formats
from servers.misbehaving import content
from support.command_line import run
from support.manifests import BASED, FORMATS, MD5, NAMES, SHA, SIZES

OCTETS = {name: content(size, number) for number, (name, size) in enumerate(zip(NAMES, SIZES, strict=True))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a directory that holds the files listed in the manifests."""
    root = tmp_path_factory.mktemp("root")
    (root / "d").mkdir()
    for name, octets in OCTETS.items():
        (root / "d" / name).write_bytes(octets)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/d"
    server.shutdown()
    server.server_close()


def manifest_of(name: str, folder: str, place: Path) -> bytes:
    """A list of the files in one format, with their real URLs and digests."""
    if name == "parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="the package pyarrow is not installed")
        parquet = pytest.importorskip("pyarrow.parquet", reason="the package pyarrow is not installed")
        table = {"url": [f"{folder}/{each}" for each in NAMES], "size": list(SIZES)}
        parquet.write_table(pyarrow.table(table), place / "table")
        return (place / "table").read_bytes()
    if name == "common-crawl":
        return "".join(f"d/{each}\n" for each in NAMES).encode()
    text, _ = FORMATS[name]
    for number, octets in enumerate(OCTETS.values()):
        md5, sha = hashlib.md5(octets), hashlib.sha256(octets)
        as_base64 = base64.b64encode(bytes.fromhex(MD5[number])).decode()
        text = text.replace(as_base64, base64.b64encode(md5.digest()).decode())
        text = text.replace(MD5[number], md5.hexdigest()).replace(SHA[number], sha.hexdigest())
    return text.replace("https://example.org/d", folder).replace("https://mirror.example.org", folder).encode()


def zstd(octets: bytes) -> bytes:
    for module in ("compression.zstd", "backports.zstd"):
        try:
            return bytes(importlib.import_module(module).compress(octets))
        except ImportError:
            continue
    pytest.skip("backports.zstd is not installed, and Python 3.14 is the first that has it")


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


ALL = os.environ.get("RANGEFETCH_TORTURE") == "1"
_IN_TURN = [suffix for suffix in COMPRESSED if suffix]
TRIED = [
    (name, suffix)
    for number, name in enumerate(formats.NAMES)
    for suffix in COMPRESSED
    if ALL or not suffix or suffix == _IN_TURN[number % len(_IN_TURN)]
]


@pytest.mark.parametrize(("name", "suffix"), TRIED)
def test_the_same_files_come_of_each_format(folder: str, place: Path, name: str, suffix: str) -> None:
    (place / "list").write_bytes(COMPRESSED[suffix](manifest_of(name, folder, place)))
    words = ["-d", "out", "-i", "list"]
    if name in BASED:
        words += ["--base-url", folder]
    if name == "common-crawl":
        words += ["--base-url", folder.removesuffix("d"), "--input-format", name]
    said = run(place, *words)
    assert said.returncode == 0, said.stderr
    got = {path.name: path.read_bytes() for path in (place / "out").rglob("*") if path.is_file()}
    assert got == OCTETS
