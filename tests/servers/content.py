"""The files that the test servers serve: reproducible bytes, in which a misplaced byte is noticed."""

import email.utils
import hashlib
import re
import threading
from collections import OrderedDict

__all__ = ["content", "etag", "http_date", "modified", "parse_size"]

_CACHE_LIMIT = 128 << 20  # bytes; each worker has its own cache
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

_cache: OrderedDict[tuple[int, int], bytes] = OrderedDict()
_cache_lock = threading.Lock()


def parse_size(size: str | int) -> int:
    """``8M`` -> 8388608; K, M and G are powers of 1024."""
    match = re.fullmatch(r"(-?\d+(?:\.\d+)?)([KMG]?)", str(size).upper())
    if match is None:
        raise ValueError(f"not a size: {size!r}")
    number, unit = match.groups()
    return int(number) * _UNITS[unit] if "." not in number else int(float(number) * _UNITS[unit])


def content(size: str | int, seed: int = 0) -> bytes:
    """The bytes of the file with this ``size`` and ``seed``. Any two files differ from their first bytes on."""
    size = parse_size(size)
    key = size, seed
    # Under the lock, so that sixteen lanes that ask for one file do not generate it sixteen times.
    with _cache_lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
        made = hashlib.shake_128(f"{size}:{seed}".encode()).digest(size)
        _cache[key] = made
        while len(_cache) > 1 and sum(map(len, _cache.values())) > _CACHE_LIMIT:
            _cache.popitem(last=False)
        return made


def etag(size: str | int, seed: int = 0) -> str:
    """The strong ETag of ``content(size, seed)``, quotes included."""
    return f'"{parse_size(size):x}-{seed:x}"'


def modified(seed: int = 0) -> int:
    """The modification time of the contents with this seed: seconds since 1970."""
    return 1_577_836_800 + 86_400 * seed


def http_date(seconds: float) -> str:
    """Seconds since 1970 as HTTP writes them: ``Wed, 01 Jan 2020 00:00:00 GMT``."""
    return email.utils.formatdate(seconds, usegmt=True)
