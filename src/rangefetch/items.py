"""The items of ``fetch_many`` and ``fetch_iter``: their accepted forms, and how they are parsed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Protocol, cast

from rangefetch import records
from rangefetch.checks import as_string, check_url, is_metadata_url
from rangefetch.disk.names import choose_filename, is_plain_filename
from rangefetch.net.sources import host_of
from rangefetch.options import DownloadOptions

__all__ = ["Item", "ListedItem", "Wanted", "understand"]


class ListedItem(Protocol):
    """An item of a manifest, which supplies its own options (``manifests.item``)."""

    def below(self, directory: str) -> tuple[str, Mapping[str, Any]]:
        """The URL, and the options for saving the file below ``directory``."""
        ...


Item = str | tuple[str, str | Mapping[str, Any] | DownloadOptions] | Mapping[str, Any] | ListedItem
"""A URL; a URL and the name of the file, or options; a mapping with ``url`` and options; or an item of a manifest."""

# URLs that are valid, and end in a valid file name, without further checks; full checks of 100,000 URLs take seconds.
_PLAIN_URL = re.compile(
    r"(https?://[A-Za-z0-9.-]+(?::[1-9][0-9]{0,3}|:[1-5][0-9]{4})?)/(?:[!-\"$->@-~]*/)?([A-Za-z0-9_][A-Za-z0-9_.+~-]{3,150}[A-Za-z0-9_])"
)
_OPTIONS = frozenset(field.name for field in records.fields(DownloadOptions))
_ACCEPTED = "a URL, (url, name), (url, options), or a mapping with 'url' and options"


@records.dataclass(slots=True)
class Wanted:
    """One item: its own options beyond the common ones (``own``), and the name and host taken from its URL."""

    url: str
    own: Mapping[str, Any] | None
    name: str
    host: str

    def options(self, common: DownloadOptions) -> DownloadOptions:
        """The item's own options merged with the common ones."""
        return DownloadOptions.of(common, **self.own) if self.own else common


def understand(number: int, item: Item, common: DownloadOptions) -> Wanted:
    """Parse an item and check its own options together with the ``common`` ones. Raises ``TypeError`` or
    ``ValueError`` with the item's number and what is wrong with it.
    """
    try:
        wanted = _read(item, str(common.save_dir))
        if wanted.own:
            wanted.options(common)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"items[{number}]: {error}") from None
    return wanted


def _read(item: Item, directory: str) -> Wanted:
    if not isinstance(item, str) and callable(getattr(item, "below", None)):
        listed, asked = cast(ListedItem, item).below(directory)
        item = cast(Item, (listed, asked) if asked else listed)
    if type(item) is str:
        # The fast path, which most items take.
        plain = _PLAIN_URL.fullmatch(item)
        if plain is not None and is_plain_filename(plain[2]) and not is_metadata_url(item):
            return Wanted(item, None, plain[2], plain[1])
    own: Mapping[str, Any] | None = None
    url: Any = item
    if isinstance(item, Mapping):
        if "url" not in item:
            raise ValueError(f"{dict(item)!r} has no 'url'")
        own = {name: value for name, value in item.items() if name != "url"}
        url = item["url"]
    elif isinstance(item, tuple | list):
        if len(item) != 2:
            raise TypeError(f"expected {_ACCEPTED}, not {len(item)} values")
        url, beside = item
        own = _own_options(beside)
    elif isinstance(item, bytes | os.PathLike) or item is None:
        raise TypeError(f"expected {_ACCEPTED}, not {type(item).__name__}")
    if own is not None:
        for name in own:
            if name not in _OPTIONS:
                raise TypeError(f"{name!r}: unknown option")
    url = as_string(url) if isinstance(url, str) else check_url(url)
    plain = _PLAIN_URL.fullmatch(url)
    if plain is not None and is_plain_filename(plain[2]) and not is_metadata_url(url):
        return Wanted(url, own or None, plain[2], plain[1])
    check_url(url)
    # A torrent or Metalink names its files itself.
    name = url if is_metadata_url(url) else choose_filename(url)
    return Wanted(url, own or None, name, host_of(url))


def _own_options(beside: object) -> Mapping[str, Any]:
    """The options from the second part of a pair: options, or the name of the file."""
    if isinstance(beside, Mapping):
        return beside
    if isinstance(beside, DownloadOptions):
        return beside.given
    if isinstance(beside, str | os.PathLike):
        return {"filename": os.fspath(beside)}
    raise TypeError(f"expected {_ACCEPTED}, not a URL and {type(beside).__name__}")
