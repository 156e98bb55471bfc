"""Encoding of file names when the process's locale cannot encode them."""

from __future__ import annotations

import os

__all__ = ["for_file_system", "for_people"]


def for_file_system(name: str) -> str:
    """Make a name or path usable in file operations. If the locale cannot encode it (``LC_ALL=C``), return its UTF-8
    bytes as decoded by :func:`os.fsdecode`, so that the file gets the same name as under any other locale.
    """
    if name.isascii():
        return name
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return os.fsdecode(name.encode("utf-8", "surrogateescape"))
    return name


def for_people(name: str) -> str:
    """Undo ``for_file_system`` for display. Bytes that are not UTF-8 stay as :func:`os.fsdecode` returned them."""
    if name.isascii():
        return name
    try:
        return os.fsencode(name).decode("utf-8")
    except UnicodeError:
        return name
