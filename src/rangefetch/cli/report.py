"""Reports the outcome of each file once: a path or a JSON object on stdout, and errors on stderr as well."""

from __future__ import annotations

from typing import IO, Any

from rangefetch.cli.display import Quiet
from rangefetch.encoding import for_people
from rangefetch.errors import DownloadError, HostUnreachable
from rangefetch.masking import mask_url, without_userinfo
from rangefetch.progress import DownloadResult, DownloadStatus, path_of
from rangefetch.transfer.effort import TOO_SHORT

__all__ = ["JSON_VERSION", "Report"]


JSON_VERSION = 1
"""The version of the fields of ``--json``. Within a version, fields may be added, but none is removed or changes its
meaning.
"""


class Report:
    """Reports the outcomes of one command line's files. ``failures`` counts those that could not be fetched.

    With ``explains``, it also says what limited the speed of each file. With ``journal``, JSON lines are also written
    to that file.
    """

    def __init__(
        self, display: Quiet, *, as_json: bool, explains: bool = False, journal: IO[str] | None = None
    ) -> None:
        self.failures = 0
        self._display = display
        self._as_json = as_json
        self._explains = explains
        self._journal = journal

    def done(self, url: str, result: DownloadResult, *, line: int = 0) -> None:
        """Report that the file of ``url`` is complete; ``line`` is its line in a list."""
        if self._as_json or self._journal is not None:
            facts = {"error": None, "errorType": None, "httpStatus": None, **result.to_dict()}
            self._say_json(url, DownloadStatus.COMPLETE, line, **facts)
        if not self._as_json:
            self._display.result(path_of(result))
        if self._explains:
            self._display.note(f"{result.filename}: {_explained(result)}")

    def error(self, url: str, error: DownloadError, *, line: int = 0, place: str = "") -> None:
        """Report that the file of ``url`` could not be fetched; ``place`` is put before the message."""
        self.failures += 1
        if not isinstance(error, HostUnreachable):  # these are reported together, in one line per host
            self._display.error(place + (str(error) if error.url else f"{mask_url(url)}: {error}"))
        if self._as_json or self._journal is not None:
            self._say_json(
                url,
                DownloadStatus.ERROR,
                line,
                error=error.reason,
                errorType=type(error).__name__,
                httpStatus=error.status or None,
                tried=list(error.tried),
                seconds=error.seconds,
                connections=error.connections,
            )

    def _say_json(self, url: str, status: DownloadStatus, line: int, **facts: Any) -> None:
        import json

        readable = {name: for_people(fact) if isinstance(fact, str) else fact for name, fact in facts.items()}
        known: dict[str, Any] = {"version": JSON_VERSION, "url": without_userinfo(url), "status": status.value}
        if line:
            known["line"] = line
        text = json.dumps(known | readable)
        if self._as_json:
            self._display.result(text)
        if self._journal is not None:
            try:
                self._journal.write(f"{text}\n")
                self._journal.flush()
            except OSError as error:
                self._display.lost_results = True
                self._display.error(f"{self._journal.name}: {error.strerror}")
                self._journal = None


def _explained(result: DownloadResult) -> str:
    """What limited the speed of a file, for ``--explain``."""
    if result.already_complete:
        return "nothing was fetched"
    if not result.bound:
        return "what limited its speed is not known"  # it was aria2 that fetched it
    if result.bound == TOO_SHORT:
        return f"{TOO_SHORT} what limited its speed ({result.seconds:.2f} s)"
    return f"what limited its speed: {result.bound}"
