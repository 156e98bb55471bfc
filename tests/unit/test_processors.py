"""How many processors a process may use, in control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rangefetch.native.processors import processors


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where /proc and /sys are, of a machine with more processors than any quota here."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(64), raising=False)
    return tmp_path


def _put(root: Path, files: dict[str, str]) -> int:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return processors(f"{root}/")


def test_without_control_groups_the_affinity_decides(root: Path) -> None:
    assert _put(root, {}) == 64


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_a_process_that_is_bound_to_one_processor_has_one() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert processors() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("quota", "found"),
    [
        ("max 100000", 64),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("9000000 100000", 64),
        ("200000 0", 64),
        ("", 64),
        ("nonsense", 64),
        ("1" * 5000 + " 1", 64),
    ],
)
def test_a_quota_of_version_2(root: Path, quota: str, found: int) -> None:
    assert _put(root, {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": quota}) == found


def test_the_least_quota_of_all_groups_around_it_counts(root: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/cpu.max": "800000 100000",
        "sys/fs/cgroup/a/cpu.max": "300000 100000",
        "sys/fs/cgroup/cpu.max": "max 100000",
    }
    assert _put(root, files) == 3


@pytest.mark.parametrize("path", ["/", "/system.slice/docker-0123.scope", "/../.."])
def test_in_a_container_the_mount_is_the_group(root: Path, path: str) -> None:
    assert _put(root, {"proc/self/cgroup": f"0::{path}\n", "sys/fs/cgroup/cpu.max": "200000 100000"}) == 2


@pytest.mark.parametrize(
    ("controllers", "quota", "found"), [("cpu,cpuacct", 250000, 3), ("cpu", 250000, 3), ("cpu", -1, 64)]
)
def test_a_quota_of_version_1(root: Path, controllers: str, quota: int, found: int) -> None:
    files = {
        "proc/self/cgroup": f"9:memory:/m\n3:cpuset:/x\n1:{controllers}:/a\n0::/\n",
        f"sys/fs/cgroup/{controllers}/a/cpu.cfs_quota_us": f"{quota}\n",
        f"sys/fs/cgroup/{controllers}/a/cpu.cfs_period_us": "100000\n",
    }
    assert _put(root, files) == found


def test_the_backend_has_as_many_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    from rangefetch import DownloadManager
    from rangefetch.native import backend
    from support.loops import loop_threads, loops_become

    monkeypatch.setattr(backend, "processors", lambda: 3)
    with DownloadManager():
        assert loops_become(3), loop_threads()


def test_numbers_are_bounded_where_they_are_read(root: Path) -> None:
    assert _put(root, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{10**17} 1"}) == 64
