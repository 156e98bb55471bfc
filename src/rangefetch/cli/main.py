"""The command ``rangefetch``: hand the URLs to a manager, show what happens, end with the right status."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rangefetch.cli import display as displays
from rangefetch.cli.arguments import Request, parse
from rangefetch.cli.display import Quiet, amount, counted, together
from rangefetch.errors import Cancelled, DownloadError, EngineUnavailable
from rangefetch.network import mask_url
from rangefetch.progress import DownloadResult, DownloadStatus
from rangefetch.version import __version__

if TYPE_CHECKING:
    from rangefetch.manager import DownloadManager

__all__ = ["run"]

OK, FAILED, SIGNALLED = 0, 1, 128
"""Exit statuses; a signal's number is added to the last, as shells do. Wrong usage is 2."""

SECONDS_BETWEEN_LOOKS = 0.2
"""Progress is pulled this often: fast enough for the eye, and nothing for the processor."""

SECONDS_OF_PATIENCE = 3.0
"""How long stopping may take before a further signal ends the process where it stands."""


def run(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit status. ``--help`` and wrong usage raise ``SystemExit``."""
    try:
        request = parse(argv)
        if request.version:
            return _show_version()
        with _Signals() as signals:
            return _fetch(request, signals)
    except KeyboardInterrupt:  # before the signals were caught: nothing has begun
        return SIGNALLED + signal.SIGINT
    finally:
        displays.flush()


def _show_version() -> int:
    from rangefetch import libcurl

    print(f"rangefetch {__version__}")
    print(f"Python {sys.version.split()[0]} ({sys.executable})")
    try:
        loaded = libcurl.load()
    except EngineUnavailable as error:
        displays.flush()  # so that the lines come in this order
        Quiet().error(str(error))
        return FAILED
    print(f"libcurl {loaded.version} with {loaded.ssl_version}, from {loaded.origin}: {loaded.path}")
    print(loaded.description)
    return OK


def _fetch(request: Request, signals: _Signals) -> int:
    from rangefetch.manager import DownloadManager

    display = displays.choose(quiet=request.quiet)
    with _warnings_to(display):
        for url in request.repeated:
            display.note(f"{mask_url(url)}: given more than once, fetched once")
        try:
            with DownloadManager(max_concurrent_downloads=request.max_concurrent_downloads) as manager:
                batch = _Batch(manager, display, signals, as_json=request.json)
                batch.begin(request)
                with display:
                    batch.follow()
                if batch.waiting_for:
                    batch.stop()
                    return SIGNALLED + signals.number
        except EngineUnavailable as error:
            display.error(str(error))
            return FAILED
    return FAILED if batch.failed or display.lost_results else OK


class _Batch:
    """The downloads of one command line.

    ``waiting_for`` are those that have not ended: gid -> URL, in the order they were typed.
    """

    def __init__(self, manager: DownloadManager, display: Quiet, signals: _Signals, *, as_json: bool) -> None:
        self.waiting_for: dict[str, str] = {}
        self.failed = False
        self._manager = manager
        self._display = display
        self._signals = signals
        self._as_json = as_json
        self._urls: dict[str, str] = {}

    def begin(self, request: Request) -> None:
        """Hand all of them to the manager."""
        for url in request.urls:
            try:
                gid = self._manager.download(url, request.options)
            except DownloadError as error:
                self._report_failure(url, error)
            else:
                self._urls[gid] = self.waiting_for[gid] = url

    def follow(self) -> None:
        """Show how they get on until all have ended, or a signal came."""
        while self.waiting_for and not self._signals.number:
            next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
            # The oldest is waited for, not looked at: many small files must not cost a look each.
            while self.waiting_for and self._settle(next(iter(self.waiting_for)), next_look - time.monotonic()):
                pass
            downloads = {
                progress.gid: progress for progress in self._manager.list_downloads() if progress.gid in self._urls
            }
            for gid in list(self.waiting_for):
                if downloads[gid].status in (DownloadStatus.COMPLETE, DownloadStatus.ERROR):
                    self._settle(gid, 0)
            self._display.update({self._urls[gid]: progress for gid, progress in downloads.items()})

    def stop(self) -> None:
        """After a signal: save what there is, report what ended in the meantime, and say how to go on."""
        self._manager.stop()
        for gid in list(self.waiting_for):
            self._settle(gid, 0)
        rest = together(self._manager.get_download_progress(gid) for gid in self.waiting_for)
        stands = f"stands at {amount(rest.downloaded)}" + (f" of {amount(rest.total)}" if rest.total else "")
        done = len(self._urls) - len(self.waiting_for)
        subject = f"{counted(done, 'file')} done, the rest" if len(self._urls) > 1 else "the file"
        self._display.error(f"{self._signals.word}; run the same command again to continue: {subject} {stands}")

    def _settle(self, gid: str, seconds: float) -> bool:
        """Report the download if it ends within so many seconds; whether it did."""
        url = self.waiting_for[gid]
        try:
            result = self._manager.wait(gid, timeout=max(seconds, 0))
        except DownloadError as error:  # before TimeoutError, which TimedOut is too
            if isinstance(error, Cancelled) and self._signals.number:
                return False
            self._report_failure(url, error)
        except TimeoutError:
            return False
        else:
            self._report(url, result)
        del self.waiting_for[gid]
        return True

    def _report(self, url: str, result: DownloadResult) -> None:
        self._display.ended(url, result)
        if self._as_json:
            self._say_json(url, DownloadStatus.COMPLETE, error=None, **result.to_dict())
        else:
            self._display.result(str(result.path))

    def _report_failure(self, url: str, error: DownloadError) -> None:
        self.failed = True
        self._display.error(str(error) if error.url else f"{mask_url(url)}: {error}")
        if self._as_json:
            self._say_json(
                url,
                DownloadStatus.ERROR,
                error=error.reason,
                errorType=type(error).__name__,
                httpStatus=error.status,
                tried=list(error.tried),
            )

    def _say_json(self, url: str, status: DownloadStatus, **facts: Any) -> None:
        self._display.result(json.dumps({"url": mask_url(url), "status": status.value, **facts}))


class _Signals:
    """Makes the signals that end a program a number to look at, so that it can end in good order.

    After a signal they are ignored when the context ends: a second Ctrl-C may come while Python shuts down, and
    would end in a traceback, or in another exit status.
    """

    _words: ClassVar = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "hung up"}

    def __init__(self) -> None:
        self.number = 0
        self._came_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    @property
    def word(self) -> str:
        """What happened, for a line."""
        return self._words[signal.Signals(self.number).name]

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for wanted in self._wanted():
                self._before[wanted] = signal.signal(wanted, self._came)
        return self

    def __exit__(self, *_: object) -> None:
        for wanted, handler in self._before.items():
            signal.signal(wanted, signal.SIG_IGN if self.number else handler)

    @staticmethod
    def _wanted() -> Iterator[signal.Signals]:
        yield signal.SIGINT
        yield signal.SIGTERM
        hangup = getattr(signal, "SIGHUP", None)  # Windows has none, and under nohup it is ignored
        if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
            yield hangup

    def _came(self, number: int, _frame: object) -> None:
        if not self.number:
            self.number, self._came_at = number, time.monotonic()
        elif time.monotonic() - self._came_at > SECONDS_OF_PATIENCE:
            os._exit(SIGNALLED + number)


@contextlib.contextmanager
def _warnings_to(display: Quiet) -> Iterator[None]:
    """What the package logs as a warning (a remote file that changed, say) becomes a note."""
    import logging

    class ToDisplay(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            display.note(record.getMessage())

    handler = ToDisplay(logging.WARNING)
    logger = logging.getLogger("rangefetch")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
