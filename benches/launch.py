"""Runs one command and prints what it cost: a small process between the harness and the peer.

``python -I -S launch.py LOG COMMAND...`` sends the command's output to LOG and prints

    wall_seconds user_seconds system_seconds max_rss exit_code

It imports next to nothing on purpose. On Linux the peak memory of a child starts at that of the process that forked it,
so a peer started by the harness itself, which has loaded matplotlib, would appear as large as the harness.
"""

import os
import sys
import time


def launch(log: str, command: list[str]) -> str:
    """Run ``command``; returns the line of figures, which includes its children that it waited for."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    silence = os.open(os.devnull, os.O_RDONLY)
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(silence, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        os._exit(127)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    return f"{wall!r} {usage.ru_utime!r} {usage.ru_stime!r} {usage.ru_maxrss} {code}"


if __name__ == "__main__":
    print(launch(sys.argv[1], sys.argv[2:]))
