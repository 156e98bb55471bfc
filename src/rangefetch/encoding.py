"""Text as octets, where the locale of the process has no letters for it."""

from __future__ import annotations

import os

__all__ = ["for_file_system", "for_people"]


def for_file_system(name: str) -> str:
    """A name or path that can be used as one: where the locale lacks a letter of it (``LC_ALL=C``), its UTF-8 octets
    as :func:`os.fsdecode` gives them, so that the file is called the same as under any other locale.
    """
    if name.isascii():
        return name
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return os.fsdecode(name.encode("utf-8", "surrogateescape"))
    return name


def for_people(name: str) -> str:
    """The letters of such a name; of octets that are not UTF-8 what :func:`os.fsdecode` made of them."""
    if name.isascii():
        return name
    try:
        return os.fsencode(name).decode("utf-8")
    except UnicodeError:
        return name
