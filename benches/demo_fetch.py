"""The demo's fetcher: runs one download, prints its progress, and reads speed limits from stdin.

    python benches/demo_fetch.py URL DIRECTORY CONNECTIONS BYTES_PER_SECOND

It prints a line of JSON ten times a second, and a last one with ``path`` or ``error``. A number on stdin sets a new
limit in bytes per second (0: none). At the end of stdin it stops and keeps what it has; the next run resumes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading

from rangefetch import DownloadError, DownloadManager
from rangefetch.errors import WaitTimeout

_LOOK_EVERY_S = 0.1


def main(url: str, directory: str, connections: int, limit: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal also sends it to the demo, which stops this process
    with DownloadManager("native") as manager:
        gid = manager.download(
            url,
            {
                "save_dir": directory,
                "split": connections,
                "max_connection_per_server": connections,
                "max_download_limit": limit,
            },
        )

        def obey() -> None:
            for line in sys.stdin:
                manager.change_options(gid, max_download_limit=int(line))
            manager.stop()
            os._exit(0)

        threading.Thread(target=obey, daemon=True).start()
        while True:
            try:
                result = manager.wait(gid, timeout=_LOOK_EVERY_S)
            except WaitTimeout:
                _say(manager.get_download_progress(gid).to_dict())
            except DownloadError as error:
                _say({"error": str(error)})
                return
            else:
                _say(result.to_dict())
                return


def _say(facts: dict[str, object]) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
