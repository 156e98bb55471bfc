"""Names from a template: ``{host}/{path}``, ``{index:08d}{suffix}``, ``{sha256:.2}/{sha256}``, ``{column}``.

A field is a plain name, without attributes or indices, since the values are untrusted. The value of a field is one
component of a path, whatever it contains; only ``{path}`` and the manifest's ``{name}`` may contain directories.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

from rangefetch.disk.names import filename_from_url
from rangefetch.manifests.item import ManifestItem, check_path_below

__all__ = ["Template"]

_SUFFIX = re.compile(r"(?:\.tar)?\.[A-Za-z0-9_]{1,16}\Z")
_SPEC = re.compile(r"(?:[<>^])?0?\d{0,3}(?:\.\d{1,3})?[ds]?")
_LONGEST_VALUE = 4096


def _path(item: ManifestItem) -> str:
    return unquote(urlsplit(item.url).path).strip("/")


def _name(item: ManifestItem) -> str:
    return item.path or filename_from_url(item.url)


def _last(item: ManifestItem) -> str:
    return _name(item).rpartition("/")[2]


def _suffix(item: ManifestItem) -> str:
    match = _SUFFIX.search(_last(item))
    return match[0] if match else ""


def _stem(item: ManifestItem) -> str:
    return _SUFFIX.sub("", _last(item))


_WITH_DIRECTORIES: dict[str, Callable[[ManifestItem], str]] = {"path": _path, "name": _name}
_FIELDS: dict[str, Callable[[ManifestItem], str | int]] = {
    "host": lambda item: urlsplit(item.url).hostname or "",
    "index": lambda item: item.index,
    "line": lambda item: item.line,
    "stem": _stem,
    "suffix": _suffix,
}
_DIGESTS = {"md5": "md5", "sha1": "sha-1", "sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}


class Template:
    """A template for names. Raises ``ValueError`` if it is malformed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[tuple[str, str, str]] = []
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None
        for literal, field, spec, conversion in parts:
            if conversion or (field is not None and not field) or not _SPEC.fullmatch(spec or ""):
                raise ValueError(f"{text!r}: a field is {{NAME}}, {{NAME:08d}} or {{NAME:.2}}")
            self._parts.append((literal, field or "", spec or ""))
        if not any(field for _, field, _ in self._parts):
            raise ValueError(f"{text!r}: it has no field, so all files would get this name")

    def name(self, item: ManifestItem) -> str:
        """The name for an item's file, checked like a name from a manifest. Raises ``ValueError``."""
        made = "".join(
            literal + (self._value(field, spec, item) if field else "") for literal, field, spec in self._parts
        )
        checked = check_path_below(made)
        if not checked or checked.endswith("/"):
            raise ValueError(f"the name template gives {made!r}, which is not a file name")
        return checked

    def _value(self, field: str, spec: str, item: ManifestItem) -> str:
        value: str | int
        has_directories = False
        # The table's columns take precedence over our fields.
        if field in item.columns:
            value = item.columns[field]
        elif field in _WITH_DIRECTORIES:
            value, has_directories = _WITH_DIRECTORIES[field](item), True
        elif field in _FIELDS:
            value = _FIELDS[field](item)
        elif field in _DIGESTS:
            algorithm, _, value = item.checksum.partition("=")
            if algorithm != _DIGESTS[field]:
                raise ValueError(f"the name template needs its {field}, which the manifest does not give")
        else:
            raise ValueError(f"the name template needs {field!r}, but there is no such field or column")
        text = self._formatted(field, value, spec)
        return text if has_directories else re.sub(r"[/\\]", "_", text)

    def _formatted(self, field: str, value: str | int, spec: str) -> str:
        if isinstance(value, str):
            if len(value) > _LONGEST_VALUE:
                raise ValueError(f"its {field} is too long for a name")
            if not value and field != "suffix":
                raise ValueError(f"the name template needs its {field}, which is empty")
            if spec.endswith("d"):
                if not (value.strip().isascii() and value.strip().isdigit() and len(value) <= 20):
                    raise ValueError(f"its {field} is {value!r}, not a whole number")
                value = int(value)
        try:
            return format(value, spec)
        except ValueError as error:
            raise ValueError(f"{{{field}:{spec}}}: {error}") from None
