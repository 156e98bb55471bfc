"""``private_addresses``: the address of a connection decides whether it is allowed, not the name.

The test servers are on this machine, whose addresses are private; which addresses are public is tested without servers.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import rangefetch
from rangefetch import _engine
from rangefetch.errors import ConnectionFailed
from servers.misbehaving import MisbehavingServer, content
from servers.proxies import HttpProxy
from support.downloads import QUICK, fails, fetch
from support.files import MIB, names

SIZE = 300_001
LARGE = 5 * MIB + 3


@pytest.mark.parametrize("size", [SIZE, LARGE])
def test_refuse_lets_nothing_connect_to_this_machine(server: MisbehavingServer, target: Path, size: int) -> None:
    error = fails(ConnectionFailed, server.url("/good/x", size=size), target, private_addresses="refuse")
    assert "refused to connect to 127.0.0.1" in str(error)
    assert (server.connections, server.requests) == (0, [])
    assert names(target.parent) == []


def test_a_name_is_refused_by_what_it_resolves_to(server: MisbehavingServer, target: Path) -> None:
    url = server.url("/good/x", size=SIZE).replace("127.0.0.1", "localhost")
    error = fails(ConnectionFailed, url, target, private_addresses="refuse")
    assert "private address" in str(error)
    assert server.requests == []


@pytest.mark.parametrize("size", [SIZE, LARGE])
def test_named_lets_the_url_lead_here_and_no_redirect(server: MisbehavingServer, target: Path, size: int) -> None:
    with MisbehavingServer() as inner:
        url = server.url("/redirect/x", to=inner.url("/good/x", size=size))
        error = fails(ConnectionFailed, url, target, private_addresses="named")
        assert "private address" in str(error)
        assert (inner.connections, inner.requests) == (0, [])
        assert names(target.parent) == []
        fetch(server.url("/good/x", size=size), target, private_addresses="named")
        assert target.read_bytes() == content(size)


def test_named_lets_a_redirect_lead_to_a_host_that_is_trusted(server: MisbehavingServer, target: Path) -> None:
    with MisbehavingServer() as inner:
        url = server.url("/redirect/x", to=inner.url("/good/x", size=SIZE))
        fetch(url, target, private_addresses="named", location_trusted=["127.0.0.1"])
    assert target.read_bytes() == content(SIZE)


def test_an_idle_connection_of_another_download_is_not_used(server: MisbehavingServer, target: Path) -> None:
    with rangefetch.DownloadManager() as manager:
        url = server.url("/good/x", size=SIZE)
        manager.wait(manager.download(url, QUICK | {"save_dir": target.parent, "filename": "first"}))
        seen = len(server.requests)
        again = {"save_dir": target.parent, "filename": "second", "private_addresses": "refuse"}
        with pytest.raises(ConnectionFailed, match="private address"):
            manager.wait(manager.download(url, QUICK | again))
    assert len(server.requests) == seen


def test_a_stream_and_a_batch_are_held_to_it(server: MisbehavingServer, tmp_path: Path) -> None:
    url = server.url("/good/x", size=SIZE)
    options = QUICK | {"private_addresses": "refuse"}
    with pytest.raises(ConnectionFailed), rangefetch.stream(url, **options) as stream:
        stream.read()
    outcomes = rangefetch.fetch_many([url], tmp_path, on_error="return", **options)
    assert isinstance(outcomes[0], ConnectionFailed)
    assert server.requests == []


def test_a_mirror_is_held_to_it(server: MisbehavingServer, target: Path) -> None:
    with MisbehavingServer() as inner:
        options = {"mirrors": [inner.url("/good/x", size=SIZE)], "private_addresses": "refuse"}
        fails(ConnectionFailed, server.url("/good/x", size=SIZE), target, **options)
        assert inner.requests == server.requests == []


def test_through_a_proxy_nothing_can_be_promised(server: MisbehavingServer, target: Path) -> None:
    with HttpProxy() as proxy:
        options = {"proxy": f"http://127.0.0.1:{proxy.port}", "private_addresses": "refuse"}
        error = fails(ConnectionFailed, server.url("/good/x", size=SIZE), target, **options)
    assert "proxy" in str(error)
    assert server.requests == []


def test_an_idle_connection_to_a_proxy_is_not_used_either(server: MisbehavingServer, target: Path) -> None:
    with rangefetch.DownloadManager() as manager:
        common = QUICK | {"save_dir": target.parent, "proxy": f"http://127.0.0.1:{server.port}"}
        url = f"http://elsewhere.test/good/x?size={SIZE}"
        manager.wait(manager.download(url, common | {"filename": "first"}))
        seen = len(server.requests)
        again = common | {"filename": "second", "private_addresses": "refuse"}
        with pytest.raises(ConnectionFailed, match="proxy"):
            manager.wait(manager.download(url, again))
    assert len(server.requests) == seen


PUBLIC = st.sampled_from(["8.8.8.8", "1.1.1.1", "2606:4700::1111", "2001:4860:4860::8888", "64:ff9b::808:808"])


@given(PUBLIC)
def test_what_is_public_is_public(address: str) -> None:
    assert not _engine.is_private(address)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
@example(ipaddress.ip_address("100.64.0.1"))
@example(ipaddress.ip_address("169.254.169.254"))
@example(ipaddress.ip_address("fd00:ec2::254"))
@example(ipaddress.ip_address("::1"))
@example(ipaddress.ip_address("0.0.0.0"))
@example(ipaddress.ip_address("255.255.255.255"))
@example(ipaddress.ip_address("224.0.0.1"))
@example(ipaddress.ip_address("fe80::1"))
def test_what_python_calls_private_is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        translated = isinstance(address, ipaddress.IPv6Address) and str(address).startswith("64:ff9b::")
        assert translated or _engine.is_private(str(address))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a00:1::",
        ),
        *("::127.0.0.1", "fe80::1%1", "", "localhost", "127.1", "0x7f000001", "2130706433", "/run/socket"),
    ],
)
def test_what_stands_for_a_private_address_is_one(text: str) -> None:
    assert _engine.is_private(text)
