"""The config: its defaults, and the values that it refuses before anything is started."""

import os
from pathlib import Path

import pytest

from rangefetch.aria2.config import BinarySource, DaemonConfig


def test_the_defaults() -> None:
    config = DaemonConfig()
    assert (config.rpc_port, config.max_restart_attempts, config.health_check_interval) == (6800, 10, 10.0)
    assert (config.start_timeout, config.session_file, config.rpc_secret) == (30.0, "", "")
    assert config.download_dir == str(Path.cwd())
    assert config.binary_directory.is_absolute()
    assert config.state_directory.is_absolute()
    assert "rangefetch" in str(config.state_directory)


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    config = DaemonConfig(download_dir="downloads", session_file="~/my.session", state_dir=Path("state"))
    assert config.download_dir == str(tmp_path / "downloads")
    assert config.session_file == str(tmp_path / "home" / "my.session")
    assert config.state_directory == tmp_path / "state"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rpc_port", 1023),
        ("rpc_port", 65536),
        ("max_restart_attempts", -1),
        ("health_check_interval", 0),
        ("health_check_interval", float("nan")),
        ("restart_wait", -1.0),
        ("start_timeout", 0),
        ("rpc_secret", "two words"),
        ("rpc_secret", "line\nrpc-listen-all=true"),
        ("rpc_secret", "geheim\u00e4"),
        ("download_dir", "/etc/passwd"),
        ("download_dir", "/tmp/a\nb"),
        ("session_file", "/etc/passwd/session"),
        ("aria2_path", "/nowhere/aria2c"),
        ("ca_file", "/nowhere/ca.pem"),
        ("extra_options", {"rpc-listen-all": "true"}),
        ("extra_options", {"--rpc-secret": "mine"}),
        ("extra_options", {"dir": "/"}),
        ("extra_options", {"max peers": "1"}),
        ("extra_options", {"split": "5\nrpc-listen-all=true"}),
    ],
)
def test_wrong_values_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        DaemonConfig(**{name: value})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rpc_port", "6800"),
        ("rpc_port", True),
        ("health_check_interval", "10"),
        ("rpc_secret", b"x"),
        ("download_dir", 3),
        ("download_dir", b"/tmp"),
        ("verify_tls", "yes"),
        ("extra_options", ["split=5"]),
        ("extra_options", {"split": 5}),
        ("binary_sources", ["https://example.com/aria2c"]),
    ],
)
def test_wrong_types_are_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"^{name}: "):
        DaemonConfig(**{name: value})  # type: ignore[arg-type]  # wrong on purpose


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="rpc_prot: unknown option"):
        DaemonConfig.of({"rpc_prot": 6800})
    assert DaemonConfig.of({"rpc_port": 7000}).rpc_port == 7000


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ValueError, match=r"download_dir: the directory .* is not writable"):
        DaemonConfig(download_dir=tmp_path / "new")


def test_extra_options_are_written_with_or_without_dashes() -> None:
    config = DaemonConfig(extra_options={"--bt-max-peers": "3", "split": "2"})
    assert config.extra_options == {"bt-max-peers": "3", "split": "2"}


def test_a_source_of_binaries_may_be_given() -> None:
    source = BinarySource("https://example.com/aria2c", "0" * 64)
    assert DaemonConfig(binary_sources=[source]).binary_sources == (source,)
