"""Finds and loads the libcurl that the engine uses.

There are three places, in this order: the path in ``RANGEFETCH_LIBCURL``, the library bundled with pycurl (its compiled
module is opened without importing pycurl, which would take 36 ms), and the system's. If ``RANGEFETCH_LIBCURL`` is set
and does not work, that is an error; another library is never used silently.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from rangefetch import records
from rangefetch.errors import EngineUnavailable
from rangefetch.importing import no_fork

__all__ = ["LibcurlInfo", "load"]


@records.dataclass(frozen=True, slots=True)
class LibcurlInfo:
    """The loaded libcurl: its file, where that was found (``RANGEFETCH_LIBCURL``, ``pycurl`` or ``system``), and its
    versions.
    """

    path: str
    origin: str
    version: str
    ssl_version: str
    description: str


def _pycurl_modules() -> Iterator[str]:
    """pycurl's compiled module: inside its package since 7.47, or the module itself in older versions and as packaged
    by distributions.
    """
    try:
        spec = importlib.util.find_spec("pycurl")
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    for folder in spec.submodule_search_locations or ():
        yield from sorted(str(path) for path in Path(folder).glob("_pycurl*.so"))
        # On Windows, the DLL beside the package: the module there does not export the functions it was linked with.
        yield from sorted(str(path) for path in Path(folder).with_name("pycurl.libs").glob("libcurl*.dll"))
    if spec.origin and spec.origin.endswith(".so"):
        yield spec.origin


def _candidates() -> Iterator[tuple[str, str]]:
    named = os.environ.get("RANGEFETCH_LIBCURL")
    if named:
        yield "RANGEFETCH_LIBCURL", named
        return
    for path in _pycurl_modules():
        yield "pycurl", path
    with no_fork:
        import ctypes.util

    yield "system", ctypes.util.find_library("curl") or "libcurl.so.4"


@functools.cache
def load() -> LibcurlInfo:
    """Load libcurl once; later calls return the same result.

    Raises ``EngineUnavailable`` with each place that was tried and why it did not work.
    """
    try:
        with no_fork:
            from rangefetch._engine import load_libcurl
    except ImportError as error:
        raise EngineUnavailable(f"the native engine is not built for this platform ({error})") from None
    tried = []
    for origin, path in _candidates():
        try:
            found = load_libcurl(path)
        except OSError as error:
            tried.append(f"{origin} ({path}): {error}")
        else:
            return LibcurlInfo(
                origin=origin,
                **{name: os.path.realpath(value) if name == "path" else value for name, value in found.items()},
            )
    raise EngineUnavailable("no usable libcurl; tried " + "; ".join(tried))
