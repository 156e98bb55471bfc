"""SpatioTemporal Asset Catalog (STAC): the assets of an item or of a collection of items, with sizes and checksums from
the file extension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urljoin, urlsplit

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row
from rangefetch.manifests.members import list_in, mapping_in, text_in

__all__ = ["NAME", "read", "recognises"]

NAME = "stac"

# Multihashes (multiformats.io): the code of the algorithm, and the length in octets.
_MULTIHASHES = {"1220": "sha-256", "1340": "sha-512", "2030": "sha-384", "1114": "sha-1", "d50110": "md5"}


def _features(document: object) -> list[object]:
    if isinstance(document, Mapping) and document.get("type") == "FeatureCollection":
        return list_in(document, "features")
    return [document]


def recognises(look: Look) -> bool:
    """Whether it is an item or a collection of items, with assets."""
    features = _features(look.document)
    first = features[0] if features else None
    return (
        isinstance(first, Mapping)
        and first.get("type") == "Feature"
        and "stac_version" in first
        and isinstance(first.get("assets"), Mapping)
    )


def _checksum(text: str) -> str:
    """Convert a hexadecimal multihash to a checksum; "" if its algorithm is not supported."""
    for code, algorithm in _MULTIHASHES.items():
        if text.lower().startswith(code):
            return f"{algorithm}={text[len(code) :]}"
    return ""


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the assets, each in a directory named after its item, since many items use the same asset names.

    ``line`` is the number of the asset.
    """
    number = 0
    for feature in _features(look.document):
        links = list_in(feature, "links")
        own = next((text_in(link, "href") for link in links if text_in(link, "rel") == "self"), "")
        base_url = look.source.base_url or (own if "://" in own else "")
        identifier = text_in(feature, "id").replace("/", "_")
        for key, asset in mapping_in(feature, "assets").items():
            number += 1
            href = text_in(asset, "href")
            if not href:
                yield Mistake(number, f"the asset {key!r} of {identifier!r} has no href")
                continue
            try:
                url = urljoin(base_url, href) if base_url else href
                name = unquote(urlsplit(url).path.rpartition("/")[2]) or key
            except ValueError as error:
                yield Mistake(number, f"the asset {key!r} of {identifier!r}: {error}")
                continue
            size = asset.get("file:size")
            folder = f"{identifier}/" if identifier else ""
            yield Row(number, url, f"{folder}{name}", _checksum(text_in(asset, "file:checksum")), size)
