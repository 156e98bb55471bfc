"""The ``rangefetch`` command: passes the URLs to a manager, shows progress, and exits with the right status."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NoReturn

from rangefetch.cli import display as displays
from rangefetch.cli.arguments import USAGE_ERROR, Request, parse
from rangefetch.cli.display import Quiet, amount, counted, together
from rangefetch.cli.signals import SIGNALLED, Signals
from rangefetch.errors import Cancelled, DownloadError, EngineUnavailable, LocalError, WaitTimeout
from rangefetch.logs import log
from rangefetch.masking import mask_url
from rangefetch.progress import DownloadStatus
from rangefetch.version import __version__

if TYPE_CHECKING:
    import logging

    from rangefetch.cli.report import Report
    from rangefetch.manager import DownloadManager

__all__ = ["main", "run"]

OK, FAILED = 0, 1
"""Exit statuses. Others are 2 for wrong usage, and those for signals."""

OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""Python's default is 700, with which the garbage collector would run many times while modules are imported."""

SECONDS_BETWEEN_LOOKS = 0.2
"""How often progress is read: fast enough for the eye, at little processor time."""


def main() -> NoReturn:
    """The command. It exits without Python's teardown, since the kernel frees the memory in a tenth of the time."""
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    _open_the_standard_three()
    status = run()
    atexit._run_exitfuncs()
    os._exit(status)


def _open_the_standard_three() -> None:
    """Open ``/dev/null`` in place of a closed stdin, stdout or stderr (``>&-``). Otherwise the next file or connection
    would get its number, and a library or child process that writes to it would write there.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def run(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status. ``--help`` and wrong usage raise ``SystemExit``."""
    try:
        status = _run(argv)
    except SystemExit as end:
        if not _flushed():
            return FAILED
        raise end
    except KeyboardInterrupt:  # before Signals was active: nothing has started
        status = SIGNALLED + signal.SIGINT
    return status if _flushed() else status or FAILED


def _run(argv: Sequence[str] | None) -> int:
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["run"]:
        from rangefetch.cli.runs import tell

        return tell(words[1:])
    request = parse(words)
    if request.version:
        return _show_version()
    with Signals() as signals:
        return _fetch(request, signals)


def _flushed() -> bool:
    """Flush stdout and return whether everything was written, or its reader has exited."""
    try:
        displays.flush()
    except OSError as error:
        Quiet().error(f"standard output: {error.strerror}")
        return False
    return True


def _show_version() -> int:
    from rangefetch.net import libcurl
    from rangefetch.transfer.capabilities import NATIVE

    display = Quiet()
    display.result(f"rangefetch {__version__}")
    display.result(f"Python {sys.version.split()[0]} ({sys.executable})")
    try:
        loaded = libcurl.load()
    except EngineUnavailable as error:
        # If RANGEFETCH_LIBCURL names a library, no other is tried, so installing one would not help.
        remedy = "" if os.environ.get("RANGEFETCH_LIBCURL") else NATIVE.remedy()
        display.error("; ".join(filter(None, (str(error), remedy, _instead()))))
        return FAILED
    display.result(f"libcurl {loaded.version} with {loaded.ssl_version}, from {loaded.origin}: {loaded.path}")
    display.result(loaded.description)
    return FAILED if display.lost_results else OK


def _instead() -> str:
    """What is used where the engine cannot run."""
    from rangefetch.aria2.binary import ensure_aria2
    from rangefetch.aria2.client import client_class
    from rangefetch.aria2.config import DaemonConfig

    try:
        found = ensure_aria2(DaemonConfig())
        client_class()
    except LocalError as error:
        return f"aria2 cannot be used either: {error}"
    return f"aria2 {found.version} is used instead: {found.path}"


def _fetch(request: Request, signals: Signals) -> int:
    from rangefetch.cli.report import Report

    display = displays.choose(quiet=request.quiet, explains=request.explain)
    with contextlib.ExitStack() as stack:
        journal = None
        if request.save_results:
            try:
                journal = stack.enter_context(open(request.save_results, "a", encoding="utf-8"))  # noqa: PTH123 - a string
            except OSError as error:
                display.error(f"--save-results: {request.save_results}: {error.strerror}")
                return USAGE_ERROR
        report = Report(display, as_json=request.json, explains=request.explain, journal=journal)
        return _fetch_and_report(request, signals, display, report)


