"""The program that is recorded: a manager with a session starts and pauses downloads, and another one finishes them."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rangefetch import DownloadManager


def main() -> None:
    """Arguments: ``DIRECTORY BACKEND DURABLE URL...``. The files are named 0, 1, ..., with the session beside them."""
    directory, backend, durable, *urls = sys.argv[1:]
    options = {"save_dir": directory, "durable": durable == "durable", "retry_wait": 0.001}
    slowly = {"split": 1, "max_download_limit": "1M"}
    with DownloadManager(session_file=Path(directory, "session"), backend=backend) as manager:
        gids = [manager.download(url, {**options, **slowly, "filename": str(i)}) for i, url in enumerate(urls)]
        # Once a block of 1 MiB is complete, there is data to resume from.
        while manager.get_download_progress(gids[0]).downloaded < 1.3 * (1 << 20):
            time.sleep(0.01)
        for gid in gids:
            manager.pause(gid)
        time.sleep(0.2)
    with DownloadManager(session_file=Path(directory, "session"), backend=backend) as manager:
        left = [each.gid for each in manager.list_downloads()]  # a slow machine may have finished one
        for gid in left:
            manager.change_options(gid, max_download_limit=0)
            manager.resume(gid)
        for gid in left:
            manager.wait(gid, timeout=60)


if __name__ == "__main__":
    main()
