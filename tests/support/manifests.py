"""The same two files in each text format of manifests."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from rangefetch import ManifestItem, read_manifest

__all__ = [
    "BASED",
    "FORMATS",
    "MD5",
    "NAMES",
    "SHA",
    "SIZES",
    "URLS",
    "both",
    "facts",
    "items_of",
    "lines",
    "with_mistakes",
]

MD5 = ("0" * 31 + "1", "0" * 31 + "2")
SHA = ("a" * 63 + "1", "a" * 63 + "2")
URLS = ("https://example.org/d/one.bin", "https://example.org/d/two.bin")
SIZES = (1000, 2000)
NAMES = ("one.bin", "two.bin")


def both(make: Callable[[int], Any]) -> list[Any]:
    return [make(0), make(1)]


def lines(make: Callable[[int], str], *first: str) -> str:
    return "".join(f"{line}\n" for line in (*first, *both(make)))


def metalink(number: int) -> str:
    return (
        f'<file name="{NAMES[number]}"><size>{SIZES[number]}</size><hash type="md5">{MD5[number]}</hash>'
        f'<hash type="sha-256">{SHA[number]}</hash><pieces length="9" type="sha-1"><hash>{"f" * 40}</hash></pieces>'
        f'<url priority="7">https://mirror.example.org/{NAMES[number]}</url><url priority="1">{URLS[number]}</url>'
        f'<metaurl mediatype="torrent">https://example.org/{NAMES[number]}.torrent</metaurl></file>'
    )


# For each format: a manifest, and the fields that it gives besides the URL.
FORMATS: dict[str, tuple[str, Sequence[str]]] = {
    "urls": (lines(lambda n: URLS[n], "# a comment", ""), ()),
    "aria2": (
        lines(lambda n: f"{URLS[n]}\n  out={NAMES[n]}\n  checksum=sha-256={SHA[n]}\n\tseed-ratio=1.0"),
        ("name", "sha"),
    ),
    "csv": (
        lines(lambda n: f'"a, b",{URLS[n]},{NAMES[n]},{SHA[n]},{SIZES[n]}', "title,URL,File Name,sha256,size"),
        ("name", "sha", "size"),
    ),
    "tsv": (lines(lambda n: f"{URLS[n]}\t{MD5[n]}\t{SIZES[n]}.0", "download_url\tmd5\tbytes"), ("md5", "size")),
    "rclone": (lines(lambda n: f"{URLS[n]}, {NAMES[n]}"), ("name",)),
    "jsonl": (
        lines(
            lambda n: json.dumps({"url": URLS[n], "path": NAMES[n], "checksum": f"sha256:{SHA[n]}", "size": SIZES[n]})
        ),
        ("name", "sha", "size"),
    ),
    "json": (json.dumps(both(lambda n: {"href": URLS[n], "length": SIZES[n]}), indent=1), ("size",)),
    "checksums": (lines(lambda n: f"{SHA[n]} {'* '[n]}{NAMES[n]}"), ("name", "sha")),
    "pooch": (lines(lambda n: f"{NAMES[n]} md5:{MD5[n]} {URLS[n]}", "# a registry"), ("name", "md5")),
    "bagit": (lines(lambda n: f"{URLS[n]} {SIZES[n]} {NAMES[n]}"), ("name", "size")),
    "tsv-http-data": (
        lines(
            lambda n: f"{URLS[n]}\t{SIZES[n]}\t{base64.b64encode(bytes.fromhex(MD5[n])).decode()}", "TsvHttpData-1.0"
        ),
        ("host", "md5", "size"),
    ),
    "conda-explicit": (lines(lambda n: f"{URLS[n]}#{MD5[n]}", "# platform: linux-64", "@EXPLICIT"), ("md5",)),
    "pip-report": (
        json.dumps(
            {
                "version": "1",
                "pip_version": "26.0",
                "install": both(
                    lambda n: {
                        "download_info": {"url": URLS[n], "archive_info": {"hashes": {"md5": MD5[n], "sha256": SHA[n]}}}
                    }
                ),
            }
        ),
        ("sha",),
    ),
    "pylock": (
        'lock-version = "1.0"\ncreated-by = "me"\n'
        + lines(
            lambda n: (
                f'[[packages]]\nname = "p{n}"\n[[packages.wheels]]\nname = "{NAMES[n]}"\nurl = "{URLS[n]}"\n'
                f'size = {SIZES[n]}\nhashes = {{sha256 = "{SHA[n]}"}}'
            )
        ),
        ("name", "sha", "size"),
    ),
    "huggingface": (
        json.dumps(
            [
                {"type": "directory", "oid": "1" * 40, "size": 0, "path": "sub"},
                *both(
                    lambda n: {
                        "type": "file",
                        "oid": "2" * 40,
                        "size": SIZES[n],
                        "path": NAMES[n],
                        "lfs": {"oid": SHA[n], "size": SIZES[n], "pointerSize": 130},
                    }
                ),
            ]
        ),
        ("name", "sha", "size"),
    ),
    "zenodo": (
        json.dumps(
            {
                "id": 1,
                "files": both(
                    lambda n: {
                        "key": NAMES[n],
                        "size": SIZES[n],
                        "checksum": f"md5:{MD5[n]}",
                        "links": {"self": URLS[n]},
                    }
                ),
            }
        ),
        ("name", "md5", "size"),
    ),
    "metalink": (
        f'<?xml version="1.0"?><metalink xmlns="urn:ietf:params:xml:ns:metalink">{"".join(both(metalink))}</metalink>',
        ("name", "sha", "size", "mirror"),
    ),
    "stac": (
        json.dumps(
            {
                "type": "FeatureCollection",
                "features": both(
                    lambda n: {
                        "type": "Feature",
                        "stac_version": "1.0.0",
                        "id": f"scene{n}",
                        "assets": {"B": {"href": URLS[n], "file:size": SIZES[n], "file:checksum": f"1220{SHA[n]}"}},
                    }
                ),
            }
        ),
        ("scene", "sha", "size"),
    ),
    "ro-crate": (
        json.dumps(
            {
                "@context": "https://w3id.org/ro/crate/1.2/context",
                "@graph": [
                    {"@id": "ro-crate-metadata.json", "@type": "CreativeWork", "about": {"@id": "./"}},
                    {"@id": "./", "@type": "Dataset"},
                    *both(
                        lambda n: {
                            "@id": NAMES[n],
                            "@type": ["File", "ImageObject"],
                            "contentUrl": URLS[n],
                            "contentSize": f"{SIZES[n]}",
                            "sha256": SHA[n],
                        }
                    ),
                ],
            }
        ),
        ("name", "sha", "size"),
    ),
    "croissant": (
        json.dumps(
            {
                "@type": "sc:Dataset",
                "distribution": [
                    *both(
                        lambda n: {
                            "@type": "cr:FileObject",
                            "name": NAMES[n],
                            "contentUrl": URLS[n],
                            "contentSize": f"{SIZES[n]} B",
                            "sha256": SHA[n],
                        }
                    ),
                    {"@type": "cr:FileObject", "name": "x.csv", "contentUrl": "x.csv", "containedIn": {"@id": "one"}},
                    {"@type": "cr:FileSet", "includes": "*.jpg"},
                ],
            }
        ),
        ("name", "sha", "size"),
    ),
    "datapackage": (
        json.dumps(
            {
                "name": "p",
                "resources": both(
                    lambda n: {"name": "r", "path": URLS[n], "bytes": SIZES[n], "hash": f"sha256:{SHA[n]}"}
                ),
            }
        ),
        ("sha", "size"),
    ),
}
BASED = {"checksums", "huggingface"}
"""Those that need the URL of the directory."""


def items_of(text: str | bytes, **how: Any) -> list[ManifestItem]:
    """The items in a manifest."""
    octets = text if isinstance(text, bytes) else text.encode()
    return list(read_manifest(io.BytesIO(octets), **how))


def facts(items: Sequence[ManifestItem]) -> list[tuple[str, str, str, int, tuple[str, ...]]]:
    return [(item.url, item.path, item.checksum, item.size, item.mirrors) for item in items]


def with_mistakes(text: str, **how: Any) -> tuple[list[ManifestItem], list[tuple[int, str]]]:
    mistakes: list[tuple[int, str]] = []
    items = items_of(text, on_bad_line=lambda number, what: mistakes.append((number, what)), **how)
    return items, mistakes
