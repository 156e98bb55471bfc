"""Manifests: whatever they contain, no path leads out of the directory."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

import rangefetch
from rangefetch import ManifestError
from rangefetch.manifests import formats
from support.manifests import FORMATS, SHA, URLS, items_of

GOOD = URLS[0]

anything = st.binary(max_size=300) | st.sampled_from([text.encode() for text, _ in FORMATS.values()]).flatmap(
    lambda octets: st.tuples(st.integers(0, len(octets)), st.binary(max_size=12), st.integers(0, 40)).map(
        lambda change: octets[: change[0]] + change[1] + octets[change[0] + change[2] :]
    )
)


@given(anything, st.sampled_from(["", *formats.NAMES]))
@example(b"\x1f\x8b", "")
@example(b"{}", "zenodo")
@example(b"[[]]", "huggingface")
@example(b'{"files": {"entries": 1}}', "zenodo")
def test_whatever_a_manifest_says_it_is_items_or_an_error(octets: bytes, name: str) -> None:
    items_or_an_error(octets, name)


def items_or_an_error(octets: bytes, name: str) -> None:
    try:
        items = items_of(octets, input_format=name, base_url="https://example.org/b/", on_bad_line=lambda *_: None)
    except ManifestError:
        return
    for item in items:
        parts = item.path.split("/")
        assert ".." not in parts
        assert not item.path.startswith(("/", "~"))
        assert not any(part.startswith(".") for part in parts)
        assert item.url.partition(":")[0].lower() in ("http", "https", "ftp", "sftp", "magnet")
        rangefetch.DownloadOptions.of(**item.below("/d")[1])


MEMBERS = [
    "url",
    "name",
    "path",
    "size",
    "type",
    "oid",
    "lfs",
    "files",
    "entries",
    "links",
    "self",
    "key",
    "install",
    "pip_version",
    "download_info",
    "archive_info",
    "hashes",
    "hash",
    "resources",
    "bytes",
    "distribution",
    "@type",
    "@id",
    "@graph",
    "contentUrl",
    "features",
    "assets",
    "stac_version",
    "href",
    "siblings",
    "rfilename",
    "sha",
    "id",
    "checksum",
    "headers",
    "mirrors",
]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([GOOD, SHA[0], "../x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(MEMBERS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["", *formats.NAMES]))
def test_whatever_a_document_holds_it_is_items_or_an_error(value: Any, name: str) -> None:
    items_or_an_error(json.dumps(value).encode(), name)
