"""Translation: our options into aria2's, and aria2's error codes into our errors."""

import errno

import pytest

from rangefetch.aria2.translate import judge, to_aria2
from rangefetch.errors import (
    BadAnswer,
    ConnectionFailed,
    DiskError,
    DownloadError,
    HttpStatusError,
    LocalError,
    NetworkError,
    TargetExists,
    TargetLocked,
    TimedOut,
)
from rangefetch.options import DownloadOptions
from rangefetch.transfer.retry import Kind, RetryPolicy


def _to_aria2(**options: object) -> dict[str, str]:
    return to_aria2(DownloadOptions.of(options), 1024)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"split": 7}, {"split": "7"}),
        ({"max_connection_per_server": 64}, {"max-connection-per-server": "16"}),
        ({"max_connection_per_server": 3}, {"max-connection-per-server": "3"}),
        ({"min_split_size": "8M"}, {"min-split-size": "8388608"}),
        ({"min_split_size": 1}, {"min-split-size": "1048576"}),
        ({"min_split_size": "4G"}, {"min-split-size": "1073741824"}),
        ({"max_download_limit": "1M"}, {"max-download-limit": "1048576"}),
        ({"user_agent": "tester/1"}, {"user-agent": "tester/1"}),
        ({"connect_timeout": 0.2, "read_timeout": 7.5}, {"connect-timeout": "1", "timeout": "8"}),
        ({"connect_timeout": 0, "read_timeout": 5000}, {"connect-timeout": "600", "timeout": "600"}),
        ({"max_tries": 2}, {"max-tries": "1", "retry-wait": "0"}),
        ({"max_tries": 0}, {"max-tries": "1", "retry-wait": "0"}),
        ({"proxy": "http://p:8080"}, {"http-proxy": "http://p:8080", "https-proxy": "http://p:8080"}),
        ({"proxy": "http://p:8080", "no_proxy": "a.org"}, {"no-proxy": "a.org,.a.org"}),
        ({"netrc": True}, {"no-netrc": "true"}),
        ({"netrc": __file__}, {"no-netrc": "true"}),
        ({}, {"no-netrc": "true", "file-allocation": "falloc", "pause": "false"}),
    ],
)
def test_options_are_translated(options: dict[str, object], expected: dict[str, str]) -> None:
    assert expected.items() <= _to_aria2(**options).items()


def test_a_server_that_allows_less_gets_less() -> None:
    options = to_aria2(DownloadOptions(), 3)
    assert (options["split"], options["max-connection-per-server"]) == ("3", "3")


@pytest.mark.parametrize(
    ("code", "message", "kind", "error"),
    [
        (1, "Failed to establish connection, cause: Connection refused", Kind.TEMPORARY, NetworkError),
        (2, "Timeout.", Kind.TEMPORARY, TimedOut),
        (3, "Resource not found", Kind.PERMANENT, HttpStatusError),
        (5, "Too slow Downloading speed: 0 <= 10(B/s), host:h", Kind.TEMPORARY, TimedOut),
        (6, "Network problem has occurred.", Kind.TEMPORARY, ConnectionFailed),
        (8, "Invalid range header. Request: 1-2/3, Response: 0-2/3", Kind.NO_RANGES, BadAnswer),
        (9, "Not enough disk space available.", Kind.LOCAL, DiskError),
        (11, "File x is being downloaded by other command.", Kind.LOCAL, TargetLocked),
        (13, "File x exists", Kind.LOCAL, TargetExists),
        (16, "Failed to open the file x, cause: Permission denied", Kind.LOCAL, DiskError),
        (19, "Name resolution for h failed:Domain name not found", Kind.TEMPORARY, ConnectionFailed),
        (22, "The response status is not successful. status=403", Kind.PERMANENT, HttpStatusError),
        (22, "The response status is not successful. status=500", Kind.TEMPORARY, HttpStatusError),
        (22, "The response status is not successful. status=429", Kind.RATE_LIMITED, HttpStatusError),
        (22, "Got bad header", Kind.TEMPORARY, BadAnswer),
        (23, "Too many redirects: count=20", Kind.PERMANENT, BadAnswer),
        (24, "Authorization failed.", Kind.PERMANENT, HttpStatusError),
        (26, "bad torrent", Kind.PERMANENT, BadAnswer),
        (28, "bad option", Kind.LOCAL, LocalError),
        (29, "The response status is not successful. status=504", Kind.TEMPORARY, HttpStatusError),
        (77, "of a version to come", Kind.TEMPORARY, NetworkError),
    ],
)
def test_error_codes_are_judged(code: int, message: str, kind: Kind, error: type[DownloadError]) -> None:
    found, what = judge(code, message, url="http://h/x", policy=RetryPolicy())
    assert (type(found), what) == (error, kind)
    assert found.url == "http://h/x"


@pytest.mark.parametrize(("code", "status"), [(3, 404), (24, 401), (29, 503)])
def test_codes_that_stand_for_a_status(code: int, status: int) -> None:
    assert judge(code, "", url="", policy=RetryPolicy())[0].status == status


def test_a_full_disk_has_its_number() -> None:
    error, _ = judge(9, "full", url="", policy=RetryPolicy())
    assert isinstance(error, DiskError)
    assert error.errno == errno.ENOSPC


def test_too_many_connections_are_told_from_a_refusal() -> None:
    message = "The response status is not successful. status=403"
    assert judge(22, message, url="", policy=RetryPolicy(), other_lanes=3)[1] is Kind.TOO_MANY_LANES
    _, kind = judge(22, message, url="", policy=RetryPolicy(), answered=True, redirected=True)
    assert kind is Kind.STALE_LINK


@pytest.mark.parametrize(
    "message",
    ["URI=http://user:hush@h/x?token=hush failed", "magnet:?xt=hush is bad\nreally", "a" * 5000, ""],
)
def test_what_aria2_says_is_told_in_one_line_without_urls(message: str) -> None:
    text = str(judge(1, message, url="http://h/x", policy=RetryPolicy())[0])
    assert "hush" not in text
    assert text.isprintable()
    assert len(text) < 400
