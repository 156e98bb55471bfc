"""Programs in which gevent or eventlet has replaced Python's threads with its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from servers.misbehaving import MisbehavingServer
from support.children import environment
from third_party.obtaining import pypi_packages

_PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "gevent, late": "import rangefetch; from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
    "eventlet, late": "import rangefetch; import eventlet; eventlet.monkey_patch()",
}
_SPAWN = {
    "gevent": "import gevent; jobs = [gevent.spawn(one, n) for n in range(20)]; gevent.joinall(jobs, timeout=30); "
    "done = [job.value for job in jobs]",
    "eventlet": "import eventlet; done = [job.wait() for job in [eventlet.spawn(one, n) for n in range(20)]]",
}
_PROGRAM = """
{patch}
import sys, rangefetch
url, directory = sys.argv[1:3]

def one(number):
    return rangefetch.fetch(f"{{url}}?size=3000&id={{number}}", f"{{directory}}/{{number}}").size

rangefetch.fetch(f"{{url}}?size=9M", f"{{directory}}/large")
many = rangefetch.fetch_many([(f"{{url}}?size=3000&id=m{{n}}", f"m{{n}}") for n in range(30)], directory)
with rangefetch.DownloadManager() as manager:
    manager.download_and_wait(f"{{url}}?size=9M&id=2", {{"save_dir": directory, "filename": "second"}}, lambda _: None)
with rangefetch.stream(f"{{url}}?size=9M") as reader:
    read = len(reader.read())
{spawn}
print(len(many), read, sum(done))
"""


@pytest.mark.parametrize("patch", _PATCHES)
def test_everything_works_in_a_program_that_is_patched(server: MisbehavingServer, tmp_path: Path, patch: str) -> None:
    name = patch.partition(",")[0]
    packages = pypi_packages(name, [name])
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM.format(patch=_PATCHES[patch], spawn=_SPAWN[name]))
    given = environment()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program, server.url("/good/x"), tmp_path],
        capture_output=True,
        text=True,
        timeout=90,
        env=given | {"PYTHONPATH": f"{given['PYTHONPATH']}:{packages}"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"30 {9 << 20} 60000\n"), done.stderr
