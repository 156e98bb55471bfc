"""File lists of Hugging Face repositories: the tree that ``/api/models/REPO/tree/REVISION?recursive=true`` returns, and
the ``siblings`` of ``/api/models/REPO/revision/REVISION?blobs=true``; likewise for ``datasets`` and ``spaces``.

They include the SHA-256 of files in Git LFS. A tree has a thousand entries per page; if it is given by URL, all pages
are fetched. A tree does not say which repository it belongs to: that comes from its own URL or from ``--base-url``
(``https://huggingface.co/REPO/resolve/REVISION/``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from rangefetch.manifests.formats import Asked, Look
from rangefetch.manifests.item import Mistake, Row, url_below
from rangefetch.manifests.members import each_of, list_in, mapping_in, text_in
from rangefetch.manifests.opening import ManifestError

__all__ = ["NAME", "read", "recognises"]

NAME = "huggingface"

_HOME = "https://huggingface.co"
_API_URL = re.compile(
    r"(https?://[^/]+)/api/(models|datasets|spaces)/((?:[^/?]+/)?[^/?]+)/(?:tree|revision)/([^/?]+)(?:[/?].*)?"
)
# The most entries that the server returns in one page (huggingface.co documentation, "Hub API Endpoints").
_PAGE = 1000


def recognises(look: Look) -> bool:
    """Whether it is a tree, or a description of a repository that lists its files."""
    document = look.document
    if isinstance(document, list):
        return bool(document) and all(
            isinstance(each, Mapping) and text_in(each, "path") and text_in(each, "oid") and "type" in each
            for each in document[:100]
        )
    siblings = list_in(document, "siblings")
    return bool(siblings) and isinstance(siblings[0], Mapping) and "rfilename" in siblings[0]


def _base_url(look: Look) -> str:
    """The URL below which the files are. Raises ``ManifestError``."""
    source, document = look.source, look.document
    if source.base_url and source.base_url != source.url:
        return source.base_url
    match = _API_URL.fullmatch(source.url)
    home, kind, repository, revision = match.groups() if match else (_HOME, "", "", "")
    if isinstance(document, Mapping):
        repository = repository or text_in(document, "id", "modelId")
        revision = text_in(document, "sha") or revision
        kind = kind or ("models" if "modelId" in document else "spaces" if "sdk" in document else "datasets")
    if not repository or not revision:
        raise ManifestError(
            f"{source.shown}: a tree does not name its repository; use --base-url {_HOME}/REPOSITORY/resolve/REVISION/"
        )
    return f"{home}/{'' if kind == 'models' else kind + '/'}{repository}/resolve/{revision}/"


def read(look: Look, asked: Asked) -> Iterator[Row | Mistake]:
    """Yield the files, named by their paths. Raises ``ManifestError``."""
    base_url = _base_url(look)
    document = look.document

    def row(number: int, value: Mapping[str, Any]) -> Row | None:
        if value.get("type", "file") != "file":
            return None
        path = text_in(value, "path", "rfilename")
        if not path:
            raise ValueError("it has no path")
        lfs = mapping_in(value, "lfs")
        digest = text_in(lfs, "oid", "sha256").removeprefix("sha256:")
        size = lfs.get("size", value.get("size"))
        return Row(number, url_below(base_url, path), path, f"sha-256={digest}" if digest else "", size)

    if isinstance(document, list):
        yield from each_of(_all_entries(look), row, "entry")
        if not look.source.url and document and len(document) % _PAGE == 0:
            # A local file does not tell whether it was the last page.
            yield Mistake(
                len(document),
                f"the tree has {len(document)} entries, which fills pages of {_PAGE}, so more may be missing; "
                "give the URL of the tree instead, and all its pages are fetched",
            )
    else:
        yield from each_of(list_in(document, "siblings"), row, "entry")


def _all_entries(look: Look) -> Iterator[Any]:
    """Yield the entries of a tree, including those of its further pages. Raises ``ManifestError``."""
    yield from look.document
    if not look.source.url:
        return
    for octets in look.source.further_pages():
        try:
            page = json.loads(octets)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{look.source.shown}: a page of the tree is not JSON: {error}") from None
        if not isinstance(page, list):
            raise ManifestError(f"{look.source.shown}: a page of the tree is not a list")
        yield from page