def _fetch_and_report(request: Request, signals: Signals, display: Quiet, report: Report) -> int:
    with _warnings_to(display):
        _say_repeated(request, display)
        try:
            with _manager(request) as manager:
                if request.listed:
                    from rangefetch.cli.many import fetch_list

                    return fetch_list(manager, request, display, report, signals)
                downloads = _CommandDownloads(manager, display, report, signals)
                downloads.begin(request)
                with display:
                    downloads.follow()
                if downloads.waiting_for:
                    downloads.stop()
                    return SIGNALLED + signals.number
        except LocalError as error:  # no backend can run
            display.error(str(error))
            return FAILED
        except _WrongSetting as error:
            display.error(str(error))
            return USAGE_ERROR
    return FAILED if report.failures or display.lost_results else OK


def _say_repeated(request: Request, display: Quiet) -> None:
    for url in request.repeated:
        display.note(f"{mask_url(url)}: given more than once, fetched once")


class _WrongSetting(Exception):
    """An environment variable has an invalid value."""


def _manager(request: Request) -> DownloadManager:
    from rangefetch.shared import init_download_manager
    from rangefetch.transfer.retry import RetryPolicy

    try:
        return init_download_manager(
            request.backend,
            prefer=request.prefer,
            max_concurrent_downloads=request.max_concurrent_downloads,
            max_overall_download_limit=request.max_overall_download_limit,
            retry_policy=None if request.network_wait is None else RetryPolicy(network_wait=request.network_wait),
        )
    except ValueError as error:  # the arguments have been checked, so RANGEFETCH_BACKEND is wrong
        raise _WrongSetting(f"RANGEFETCH_BACKEND: {str(error).partition(': ')[2]}") from None


class _CommandDownloads:
    """The downloads of one command line.

    ``waiting_for`` are those that have not ended: gid -> URL, in the order of the command line.
    """

    def __init__(self, manager: DownloadManager, display: Quiet, report: Report, signals: Signals) -> None:
        self.waiting_for: dict[str, str] = {}
        self._manager = manager
        self._display = display
        self._report = report
        self._signals = signals
        self._urls: dict[str, str] = {}

    def begin(self, request: Request) -> None:
        """Pass all URLs to the manager."""
        for url in request.urls:
            try:
                gid = self._manager.download(url, request.options)
            except DownloadError as error:
                self._report.error(url, error)
            else:
                self._urls[gid] = self.waiting_for[gid] = url

    def follow(self) -> None:
        """Show progress until all downloads have ended, or a signal arrives."""
        while self.waiting_for and not self._signals.number:
            next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
            # Wait for the oldest download, so that many small files can end without a redraw for each.
            while self.waiting_for and self._report_end(next(iter(self.waiting_for)), next_look - time.monotonic()):
                pass
            downloads = {
                progress.gid: progress for progress in self._manager.list_downloads() if progress.gid in self._urls
            }
            for gid in list(self.waiting_for):
                if downloads[gid].status in (DownloadStatus.COMPLETE, DownloadStatus.ERROR):
                    self._report_end(gid, 0)
            self._display.update({self._urls[gid]: progress for gid, progress in downloads.items()})

    def stop(self) -> None:
        """After a signal: save all states, report downloads that ended meanwhile, and say how to continue."""
        self._manager.stop()
        for gid in list(self.waiting_for):
            self._report_end(gid, 0)
        rest = together(self._manager.get_download_progress(gid) for gid in self.waiting_for)
        stands = f"stands at {amount(rest.downloaded)}" + (f" of {amount(rest.total)}" if rest.total else "")
        done = len(self._urls) - len(self.waiting_for)
        failed = self._report.failures
        ended = f"{counted(done - failed, 'file')} done" + (f", {failed} failed" if failed else "")
        subject = f"{ended}, the rest" if len(self._urls) > 1 else "the file"
        self._display.error(f"{self._signals.word}; run the same command again to continue: {subject} {stands}")

    def _report_end(self, gid: str, seconds: float) -> bool:
        """Report the download if it ends within ``seconds``; returns whether it did."""
        url = self.waiting_for[gid]
        try:
            result = self._manager.wait(gid, timeout=max(seconds, 0))
        except WaitTimeout:
            return False
        except DownloadError as error:
            if isinstance(error, Cancelled) and self._signals.number:
                return False
            self._report.error(url, error)
        else:
            self._display.ended(url, result)
            self._report.done(url, result)
        del self.waiting_for[gid]
        return True


@contextlib.contextmanager
def _warnings_to(display: Quiet) -> Iterator[None]:
    """Show the package's log warnings (such as a remote file that has changed) as notes."""
    leave = contextlib.ExitStack()

    def listen(logger: logging.Logger) -> None:
        import logging

        class ToDisplay(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                display.note(f"warning: {record.getMessage()}")

        handler = ToDisplay(logging.WARNING)
        logger.addHandler(handler)
        leave.callback(logger.removeHandler, handler)

    log.prepare(listen)
    leave.callback(log.prepare, None)
    with leave:
        yield
