"""How many processors and how much memory a process may use, with cgroups v1 and v2."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rangefetch.native import machine
from rangefetch.native.machine import keeps_in_cache, memory_bytes, processors


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of /proc and /sys, on a machine with more processors than any quota in these tests."""
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


GIB = 1 << 30


@pytest.fixture
def of_64_gib(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of /proc and /sys, on a machine with 64 GiB."""
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 16 << 20, "SC_PAGE_SIZE": 4096}.__getitem__)
    return root


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, 64 * GIB),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}, 64 * GIB),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": f"{4 * GIB}\n"}, 4 * GIB),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": f"{4 * GIB}\n"}, 4 * GIB),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": f"{400 * GIB}\n"}, 64 * GIB),
        ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "nonsense"}, 64 * GIB),
        ({"proc/self/cgroup": "3:cpu:/c\n", "sys/fs/cgroup/cpu/c/memory.max": "1"}, 64 * GIB),
        (
            {"proc/self/cgroup": "5:memory:/m\n", "sys/fs/cgroup/memory/m/memory.limit_in_bytes": str(GIB)},
            GIB,
        ),
        (
            {"proc/self/cgroup": "5:memory:/m\n", "sys/fs/cgroup/memory/m/memory.limit_in_bytes": f"{2**63 - 4096}"},
            64 * GIB,
        ),
    ],
)
def test_memory_is_the_machine_s_or_what_a_group_may_use_of_it(
    of_64_gib: Path, files: dict[str, str], found: int
) -> None:
    _put(of_64_gib, files)
    assert memory_bytes(f"{of_64_gib}/") == found


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
@pytest.mark.parametrize(
    ("release", "memory", "size", "kept"),
    [
        ("6.18.44-fc", 64 * GIB, 8 * GIB - 1, True),
        ("6.18.44-fc", 64 * GIB, 8 * GIB, False),
        ("6.16", 64 * GIB, 8 * GIB, False),
        ("7.0.1", 64 * GIB, 8 * GIB, False),
        ("6.18.0", GIB, 2 * GIB - 1, True),
        ("6.18.0", GIB, 2 * GIB, False),
        ("6.18.0", GIB, -1, True),
        ("6.15.9-stable", 64 * GIB, 80 * GIB, True),
        ("6.1.0-35-amd64", 64 * GIB, 80 * GIB, True),
        ("nonsense", 64 * GIB, 80 * GIB, True),
    ],
)
def test_what_takes_much_of_the_memory_is_not_kept_in_the_cache_where_the_kernel_can_do_without(
    monkeypatch: pytest.MonkeyPatch, release: str, memory: int, size: int, kept: bool
) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "here", release, "", "x86_64")))
    monkeypatch.setattr(machine, "memory_bytes", lambda: memory)
    assert keeps_in_cache(size) is kept
