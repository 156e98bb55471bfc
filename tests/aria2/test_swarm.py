"""Torrents, magnet links and Metalinks: the files that they describe are fetched and put where the user wants them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from aria2.conftest import Configure
from aria2.driving import Desk, downloaded
from rangefetch.aria2.backend import Aria2Backend
from rangefetch.errors import BadAnswer, TargetExists
from rangefetch.progress import DownloadStatus
from servers.misbehaving import MisbehavingServer, content
from servers.swarm import PEER_OPTIONS, Torrent, Tracker, dht_options, meeting_point, seeder
from support.files import MIB, names
from support.waiting import until

ONE = {"one.bin": content(3 * MIB + 5)}
SEVERAL = {"a.bin": content(2 * MIB, 1), "below/b.bin": content(MIB + 3, 2)}


@pytest.fixture
def peer_port(configure: Configure) -> int:
    return configure().rpc_port + 3


@pytest.fixture
def tracker(peer_port: int) -> Iterator[Tracker]:
    with Tracker(peer_port) as running:
        yield running


@pytest.fixture
def desk(configure: Configure) -> Iterator[Desk]:
    desk = Desk()
    port = configure().rpc_port
    options = PEER_OPTIONS | {"listen-port": str(port + 4), "bt-tracker-interval": "1"}
    backend = desk.backend = Aria2Backend(desk, configure(extra_options=options))
    backend.start()
    yield desk
    backend.stop()


def _torrent(tracker: Tracker, name: str, files: dict[str, bytes]) -> Torrent:
    torrent = Torrent(name, files, f"{tracker.url}/announce")
    tracker.documents["/it.torrent"] = ("application/x-bittorrent", torrent.octets)
    return torrent


@pytest.mark.parametrize("by", ["magnet", "http"])
def test_a_single_file(
    desk: Desk, tracker: Tracker, peer_port: int, aria2c: Path, tmp_path: Path, target: Path, by: str
) -> None:
    torrent = _torrent(tracker, "one.bin", ONE)
    with seeder(aria2c, torrent, peer_port, tmp_path / "seeder"):
        url = torrent.magnet if by == "magnet" else f"{tracker.url}/it.torrent"
        assert desk.backend is not None
        assert desk.backend.serves(url)
        download = desk.begin(url, target.parent)
        result = desk.wait(download)
    assert result.path == target.with_name("one.bin")
    assert result.size == len(ONE["one.bin"])
    assert result.path.read_bytes() == ONE["one.bin"]
    assert names(target.parent) == ["one.bin"]
    assert download.progress().filename == "one.bin"
    assert tracker.announces


def test_a_magnet_link_without_a_tracker(configure: Configure, aria2c: Path, tmp_path: Path, target: Path) -> None:
    """The peers find each other through the DHT, which takes several rounds of five seconds."""
    port = configure().rpc_port
    point, seeding, own = range(port + 2, port + 5)
    torrent = Torrent("one.bin", ONE, tracker="")
    at_seeder = dht_options(tmp_path, seeding, point) | {"dht-file-path": str(tmp_path / "seeder.dat")}
    options = PEER_OPTIONS | {"listen-port": str(own)} | dht_options(tmp_path, own, point)
    desk = Desk()
    backend = desk.backend = Aria2Backend(desk, configure(extra_options=options))
    with (
        meeting_point(aria2c, point, tmp_path / "point"),
        seeder(aria2c, torrent, seeding, tmp_path / "seeder", **at_seeder),
    ):
        backend.start()
        try:
            result = desk.wait(desk.begin(torrent.magnet, target.parent, total_timeout=100.0), timeout=90)
        finally:
            backend.stop()
    assert result.path.read_bytes() == ONE["one.bin"]
    assert names(target.parent) == ["one.bin"]


def test_several_files_come_as_a_directory(
    desk: Desk, tracker: Tracker, peer_port: int, aria2c: Path, tmp_path: Path, target: Path
) -> None:
    torrent = _torrent(tracker, "several", SEVERAL)
    with seeder(aria2c, torrent, peer_port, tmp_path / "seeder"):
        result = desk.fetch((tmp_path / "seeder" / "it.torrent").as_uri(), target.parent)
    assert result.path == target.with_name("several")
    assert result.size == sum(map(len, SEVERAL.values()))
    for path, octets in SEVERAL.items():
        assert (result.path / path).read_bytes() == octets
        assert (result.path / path).stat().st_mode & 0o400
    assert names(target.parent) == ["several"]


def test_it_gets_the_name_that_was_asked_for(
    desk: Desk, tracker: Tracker, server: MisbehavingServer, target: Path
) -> None:
    octets = _metalink(server, {"a.bin": 2 * MIB})
    tracker.documents["/it.meta4"] = ("application/metalink4+xml", octets)
    assert desk.fetch(f"{tracker.url}/it.meta4", target).path == target
    target.write_bytes(b"precious")
    with pytest.raises(TargetExists):
        desk.fetch(f"{tracker.url}/it.meta4", target)
    assert target.read_bytes() == b"precious"
    assert names(target.parent) == ["file.bin"]


def test_what_is_there_is_left_alone(desk: Desk, tracker: Tracker, server: MisbehavingServer, target: Path) -> None:
    octets = _metalink(server, {"one.bin": 2 * MIB})
    tracker.documents["/it.meta4"] = ("application/metalink4+xml", octets)
    target.with_name("one.bin").write_bytes(b"precious")
    with pytest.raises(TargetExists):
        desk.fetch(f"{tracker.url}/it.meta4", target.parent)
    assert target.with_name("one.bin").read_bytes() == b"precious"
    assert names(target.parent) == ["one.bin"]


def test_a_halted_torrent_goes_on_where_it_was(
    desk: Desk, tracker: Tracker, peer_port: int, aria2c: Path, tmp_path: Path, target: Path
) -> None:
    torrent = _torrent(tracker, "one.bin", ONE)
    with seeder(aria2c, torrent, peer_port, tmp_path / "seeder", limit="2M"):
        download = desk.begin(f"{tracker.url}/it.torrent", target.parent)
        until(lambda: downloaded(download) > MIB and download.progress().total == len(ONE["one.bin"]))
        desk.halt(download)
        assert download.status is DownloadStatus.PAUSED
        (folder,) = target.parent.iterdir()
        assert folder.name.endswith(".part")
        assert "one.bin" in names(folder)
        before = downloaded(download)
        desk.begin_again(download)
        until(lambda: downloaded(download) >= before // 2 and download.progress().total == len(ONE["one.bin"]))
        assert desk.wait(download).path.read_bytes() == ONE["one.bin"]
    assert names(target.parent) == ["one.bin"]


def test_a_halted_torrent_is_removed_where_that_is_asked_for(
    desk: Desk, tracker: Tracker, peer_port: int, aria2c: Path, tmp_path: Path, target: Path
) -> None:
    torrent = _torrent(tracker, "one.bin", ONE)
    with seeder(aria2c, torrent, peer_port, tmp_path / "seeder", limit="256K"):
        download = desk.begin(f"{tracker.url}/it.torrent", target.parent)
        until(lambda: download.progress().total == len(ONE["one.bin"]))
        desk.halt(download, remove_files=True)
    assert names(target.parent) == []


def _metalink(server: MisbehavingServer, files: dict[str, int], *, wrong: bool = False) -> bytes:
    entries = []
    for name, size in files.items():
        digest = hashlib.sha256(content(size)).hexdigest()
        url = server.url(f"/good/{name}", size=size).replace("&", "&amp;")
        entries.append(
            f'<file name="{name}"><size>{size}</size><hash type="sha-256">{"0" * 64 if wrong else digest}</hash>'
            f"<url>{url}</url></file>"
        )
    return (
        f'<?xml version="1.0"?><metalink xmlns="urn:ietf:params:xml:ns:metalink">{"".join(entries)}</metalink>'.encode()
    )


@pytest.mark.parametrize("by", ["http", "file"])
def test_a_metalink(
    desk: Desk, tracker: Tracker, server: MisbehavingServer, tmp_path: Path, target: Path, by: str
) -> None:
    octets = _metalink(server, {"a.bin": 3 * MIB})
    tracker.documents["/it.meta4"] = ("application/metalink4+xml", octets)
    (tmp_path / "it.meta4").write_bytes(octets)
    url = f"{tracker.url}/it.meta4" if by == "http" else (tmp_path / "it.meta4").as_uri()
    result = desk.fetch(url, target.parent)
    assert result.path == target.with_name("a.bin")
    assert result.path.read_bytes() == content(3 * MIB)
    assert names(target.parent) == ["a.bin"]


def test_a_metalink_of_several_files(desk: Desk, tracker: Tracker, server: MisbehavingServer, target: Path) -> None:
    octets = _metalink(server, {"a.bin": 2 * MIB, "b.bin": MIB})
    tracker.documents["/it.meta4"] = ("application/metalink4+xml", octets)
    result = desk.fetch(f"{tracker.url}/it.meta4", target.parent)
    assert result.path == target.parent
    assert result.size == 3 * MIB
    assert names(target.parent) == ["a.bin", "b.bin"]


def test_a_metalink_whose_hash_is_wrong_brings_nothing(
    desk: Desk, tracker: Tracker, server: MisbehavingServer, target: Path
) -> None:
    octets = _metalink(server, {"a.bin": 2 * MIB}, wrong=True)
    tracker.documents["/it.meta4"] = ("application/metalink4+xml", octets)
    with pytest.raises(BadAnswer):
        desk.fetch(f"{tracker.url}/it.meta4", target.parent, max_tries=2)
    assert "a.bin" not in names(target.parent)


def test_what_is_no_torrent_is_an_error(desk: Desk, tracker: Tracker, target: Path) -> None:
    tracker.documents["/it.torrent"] = ("application/x-bittorrent", b"this is no torrent")
    with pytest.raises(BadAnswer):
        desk.fetch(f"{tracker.url}/it.torrent", target.parent, max_tries=2)
    assert names(target.parent) == []
