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
    """Opening a named pipe must not wait for its reader, nor writing to it. URLs are nobody else's business."""
    return system.open_file(path, flags)


def write_trace(path: str, gid: str, transfers: Iterable[Traced]) -> None:
    """Add a JSON line for each transfer to the file: its URL and its figures. A file that cannot be
    written is a warning.
    """
    with no_fork:
        import json
    try:
        with open(path, "a", encoding="utf-8", opener=_open_at_once) as file:
            for url, figures in transfers:
                file.write(json.dumps({"gid": gid, "url": mask_url(url), **figures}) + "\n")
    except OSError as error:
        _log.warning("%s: the trace cannot be written: %s", path, error.strerror)
