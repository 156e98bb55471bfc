"""Stacks of the engine's threads: as large as we ask for, whatever the C library's default (128 KiB on musl)."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

from engine.driving import Driver
from support.files import MIB
from support.loops import loop_threads, loops_become
from support.waiting import until

GUARD_BYTES = 64 << 10  # Linux's largest page size; the C library takes the guard page out of the requested size


def stack_pointer(thread: str) -> int:
    """The thread's stack pointer, or 0 while the thread runs (proc_pid_syscall(5))."""
    found = Path(f"/proc/self/task/{thread}/syscall").read_text().split()
    return int(found[-2], 16) if len(found) > 2 else 0


def mapping_bytes(address: int) -> int:
    """The size of the mapping at this address."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(number, 16) for number in re.findall(r"[0-9a-f]+", line)[:2])
        if start <= address < end:
            return end - start
    raise LookupError(f"nothing is mapped at {address:#x}")


@pytest.mark.skipif(not Path("/proc/self/syscall").exists(), reason="Linux alone tells where a thread's stack is")
def test_a_loop_has_a_mebibyte(tmp_path: Path) -> None:
    with Driver(tmp_path, loops=2):
        assert loops_become(2)
        for thread in loop_threads():
            until(partial(stack_pointer, thread))  # until the thread waits
            # Neither musl's default nor glibc's, which is that of the main thread: 8 MiB.
            assert MIB - GUARD_BYTES <= mapping_bytes(stack_pointer(thread)) < 4 * MIB
