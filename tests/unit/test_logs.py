"""The package's log: a handler that raises disturbs nothing else, and lines name the function that logged them."""

import logging
import sys

import pytest

from rangefetch.logs import _Log, log


class _Raises(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("the handler is broken")


def test_a_handler_that_raises_reaches_nobody_else(capsys: pytest.CaptureFixture[str]) -> None:
    handler = _Raises()
    log.logger.addHandler(handler)
    try:
        log.warning("a line")
    finally:
        log.logger.removeHandler(handler)
    assert "the handler is broken" in capsys.readouterr().err


def test_where_logging_cannot_be_imported_a_line_is_lost_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "logging", None)  # an import raises ImportError
    other = _Log()
    other.warning("a line")
    try:
        raise ValueError("what happened")
    except ValueError:
        other.exception("it failed")


def test_a_line_names_its_caller(caplog: pytest.LogCaptureFixture) -> None:
    log.warning("number %d", 7)
    log.error("another")
    assert [(each.name, each.getMessage(), each.funcName) for each in caplog.records] == [
        ("rangefetch", "number 7", "test_a_line_names_its_caller"),
        ("rangefetch", "another", "test_a_line_names_its_caller"),
    ]


def test_an_exception_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("what happened")
    except ValueError:
        log.exception("it failed")
    assert caplog.records[0].exc_info is not None
    assert "ValueError: what happened" in caplog.text
