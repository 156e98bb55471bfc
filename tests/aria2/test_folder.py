"""Where the files of a torrent or Metalink are put, and how those places are protected. Runs without aria2."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from rangefetch.aria2.landing import FolderLanding
from rangefetch.errors import (
    BadAnswer,
    ChecksumMismatch,
    ContentChanged,
    DiskError,
    LocalError,
    TargetExists,
    TargetLocked,
)
from rangefetch.options import DownloadOptions
from rangefetch.transfer.download import Download
from support.files import names

MAGNET = "magnet:?xt=urn:btih:1111111111111111111111111111111111111111&dn=a%20name"

Make = Callable[..., FolderLanding]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


@pytest.fixture
def make(directory: Path) -> Make:
    """Makes landings of downloads into the directory."""

    def make(url: str = MAGNET, **options: object) -> FolderLanding:
        return FolderLanding(Download(url, DownloadOptions.of({"save_dir": directory, **options})))

    return make


def _finish(landing: FolderLanding, paths: list[str]) -> tuple[Path, int]:
    """Do what follows once all files are complete."""
    landing.prove(paths)
    return landing.publish(), landing.size


def _bring(landing: FolderLanding, *paths: str) -> list[str]:
    """Create files in the landing's directory, as aria2 would, readable only by their owner."""
    made = []
    for path in paths:
        file = Path(str(landing.request().options["dir"])) / path
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_text(path)
        file.chmod(0o600)
        made.append(str(file))
    return made


def test_one_file_gets_the_name_that_was_asked_for(make: Make, directory: Path) -> None:
    landing = make(filename="wanted.bin")
    landing.open()
    assert _finish(landing, _bring(landing, "brought.bin")) == (directory / "wanted.bin", 11)
    assert names(directory) == ["wanted.bin"]
    assert stat.S_IMODE((directory / "wanted.bin").stat().st_mode) == 0o666 & ~_umask()


def test_a_directory_keeps_its_name(make: Make, directory: Path) -> None:
    landing = make()
    landing.open()
    finished = _finish(landing, [*_bring(landing, "album/one", "album/deep/two"), "[METADATA]album"])
    assert finished == (directory / "album", 23)
    assert (directory / "album" / "deep" / "two").read_text() == "album/deep/two"
    assert stat.S_IMODE((directory / "album" / "deep").stat().st_mode) == 0o777 & ~_umask()
    assert names(directory) == ["album"]


def test_several_are_side_by_side_in_what_was_asked_for(make: Make, directory: Path) -> None:
    landing = make(filename="all")
    landing.open()
    finished = _finish(landing, _bring(landing, "one", "two"))
    path, _ = finished
    assert path == directory / "all"
    assert names(path) == ["one", "two"]


def test_nothing_that_could_be_followed_is_a_bad_answer(make: Make) -> None:
    landing = make()
    landing.open()
    with pytest.raises(BadAnswer, match="nothing to download in it"):
        _finish(landing, ["[METADATA]a name"])
    landing.discard()


@pytest.mark.parametrize("path", ["/etc/passwd", "{folder}/../elsewhere", "{folder}"])
def test_a_path_outside_is_refused(make: Make, directory: Path, path: str) -> None:
    landing = make()
    landing.open()
    path = path.format(folder=landing.request().options["dir"])
    with pytest.raises(DiskError, match="it is not in") as caught:
        landing.name([path])
    assert caught.value.errno == errno.EINVAL
    landing.discard()
    assert names(directory) == []


def test_a_name_that_is_taken_is_known_before_a_byte_comes(make: Make, directory: Path) -> None:
    directory.mkdir()
    (directory / "wanted.bin").write_text("precious")
    with pytest.raises(TargetExists, match=r"wanted\.bin exists"):
        make(filename="wanted.bin").open()
    assert names(directory) == ["wanted.bin"]


