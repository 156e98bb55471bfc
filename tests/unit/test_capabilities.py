"""What each backend declares it can do, and the reason it gives for a download that it cannot run."""

from __future__ import annotations

from typing import Any

import pytest

from rangefetch.aria2.abilities import ARIA2
from rangefetch.options import DownloadOptions
from rangefetch.selection import BACKENDS, CAPABILITIES
from rangefetch.transfer.capabilities import NATIVE, Capabilities
from rangefetch.transfer.download import Download


def _download(url: str, *, sink: Any = None, **options: Any) -> Download:
    download = Download(url, DownloadOptions(**options))
    download.sink = sink
    return download


def test_each_backend_declares_itself_under_its_name() -> None:
    assert BACKENDS == ("native", "aria2")
    assert all(each.name == name for name, each in CAPABILITIES.items())


@pytest.mark.parametrize(
    ("url", "native", "aria2"),
    [
        ("https://h/x", "", ""),
        ("HTTP://h/x", "", ""),
        ("ftp://h/x", "does not serve ftp", ""),
        ("sftp://h/x", "does not serve sftp", ""),
        ("magnet:?xt=urn:btih:" + "0" * 40, "does not serve magnet", ""),
        ("gopher://h/x", "does not serve gopher", "does not serve gopher"),
    ],
)
def test_schemes_decide_first(url: str, native: str, aria2: str) -> None:
    assert (NATIVE.why_not(_download(url)), ARIA2.why_not(_download(url))) == (native, aria2)


def test_a_stream_takes_a_backend_that_streams() -> None:
    stream = _download("http://h/x", sink=object())
    assert NATIVE.why_not(stream) == ""
    assert ARIA2.why_not(stream) == "cannot stream"


def test_an_option_that_cannot_be_honoured_is_named() -> None:
    bound = _download("http://h/x", bind_address="127.0.0.1")
    assert NATIVE.why_not(bound) == ""
    assert ARIA2.why_not(bound).startswith("cannot honour bind_address: ")


def test_a_backend_refuses_nothing_unless_it_says_so() -> None:
    assert Capabilities("new", "", frozenset({"http"})).why_not(_download("http://h/x", bind_address="::1")) == ""
