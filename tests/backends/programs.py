"""Programs that these tests run in child processes."""

from pathlib import Path

from rangefetch import DownloadManager


def fetch_on_what_there_is(url: str, path: str, aria2c: str, port: str, state_dir: str) -> None:
    """Fetch, and print the backend and why it was chosen."""
    with DownloadManager(aria2_path=aria2c, rpc_port=int(port), state_dir=state_dir) as manager:
        manager.download_and_wait(url, {"save_dir": Path(path).parent, "filename": Path(path).name})
        print(manager.backend, manager.fallback_reason)
