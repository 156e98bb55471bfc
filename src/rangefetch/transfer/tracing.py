"""The user's trace: a line for each transfer."""

from __future__ import annotations

from collections.abc import Iterable

from rangefetch.disk import system
from rangefetch.importing import no_fork
from rangefetch.logs import log as _log
from rangefetch.masking import mask_url
from rangefetch.transfer.events import Traced

__all__ = ["write_trace"]


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for the reader of a named pipe, and readable by the user alone, as URLs are private."""
    return system.open_file(path, flags)


def write_trace(path: str, gid: str, transfers: Iterable[Traced]) -> None:
    """Append a JSON line for each transfer to the file: its URL and its figures. If that fails, a warning is logged."""
    with no_fork:
        import json
    try:
        with open(path, "a", encoding="utf-8", opener=_open_at_once) as file:
            for url, figures in transfers:
                file.write(json.dumps({"gid": gid, "url": mask_url(url), **figures}) + "\n")
    except OSError as error:
        _log.warning("%s: the trace cannot be written: %s", path, error.strerror)
