"""What may be given for one of many files, and how it is understood."""

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
    """An item of a manifest, which says what it is to be fetched with (``manifests.item``)."""

    def below(self, directory: str) -> tuple[str, Mapping[str, Any]]:
        """The URL and the options, when it is saved below ``directory``."""
        ...


Item = str | tuple[str, str | Mapping[str, Any] | DownloadOptions] | Mapping[str, Any] | ListedItem
"""A URL; a URL and the name of the file, or options; a mapping with ``url`` and options; or an item of a manifest."""

# URLs and names that are in order without a closer look, which for 100,000 of them would take seconds.
_PLAIN_URL = re.compile(
    r"(https?://[A-Za-z0-9.-]+(?::[1-9][0-9]{0,3}|:[1-5][0-9]{4})?)/(?:[!-\"$->@-~]*/)?([A-Za-z0-9_][A-Za-z0-9_.+~-]{3,150}[A-Za-z0-9_])"
)
_OPTIONS = frozenset(field.name for field in records.fields(DownloadOptions))
_ACCEPTED = "a URL, (url, name), (url, options), or a mapping with 'url' and options"


@records.dataclass(slots=True)
class Wanted:
    """One item: what it asks for beyond the common options, and the name and host that its URL gives."""

    url: str
    own: Mapping[str, Any] | None
    name: str
    host: str

    def options(self, common: DownloadOptions) -> DownloadOptions:
        """All of its options."""
        return DownloadOptions.of(common, **self.own) if self.own else common


def understand(number: int, item: Item, common: DownloadOptions) -> Wanted:
    """What an item says, whose own options are checked together with those that are ``common`` to all. Raises
    ``TypeError`` or ``ValueError`` that says which of the items, by its number, and what is wrong with it.
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
        # As most are: nothing of what follows has anything to do.
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
    # What a torrent brings is named by itself.
    name = url if is_metadata_url(url) else choose_filename(url)
    return Wanted(url, own or None, name, host_of(url))


def _own_options(beside: object) -> Mapping[str, Any]:
    """What stands beside a URL: options, or the name of the file."""
    if isinstance(beside, Mapping):
        return beside
    if isinstance(beside, DownloadOptions):
        return beside.given
    if isinstance(beside, str | os.PathLike):
        return {"filename": os.fspath(beside)}
    raise TypeError(f"expected {_ACCEPTED}, not a URL and {type(beside).__name__}")