def test_what_would_have_no_place_is_not_kept(make: Make, directory: Path) -> None:
    directory.mkdir()
    (directory / "brought.bin").write_text("precious")
    landing = make()
    landing.open()
    with pytest.raises(TargetExists, match=r"brought\.bin exists"):
        landing.name(_bring(landing, "brought.bin"))
    landing.keep()
    assert names(directory) == ["brought.bin"]
    assert (directory / "brought.bin").read_text() == "precious"


def test_a_name_that_is_taken_at_the_last_moment_is_not_replaced(
    make: Make, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = make()
    landing.open()
    brought = _bring(landing, "brought.bin")
    move = FolderLanding._move

    def someone_is_faster(landing: FolderLanding, source: Path, destination: Path) -> None:
        destination.write_text("precious")
        move(landing, source, destination)

    monkeypatch.setattr(FolderLanding, "_move", someone_is_faster)
    with pytest.raises(TargetExists):
        _finish(landing, brought)
    assert (directory / "brought.bin").read_text() == "precious"
    landing.discard()


@pytest.mark.parametrize("what", ["a file", "a directory"])
def test_overwriting_replaces_a_file_and_never_a_directory(make: Make, directory: Path, what: str) -> None:
    landing = make(overwrite=True)
    landing.open()
    place = directory / "brought.bin"
    brought = _bring(landing, "brought.bin")
    if what == "a file":
        place.write_text("old")
        finished = _finish(landing, brought)
        assert finished[0] == place
        assert place.read_text() == "brought.bin"
    else:
        (place / "precious").mkdir(parents=True)
        with pytest.raises(TargetExists):
            _finish(landing, brought)
        assert names(place) == ["precious"]
        landing.discard()


def test_where_there_are_no_hard_links_it_is_renamed(
    make: Make, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    landing = make()
    landing.open()
    _finish(landing, _bring(landing, "brought.bin"))
    assert (directory / "brought.bin").read_text() == "brought.bin"


def test_two_downloads_do_not_share_it(make: Make, directory: Path) -> None:
    first, second = make(), make()
    first.open()
    _bring(first, "half")
    with pytest.raises(TargetLocked, match="another download of this process is writing it"):
        second.open()
    with pytest.raises(TargetLocked):
        second.clear()
    assert names(directory / names(directory)[0]) == ["half"]
    first.keep()
    second.clear()
    assert names(directory) == []


def test_what_is_kept_is_found_again_and_can_be_dropped(make: Make, directory: Path) -> None:
    first = make()
    first.open()
    _bring(first, "half", "album/one")
    (directory / names(directory)[0] / "link").symlink_to(directory)
    first.keep()
    again = make()
    again.open()
    assert names(directory / names(directory)[0]) == ["album", "half", "link"]
    again.restart()
    assert names(directory / names(directory)[0]) == []
    again.keep()  # an empty folder is not kept
    assert names(directory) == []


@pytest.mark.parametrize("what", ["file", "link", "fifo", "directory", "state"])
def test_what_is_not_ours_is_left_alone(make: Make, directory: Path, tmp_path: Path, what: str) -> None:
    directory.mkdir()
    place, elsewhere = directory / "wanted.part", tmp_path / "elsewhere"
    elsewhere.mkdir()
    match what:
        case "file":
            place.write_bytes(b"precious")
        case "link":
            place.symlink_to(elsewhere)
        case "fifo":
            os.mkfifo(place)
        case "directory":
            place.mkdir()
            (place / "precious").write_bytes(b"precious")
        case "state":
            place.with_name("wanted.part.json").write_bytes(b"precious")
    before = names(directory)
    landing = make(filename="wanted")
    landing.open()
    _bring(landing, "x")
    landing.discard()
    assert names(directory) == before
    landing.clear()
    assert names(directory) == before
    landing.open()
    path, _ = _finish(landing, _bring(landing, "x"))
    assert path == directory / "wanted"
    assert names(directory) == sorted([*before, "wanted"])
    if what == "directory":
        assert names(place) == ["precious"]


def test_a_directory_of_another_download_is_not_taken(make: Make, directory: Path) -> None:
    other = make(MAGNET.replace("1111", "2222"), filename="wanted")
    other.open()
    _bring(other, "x")
    other.keep()
    landing = make(filename="wanted")
    landing.open()
    assert not list(Path(str(landing.request().options["dir"])).iterdir())
    landing.discard()
    assert names(directory / "wanted.part") == ["x"]


def test_without_marks_a_claim_says_whose_it_is(make: Make, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rangefetch.aria2.landing.mark", lambda fd, url: False)
    landing = make(filename="wanted")
    landing.open()
    _bring(landing, "x")
    landing.keep()
    assert names(directory) == ["wanted.part", "wanted.part.json"]
    again = make(filename="wanted")
    again.open()
    assert names(directory / "wanted.part") == ["x"]
    again.discard()
    assert names(directory) == []


@pytest.mark.parametrize("what", ["fifo", "directory", "link to nothing"])
def test_overwriting_replaces_plain_files_only(make: Make, directory: Path, what: str) -> None:
    directory.mkdir()
    place = directory / "wanted"
    match what:
        case "fifo":
            os.mkfifo(place)
        case "directory":
            place.mkdir()
        case _:
            place.symlink_to("nowhere")
    mode = place.lstat().st_mode
    with pytest.raises(TargetExists):
        make(filename="wanted", overwrite=True).open()
    assert place.lstat().st_mode == mode


@pytest.mark.parametrize("name", [".bash_profile", "-rf", "x.part", "x.aria2", "x.part.json"])
def test_names_from_a_torrent_are_made_harmless(make: Make, directory: Path, name: str) -> None:
    landing = make()
    landing.open()
    path, _ = _finish(landing, _bring(landing, name))
    assert names(directory) == [path.name]
    assert path.name != name
    assert not path.name.startswith((".", "-"))


def test_a_checksum_and_a_size_are_proved(make: Make, directory: Path) -> None:
    right = "sha-256=" + hashlib.sha256(b"x").hexdigest()
    wrong = "sha-256=" + "0" * 64
    for options, error in (
        ({"checksum": wrong}, ChecksumMismatch),
        ({"expected_size": 2}, ContentChanged),
    ):
        landing = make(filename="wanted", **options)
        landing.open()
        with pytest.raises(error):
            _finish(landing, _bring(landing, "x"))
        landing.keep()
        assert names(directory) == ["wanted.part"]
    landing = make(filename="wanted", checksum=right, expected_size=1, durable=True)
    landing.open()
    assert _finish(landing, [str(directory / "wanted.part" / "x")]) == (directory / "wanted", 1)
    landing = make(filename="several", checksum=right)
    landing.open()
    with pytest.raises(LocalError, match="it is for one file"):
        _finish(landing, _bring(landing, "x", "y"))
    landing.discard()
    assert names(directory) == ["wanted"]


def test_a_description_that_cannot_be_read_is_a_disk_error(make: Make, tmp_path: Path) -> None:
    landing = make(f"file://{tmp_path}/none.torrent")
    with pytest.raises(DiskError, match="No such file"):
        landing.request()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("change", ["filename", "save_dir"])
@pytest.mark.parametrize("named", [True, False])
def test_another_name_or_directory_takes_along_what_came(
    make: Make, directory: Path, tmp_path: Path, change: str, named: bool
) -> None:
    landing = make(**({"filename": "x"} if named else {}))
    landing.open()
    _bring(landing, "one")
    landing.keep()
    (directory / "y.part").mkdir()
    options = {"save_dir": directory} | ({"filename": "x"} if named else {})
    options |= {"filename": "y"} if change == "filename" else {"save_dir": tmp_path / "new"}
    make(**({"filename": "x"} if named else {})).move(DownloadOptions.of(options))
    assert (directory / "y.part").is_dir()
    assert not list((directory / "y.part").iterdir())
    moved = make(**options)
    moved.open()
    folder = Path(str(moved.request().options["dir"]))
    assert names(folder) == ["one"]
    moved.discard()
    assert names(directory) == ["y.part"]
