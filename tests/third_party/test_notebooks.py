"""Ctrl-C in a notebook: a real kernel is interrupted in a cell, and a later cell resumes the download."""

import subprocess
import sys
from pathlib import Path

import pytest

from servers.misbehaving import MisbehavingServer
from support.children import environment
from support.files import MIB
from third_party.obtaining import pypi_packages

_CELLS = {
    "fetch": "rangefetch.fetch(url, path)",
    "fetch_many": "rangefetch.fetch_many([(url, 'file.bin')], directory)[0]",
    "download_and_wait": "manager.download_and_wait(url, {'save_dir': directory, 'filename': 'file.bin'})",
    "aio.fetch": "await aio.fetch(url, path)",
    "aio.fetch_many": "(await aio.fetch_many([(url, 'file.bin')], directory))[0]",
    "aio.download_and_wait": "await aio.DownloadManager.of(manager).download_and_wait(url, "
    "{'save_dir': directory, 'filename': 'file.bin'})",
}
_NOTEBOOK = """
import sys
from jupyter_client.manager import start_new_kernel

cell, url, directory = sys.argv[1:]
kernel, client = start_new_kernel(startup_timeout=60)

def run(code, interrupted=False):
    said = []
    def note(message):
        content = message["content"]
        said.append(content.get("text", "") or content.get("ename", ""))
        if interrupted and message["msg_type"] == "stream":
            kernel.interrupt_kernel()
    client.execute_interactive(code, output_hook=note, timeout=60, allow_stdin=False)
    return "".join(said)

begin = '''
import threading, time
import rangefetch
from rangefetch import aio
url, directory = {!r}, {!r}
path = directory + "/file.bin"
manager = rangefetch.get_download_manager()
'''
wait = '''
def watch():
    while not any(each.downloaded > 4 << 20 for each in manager.list_downloads("active")):
        time.sleep(0.01)
    print("it is under way", end="", flush=True)
threading.Thread(target=watch).start()
'''
try:
    print(run(begin.format(url, directory)), end="")
    print(run(wait + cell, interrupted=True))
    print(run("print([each.gid for each in manager.list_downloads('active')])"), end="")
    print(run("url = url.replace('/shared-rate/', '/good/'); manager.limit(0); result = " + cell), end="")
    print(run("print(result.size, result.resumed > 0)"), end="")
finally:
    client.stop_channels()
    kernel.shutdown_kernel(now=True)
"""


@pytest.mark.parametrize("cell", _CELLS)
def test_a_cell_that_is_interrupted_stops_and_can_be_run_again(
    server: MisbehavingServer, tmp_path: Path, cell: str
) -> None:
    packages = pypi_packages("ipykernel", ["ipykernel", "jupyter_client"])
    notebook = tmp_path / "notebook.py"
    notebook.write_text(_NOTEBOOK)
    directory = tmp_path / "into"
    directory.mkdir()
    url = server.url("/shared-rate/x", size=24 * MIB, rate="2M")
    given = environment() | {"HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", notebook, _CELLS[cell], url, directory],
        capture_output=True,
        text=True,
        timeout=90,
        env=given | {"PYTHONPATH": f"{given['PYTHONPATH']}:{packages}"},
        check=False,
    )
    error = "CancelledError" if "await" in _CELLS[cell] else "KeyboardInterrupt"
    assert done.stdout.splitlines()[-3:] == [f"it is under way{error}", "[]", f"{24 * MIB} True"], done.stderr
