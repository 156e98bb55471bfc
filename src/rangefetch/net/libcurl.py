"""Which libcurl the engine runs on: found, loaded and described.

Three places, in order: the path in ``RANGEFETCH_LIBCURL``, the one that pycurl brings (its compiled module is opened
without importing pycurl, which would cost 36 ms), the system's. The first that is named decides: a path in the
environment that does not work is an error, never a reason to run on another library in silence.
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
    """The loaded libcurl: its file, who named it (``RANGEFETCH_LIBCURL``, ``pycurl`` or ``system``), and versions."""

    path: str
    origin: str
    version: str
    ssl_version: str
    description: str


def _pycurl_modules() -> Iterator[str]:
    """pycurl's compiled module: in its package since 7.47, the module itself before and in distributions."""
    try:
        spec = importlib.util.find_spec("pycurl")
    except (ImportError, ValueError):
        return
    if spec is None:
        return
    for folder in spec.submodule_search_locations or ():
        yield from sorted(str(path) for path in Path(folder).glob("_pycurl*.so"))
        # What Windows has beside it: there a module gives away nothing of what it was linked with.
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
    """Load libcurl, once; later calls return what the first found.

    Raises ``EngineUnavailable`` naming each place that was tried and what was wrong with it.
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
