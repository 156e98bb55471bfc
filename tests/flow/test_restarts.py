"""A host that has answered before is given time to come back, unless the user has set the number of tries."""

import threading
import time
from pathlib import Path

import pytest

from rangefetch import DownloadManager, fetch_many
from rangefetch.errors import DownloadError
from servers.misbehaving import MisbehavingServer, content
from support.downloads import SIZE, SMALL, downloaded, into
from support.files import MIB
from support.waiting import until


def test_the_defaults_number_of_tries_is_all_there_are_where_the_user_gave_it(
    server: MisbehavingServer, target: Path, tmp_path: Path
) -> None:
    url = server.url("/script/x", size=SIZE, steps="slow:rate=1M", then="status:code=503")
    options = into(target, max_tries=5, retry_wait=0.05, split=1)
    with DownloadManager(session_file=tmp_path / "session") as manager:
        gid = manager.download(url, options)
        until(lambda: downloaded(manager, gid) > MIB)
    for again in (False, True):
        server.clear()
        with DownloadManager(session_file=tmp_path / "session") as manager:
            manager.retry(gid) if again else manager.resume(gid)
            with pytest.raises(DownloadError):
                manager.wait(gid, timeout=60)
        # One more request, without a range, finds out whether it is the range that is refused.
        assert sum(request.range is not None for request in server.requests) == 5


def test_a_list_survives_the_restart_of_its_server(server: MisbehavingServer, target: Path) -> None:
    urls = [server.url(f"/slow/{n}", size=SIZE, rate="4M", seed=n) for n in range(2)]
    urls += [server.url(f"/slow/{n}", size=SMALL, rate="40K", seed=n) for n in range(2, 6)]

    def restart() -> None:
        until(lambda: len(server.requests) >= len(urls))
        server.stop()
        time.sleep(2.0)
        server.start()

    restarting = threading.Thread(target=restart)
    restarting.start()
    results = fetch_many(urls, target.parent, retry_wait=0.05, total_timeout=60.0)
    restarting.join()
    for number, result in enumerate(results):
        assert result.path.read_bytes() == content(SIZE if number < 2 else SMALL, number)
