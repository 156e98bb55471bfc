"""The same with nginx, the server that most people have."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flow.children import run_child
from rangefetch import DownloadManager
from rangefetch.errors import TlsError
from servers.misbehaving import content
from servers.nginx import LogLine, Nginx
from servers.programs import require
from servers.tls import Certificates
from support.downloads import fails, fetch, interrupt
from support.files import MIB, begun, names
from support.waiting import until

SIZE = 40 * MIB + 3


@pytest.fixture(scope="module")
def slow_nginx() -> Iterator[Nginx]:
    """An nginx that sends 2 MiB of each reply at once, and then 2 MiB/s."""
    require(Nginx.available(), "nginx", "RANGEFETCH_REQUIRE_NGINX")
    with Nginx(limit_rate="2m") as server:
        yield server


def _written(nginx: Nginx, name: str, size: int = SIZE) -> str:
    file = nginx.write(name, content(size))
    os.utime(file, (0, 1_000_000_000))
    nginx.clear_log()
    return name


def _log(nginx: Nginx, size: int) -> list[LogLine]:
    """The requests so far, once they have brought ``size`` bytes: nginx may write the last line late."""
    until(lambda: sum(line.body_bytes_sent for line in nginx.log()) >= size)
    return nginx.log()


@pytest.mark.parametrize("split", [1, 4])
def test_http_gives_the_file_over_few_connections(nginx: Nginx, target: Path, split: int) -> None:
    result = fetch(nginx.url(_written(nginx, "/plain.bin")), target, split=split)
    assert target.read_bytes() == content(SIZE)
    assert target.stat().st_mtime == 1_000_000_000
    log = _log(nginx, SIZE)
    assert {line.status for line in log} == {206}
    connections = len({line.connection for line in log})
    # When one lane helps another at the end, the slower transfer is broken off, which costs its connection.
    assert result.connections <= connections <= (1 if split == 1 else 2 * split)
    assert connections < len(log)
    if split == 1:
        assert sum(line.body_bytes_sent for line in log) == SIZE


def test_https_gives_the_same(nginx: Nginx, certificates: Certificates, target: Path) -> None:
    url = nginx.https_url(_written(nginx, "/secure.bin"))
    fetch(url, target, split=4, ca_file=certificates.ca)
    assert target.read_bytes() == content(SIZE)
    log = _log(nginx, SIZE)
    assert {(line.status, line.port, line.protocol) for line in log} == {(206, nginx.https_port, "HTTP/1.1")}
    assert len({line.connection for line in log}) <= 2 * 4


def test_https_works_with_the_environments_ca_file(nginx: Nginx, certificates: Certificates, target: Path) -> None:
    url = nginx.https_url(_written(nginx, "/environment.bin", MIB))
    done = run_child("fetch", url, target, SSL_CERT_FILE=str(certificates.ca))
    assert (done.returncode, done.stderr) == (0, "")
    assert target.read_bytes() == content(MIB)


@pytest.mark.parametrize(("version", "protocol"), [("1.1", "HTTP/1.1"), ("2", "HTTP/2.0")])
def test_a_server_with_http_2_is_spoken_to_as_asked(
    nginx: Nginx, certificates: Certificates, target: Path, manager: DownloadManager, version: str, protocol: str
) -> None:
    url = nginx.http2_url(_written(nginx, "/two.bin"))
    where = {"save_dir": target.parent, "filename": target.name}
    manager.download_and_wait(url, where | {"split": 4, "ca_file": certificates.ca, "http_version": version})
    assert target.read_bytes() == content(SIZE)
    log = nginx.log(at_least=2)
    assert {line.protocol for line in log} == {protocol}
    connections = len({line.connection for line in log})
    assert connections == 1 if version == "2" else 1 < connections <= 4


def test_a_port_that_speaks_no_tls_is_said_so(nginx: Nginx, target: Path) -> None:
    fails(TlsError, nginx.url("/x").replace("http:", "https:"), target, max_tries=2)
    assert names(target.parent) == []


@pytest.mark.parametrize("size", [0, 1, 100_001])
def test_a_small_file_costs_one_request(nginx: Nginx, target: Path, size: int) -> None:
    fetch(nginx.url(_written(nginx, f"/small-{size}.bin", size)), target)
    assert target.read_bytes() == content(size)
    # That the file is empty must be confirmed by a plain request.
    assert len(nginx.log(at_least=1)) == (1 if size else 2)


def test_a_finished_file_is_already_complete(nginx: Nginx, target: Path) -> None:
    url = nginx.url(_written(nginx, "/again.bin"))
    fetch(url, target)
    nginx.clear_log()
    assert fetch(url, target).already_complete
    assert sum(line.body_bytes_sent for line in nginx.log(at_least=1)) < 64 << 10


def test_a_stopped_download_goes_on(slow_nginx: Nginx, target: Path) -> None:
    size = 9 * MIB
    url = slow_nginx.url(_written(slow_nginx, "/resumed.bin", size))
    kept = interrupt(url, target, MIB, split=1)
    until(lambda: slow_nginx.log())
    slow_nginx.clear_log()
    result = fetch(url, target, split=1)
    assert target.read_bytes() == content(size)
    assert result.resumed == kept
    assert sum(line.body_bytes_sent for line in _log(slow_nginx, size - kept)) == size - kept


def test_a_file_that_was_replaced_is_fetched_anew(
    slow_nginx: Nginx, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size = 9 * MIB
    url = slow_nginx.url(_written(slow_nginx, "/replaced.bin", size))
    interrupt(url, target, MIB, split=1)
    assert names(target.parent) == begun(target)
    slow_nginx.write("/replaced.bin", content(size, 1))
    fetch(url, target, split=16, min_split_size=1)
    assert target.read_bytes() == content(size, 1)
    assert "starting over" in caplog.text
