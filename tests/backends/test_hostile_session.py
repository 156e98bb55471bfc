"""A session file decides which files are written and what is sent where, so it is trusted only as far as its owner."""

import json
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadManager
from rangefetch.errors import LocalError
from support.disks import without_attributes


def _session(path: Path, **changed: Any) -> Path:
    entry = {
        "gid": "0123456789abcdef",
        "url": "http://127.0.0.1:1/x",
        "status": "paused",
        "filename": "x",
        "options": {"save_dir": str(path.parent)},
        "begun": False,
    }
    path.write_text(json.dumps({"version": 1, "downloads": [entry | changed]}))
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("name", ["../x", "/etc/x", "..", ".", "a/b", "a\0b"])
def test_a_name_in_a_session_is_no_path(tmp_path: Path, name: str) -> None:
    with DownloadManager(session_file=_session(tmp_path / "session", filename=name)) as manager:
        assert manager.list_downloads() == []


@pytest.mark.parametrize(
    "changed",
    [
        {"url": "http://h/\r\nX: y"},
        {"url": "gopher://h/"},
        {"options": {"filename": "../x"}},
        {"options": {"headers": {"A": "b\r\nC: d"}}},
        {"options": {"refresh_url": "http://h/"}},
        {"options": {"__class__": 1}},
        {"gid": "../../x"},
    ],
)
def test_what_could_not_be_asked_for_is_not_in_a_session_either(tmp_path: Path, changed: dict[str, Any]) -> None:
    with DownloadManager(session_file=_session(tmp_path / "session", **changed)) as manager:
        assert manager.list_downloads() == []


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_a_session_that_others_could_have_written_is_refused_and_left_alone(tmp_path: Path, mode: int) -> None:
    path = _session(tmp_path / "session")
    path.chmod(mode)
    before = path.read_bytes()
    with pytest.raises(LocalError, match="another user owns it or can write to it"):
        DownloadManager(session_file=path).start()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "marks"), [("others.bad", True), ("others", False), ("others.1", False), ("others.bad.txt", False)]
)
def test_what_a_session_says_was_kept_aside_is_deleted_only_if_it_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, marks: bool
) -> None:
    """Where files cannot be marked, the name decides."""
    if not marks:
        without_attributes(monkeypatch)
    other = tmp_path / name
    other.write_bytes(b"precious")
    path = _session(tmp_path / "session", kept_aside=str(other))
    with DownloadManager(session_file=path) as manager:
        [download] = manager.list_downloads()
        manager.cancel(download.gid, remove_files=True)
    assert other.read_bytes() == b"precious"
