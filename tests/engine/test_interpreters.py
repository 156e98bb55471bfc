"""Subinterpreters: the engine's threads and libcurl belong to the process, so a second interpreter is refused."""

import subprocess
import sys

PROGRAM = """
import rangefetch._engine, sys
sub = __import__("_xxsubinterpreters" if sys.version_info < (3, 13) else "_interpreters")
code = '''
try:
    import rangefetch._engine
except ImportError as error:
    print("refused:", error)
else:
    print("taken")
'''
where = sub.create()
sub.run_string(where, "import sys; sys.path[:] = " + repr(sys.path)) if sys.version_info < (3, 13) else None
(sub.run_string if sys.version_info < (3, 13) else sub.exec)(where, code)
sub.destroy(where)
print("alive")
"""


def test_a_second_interpreter_is_refused_and_the_first_goes_on() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused: "), done.stdout
    assert done.stdout.endswith("alive\n")
