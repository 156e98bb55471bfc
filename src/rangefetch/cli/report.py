"""What came of each file, said once: a path or a JSON object on stdout, errors on stderr too."""

from __future__ import annotations

from typing import Any

from rangefetch.cli.display import Quiet
from rangefetch.encoding import for_people
from rangefetch.errors import DownloadError
from rangefetch.masking import mask_url, without_userinfo
from rangefetch.progress import DownloadResult, DownloadStatus
from rangefetch.transfer.effort import TOO_SHORT

__all__ = ["Report"]


class Report:
    """Says what came of the files of one command line. ``failures`` counts those that could not be fetched.

    With ``explains`` it notes what bound the speed of each, too.
    """

    def __init__(self, display: Quiet, *, as_json: bool, explains: bool = False) -> None:
        self.failures = 0
        self._display = display
        self._as_json = as_json
        self._explains = explains

    def done(self, url: str, result: DownloadResult) -> None:
        """The file of ``url`` is there."""
        if self._as_json:
            facts = {"error": None, "errorType": None, "httpStatus": None, **result.to_dict()}
            self._say_json(url, DownloadStatus.COMPLETE, **facts)
        else:
            self._display.result(str(result.path))
        if self._explains:
            self._display.note(f"{result.filename}: {_explained(result)}")

    def error(self, url: str, error: DownloadError) -> None:
        """The file of ``url`` could not be fetched."""
        self.failures += 1
        self._display.error(str(error) if error.url else f"{mask_url(url)}: {error}")
        if self._as_json:
            self._say_json(
                url,
                DownloadStatus.ERROR,
                error=error.reason,
                errorType=type(error).__name__,
                httpStatus=error.status or None,
                tried=list(error.tried),
                seconds=error.seconds,
                connections=error.connections,
            )

    def _say_json(self, url: str, status: DownloadStatus, **facts: Any) -> None:
        readable = {name: for_people(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
        import json

        self._display.result(json.dumps({"url": without_userinfo(url), "status": status.value, **readable}))


def _explained(result: DownloadResult) -> str:
    """What limited the speed of a file, for ``--explain``."""
    if result.already_complete:
        return "nothing was fetched"
    if result.bound in ("", TOO_SHORT):
        return f"{TOO_SHORT} what limited its speed ({result.seconds:.2f} s)"
    return f"what limited its speed: {result.bound}"
