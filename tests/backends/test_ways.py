"""Proxies: with either backend a download uses the requested proxy or does not take place."""

from pathlib import Path

import pytest

from backends.conftest import Make
from rangefetch import DownloadManager
from rangefetch.errors import LocalError
from rangefetch.net.proxies import VARIABLES
from servers.misbehaving import MisbehavingServer, content
from servers.proxies import Socks5
from support.downloads import QUICK, into
from support.files import MIB, names

SIZE = 3 * MIB


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "ALL_PROXY"])
def test_an_http_proxy_of_the_environment(
    manager: DownloadManager, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"http://127.0.0.1:{server.port}")
    url = server.url("/good/x", size=SIZE).replace("127.0.0.1", "nowhere.invalid")
    assert manager.download_and_wait(url, into(target)).path.read_bytes() == content(SIZE)


@pytest.mark.parametrize("exempt", ["option", "no_proxy", "NO_PROXY"])
@pytest.mark.parametrize("entry", ["*", "127.0.0.1", "127.0.0.0/8", "other.org,127.0.0.1"])
def test_exceptions_hold_for_both(
    manager: DownloadManager,
    server: MisbehavingServer,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    exempt: str,
    entry: str,
) -> None:
    if exempt != "option":
        monkeypatch.setenv(exempt, entry)
    options = {"no_proxy": entry} if exempt == "option" else {}
    result = manager.download_and_wait(
        server.url("/good/x", size=SIZE), into(target, proxy="http://127.0.0.1:1", **options)
    )
    assert result.size == SIZE


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("place", ["option", "http_proxy", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("prefer", ["native", "aria2"])
def test_what_takes_a_socks_proxy_takes_the_native_engine(
    make: Make,
    server: MisbehavingServer,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    place: str,
    prefer: str,
) -> None:
    with Socks5() as proxy, make(prefer=prefer) as manager:
        url = f"{scheme}://127.0.0.1:{proxy.port}"
        if place != "option":
            monkeypatch.setenv(place, url)
        options = {"proxy": url} if place == "option" else {}
        result = manager.download_and_wait(server.url("/good/x", size=SIZE), into(target, **options))
        assert result.path.read_bytes() == content(SIZE)
        assert len(proxy.asked) == server.connections > 0


def test_where_only_aria2_may_run_it_is_an_error_in_one_line(
    make: Make, server: MisbehavingServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "socks5://user:word@127.0.0.1:1")
    with make("aria2") as manager, pytest.raises(LocalError, match="proxy: aria2 supports HTTP") as caught:
        manager.download_and_wait(server.url("/good/x", size=SIZE), into(target))
    assert "word" not in str(caught.value)
    assert server.connections == 0
    assert names(target.parent) == []


def test_ftp_does_not_go_past_a_socks_proxy_either(make: Make, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1")
    with make() as manager, pytest.raises(LocalError, match="proxy"):
        manager.download_and_wait("ftp://127.0.0.1:2/x", QUICK | {"save_dir": target.parent})


def test_an_address_of_this_machine_takes_the_native_engine(
    make: Make, server: MisbehavingServer, target: Path
) -> None:
    with make(prefer="aria2") as manager:
        options = into(target, bind_address="127.0.0.1", ip_version="4", http_version="2")
        assert manager.download_and_wait(server.url("/good/x", size=SIZE), options).size == SIZE
