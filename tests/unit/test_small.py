"""What is told of a download that is taken for a small file."""

from typing import Any
from unittest.mock import Mock

from rangefetch.errors import TimedOut
from rangefetch.native.small import Small, _Stage
from rangefetch.options import DownloadOptions
from rangefetch.transfer.download import Download
from rangefetch.transfer.events import EngineEvent


def test_one_that_was_given_up_is_told_once() -> None:
    """The engine may let go of it later."""
    backend: Any = Mock()
    small = Small(backend, Download("http://h/x", DownloadOptions()))
    small.file = Mock(connections=1)
    small._stage = _Stage.LEAVING
    error = TimedOut("not finished after 1 seconds")
    small.tell_end(error)
    let_go: Any = EngineEvent._make(["REMOVED", small.file, *[0] * 7, "", "", *[0] * 3, "", 0, None])
    small.handle(let_go)
    backend.listener.failed.assert_called_once_with(small.download, error)
    backend.listener.halted.assert_not_called()
