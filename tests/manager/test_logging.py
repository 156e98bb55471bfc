"""Logging: under one name, without handlers, and without secrets."""

import logging
import re
from pathlib import Path

import pytest

import rangefetch
from rangefetch import DownloadManager, DownloadStatus
from rangefetch.errors import DownloadError
from servers.counting import CountingServer
from servers.misbehaving import MisbehavingServer
from support.downloads import SIZE, SMALL, downloaded, into, status_of
from support.waiting import until

SECRET = "s3cret"


def _with_password(url: str) -> str:
    return url.replace("http://", f"http://user:{SECRET}@")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything logged during the test, from level DEBUG up."""
    caplog.set_level(logging.DEBUG)
    return caplog


def _everything(log: pytest.LogCaptureFixture) -> str:
    formatter = logging.Formatter("%(name)s %(message)s")
    return "\n".join(f"{formatter.format(record)} {record.args!r}" for record in log.records)


def test_the_logger_has_no_handlers_and_no_level(manager: DownloadManager) -> None:
    logger = logging.getLogger("rangefetch")
    assert logger.handlers == []
    assert logger.level == logging.NOTSET
    assert logger.propagate


def test_every_module_logs_under_the_one_name() -> None:
    sources = [path.read_text() for path in Path(rangefetch.__file__).parent.rglob("*.py")]
    loggers = {name for source in sources for name in re.findall(r"getLogger\(([^)]*)\)", source)}
    assert loggers <= {'"rangefetch"', "__name__"}
    assert not [
        source for source in sources if re.search(r"\blogging\.(debug|info|warning|error|basicConfig)\(", source)
    ]


@pytest.mark.parametrize(
    "path",
    [
        "/good/x?size=9M",
        "/status/x?code=404",
        "/status/x?code=503&times=2",
        "/status/x?code=429&times=1",
        "/redirect/x?size=9M",
        "/redirect-loop/x",
        "/script/x?size=9M&steps=good&then=good:seed=1",
        "/range-then-200/x?size=9M",
        "/cut/x?size=9M&after=100K",
        "/garbage/x",
        "/overflow/x",
    ],
)
def test_no_password_header_or_cookie_is_logged_or_told(
    server: MisbehavingServer,
    other_server: MisbehavingServer,
    target: Path,
    tmp_path: Path,
    log: pytest.LogCaptureFixture,
    path: str,
) -> None:
    cookies = tmp_path / "cookies.txt"
    cookies.write_text(f"# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tname\tcookie-{SECRET}\n")
    options = into(
        target,
        headers={"X-Api-Key": f"key-{SECRET}"},
        cookies=cookies,
        mirrors=[_with_password(other_server.url("/status/x", code=410))],
        max_tries=3,
    )
    with DownloadManager(session_file=tmp_path / "session.json") as manager:
        gid = manager.download(_with_password(server.url(path)), options)
        try:
            told = repr(manager.wait(gid, timeout=30))
        except DownloadError as error:
            told = f"{error} {error!r} {error.url} {error.tried}"
        told += repr(manager.list_downloads())
    assert any(request.headers["authorization"].startswith("Basic ") for request in server.requests)
    assert any(SECRET in request.headers["x-api-key"] for request in server.requests)
    assert SECRET not in told
    assert SECRET not in _everything(log)
    assert {record.name.partition(".")[0] for record in log.records} <= {"rangefetch"}


def test_no_secret_is_in_what_is_said_of_wrong_options(manager: DownloadManager) -> None:
    for url in (
        f"data://user:{SECRET}@host/x",
        f"http://user:{SECRET}@host:port/x",
        f"http://user:{SECRET}@host/a b",
    ):
        with pytest.raises(ValueError, match="url") as caught:
            manager.download(url)
        assert SECRET not in str(caught.value)


def test_a_proxys_password_is_not_logged(
    server: MisbehavingServer, target: Path, log: pytest.LogCaptureFixture
) -> None:
    proxy = f"http://user:{SECRET}@127.0.0.1:1"
    with DownloadManager() as manager, pytest.raises(DownloadError) as caught:
        manager.download_and_wait(server.url("/good/x"), into(target, proxy=proxy, max_tries=2))
    assert SECRET not in str(caught.value) + _everything(log)


def test_a_resumed_download_is_told_without_secrets(
    server: MisbehavingServer, target: Path, log: pytest.LogCaptureFixture
) -> None:
    url = _with_password(server.url("/script/x", size=SIZE, steps="slow:rate=1M"))
    with DownloadManager() as manager:
        gid = manager.download(url, into(target, split=1))
        until(lambda: downloaded(manager, gid) > SMALL)
        manager.pause(gid)
        assert status_of(manager, gid) is DownloadStatus.PAUSED
        manager.resume(gid)
        manager.wait(gid, timeout=30)
    assert "resuming with" in _everything(log)
    assert SECRET not in _everything(log)


def test_secrets_of_a_url_are_in_no_message_log_or_trace(
    server: MisbehavingServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trace = tmp_path / "trace"
    caplog.set_level("DEBUG", "rangefetch")
    # The server does not know these parameters, and responds with status 400.
    url = server.url("/good/x", size=1000) + "&X-Amz-Signature=s3cret&token=s3cret&id=7"
    with DownloadManager() as manager:
        with pytest.raises(rangefetch.DownloadError) as caught:
            manager.download_and_wait(url, {"save_dir": tmp_path, "max_tries": 1})
        with CountingServer() as other:
            url = other.url("y?X-Amz-Signature=s3cret&token=s3cret").replace("//", "//user:s3cret@")
            manager.download_and_wait(url, {"save_dir": tmp_path, "trace": trace, "headers": {"X-Token": "s3cret"}})
    assert "/y?" in trace.read_text()
    assert "id=7" in str(caught.value)
    assert "s3cret" not in str(caught.value) + caplog.text + trace.read_text() + repr(caught.value.tried)
    assert trace.stat().st_mode & 0o777 == 0o600
