"""The replies in curl's own tests, each served unchanged: we write the bytes that curl writes, or we refuse.

The result of our GET is compared with that of this machine's command ``curl -f -L``. Replies that redirect to another
host are left out, since tests contact no other machine.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rangefetch import DownloadError, RetryPolicy, fetch, fetch_many, init_download_manager, stream
from third_party.curl_replies import RawServer, Reply, read_replies
from third_party.obtaining import debian_source, unavailable

pytestmark = pytest.mark.xdist_group("curl's replies")  # so that they are read, and fetched by curl, only once

# Replies that curl accepts and we refuse: the reason, and the numbers of curl's tests. From curl, the user would get
# something other than the file, and exit status 0.
REFUSED = {
    "a part of the file (206) in reply to a request for all of it": "12 1043 1058 1117.1",
    "200 with a Content-Range that is malformed, and does not begin at 0: part of a file, as far as it says": (
        "188.1 1156.1"
    ),
    "several ranges in one body, which nobody asked for; curl writes the separators, too": "164",
    "a content encoding, though none was allowed; curl writes the encoded form, and `--decode` the file": (
        "220 221 222 224 230 232 314 316 396 397"
    ),
    "a transfer coding that was not asked for (RFC 9112, section 7.4), as curl itself refuses it in newer versions": (
        "319 1122 1123 1124 1125 1170 1171 1277"
    ),
    "a Content-Length that no file can have; curl reads on, and cannot tell whether it has all of it": "393 395",
    "304 Not Modified, which has no content and answers a question that was not asked; curl writes nothing": (
        "249 342 1566 1593"
    ),
    "headers that break off, so that the response is incomplete (RFC 9112, section 8); curl writes nothing": (
        "1513 1539 1555 1591"
    ),
    "a redirect that does not say where to; curl writes its page": "54",
    "another protocol follows (101), which was not asked for; curl writes what its frames hold": (
        "1801 2301 2302 2304 2305"
    ),
}

# More than one try, because the server may close a connection just when it is reused.
COMMON: dict[str, Any] = {"max_tries": 3, "retry_wait": 0, "read_timeout": 10, "no_proxy": "*"}
EIGHT_LANES: dict[str, Any] = {"split": 8, "max_connection_per_server": 8, "min_split_size": 1}


@pytest.fixture(autouse=True, scope="module")
def _a_manager_that_does_not_wait_when_it_is_told_to() -> Iterator[None]:
    """Many of the replies have Retry-After."""
    init_download_manager(retry_policy=RetryPolicy(longest_retry_after=0))
    yield
    init_download_manager()


@dataclass
class Suite:
    """All replies that are requested, with the bytes that curl writes (None: it refuses)."""

    server: RawServer
    replies: list[Reply]
    curls: dict[str, bytes | None]
    led_elsewhere: list[str]

    def url(self, reply: Reply, begun: bool = False) -> str:
        return f"http://127.0.0.1:{self.server.port}{'/begun' if begun else ''}{reply.path}"


@pytest.fixture(scope="module")
def suite() -> Iterator[Suite]:
    curl = shutil.which("curl")
    if curl is None:
        unavailable("curl is not installed: apt-get install curl")
    with RawServer() as server:
        replies = read_replies(debian_source("curl") / "tests" / "data", str(curl), server.port)
        server.serve(replies)
        elsewhere = [reply for reply in replies if reply.leads_elsewhere(server.port)]
        suite = Suite(server, [r for r in replies if r not in elsewhere], {}, [r.name for r in elsewhere])

        def ask(reply: Reply) -> bytes | None:
            command = [str(curl), "-q", "-s", "-f", "-L", "--noproxy", "*", "-m", "20", suite.url(reply)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
            return done.stdout if done.returncode == 0 else None

        with ThreadPoolExecutor(4) as executor:
            answers = list(executor.map(ask, suite.replies))
        suite.curls = {reply.name: answer for reply, answer in zip(suite.replies, answers, strict=True)}
        yield suite


Ours = dict[str, bytes | None]


def _one_after_the_other(suite: Suite, directory: Path, begun: bool = False, **options: Any) -> Ours:
    ours: Ours = {}
    for reply in suite.replies:
        file = directory / f"{reply.name}.file"
        try:
            fetch(suite.url(reply, begun), file, **{**COMMON, **options})
        except DownloadError:
            ours[reply.name] = None
            assert not file.exists()
        else:
            ours[reply.name] = file.read_bytes()
    return ours


def on_one_lane(suite: Suite, directory: Path) -> Ours:
    return _one_after_the_other(suite, directory, split=1)


def on_eight_lanes(suite: Suite, directory: Path) -> Ours:
    return _one_after_the_other(suite, directory, **EIGHT_LANES)


def as_a_batch(suite: Suite, directory: Path) -> Ours:
    items = [(suite.url(reply), {"filename": f"{reply.name}.file"}) for reply in suite.replies]
    results = fetch_many(items, directory, on_error="return", **COMMON)
    return {
        reply.name: None if isinstance(result, DownloadError) else Path(result.path).read_bytes()
        for reply, result in zip(suite.replies, results, strict=True)
    }


def as_streams(suite: Suite, _directory: Path) -> Ours:
    ours: Ours = {}
    for reply in suite.replies:
        try:
            with stream(suite.url(reply), **COMMON) as body:
                ours[reply.name] = body.read()
        except DownloadError:
            ours[reply.name] = None
    return ours


@pytest.mark.parametrize("way", [on_one_lane, on_eight_lanes, as_a_batch, as_streams], ids=lambda way: way.__name__)
def test_we_write_what_curl_writes_but_for_what_we_refuse_with_a_reason(
    suite: Suite, tmp_path: Path, way: Callable[[Suite, Path], Ours]
) -> None:
    ours = way(suite, tmp_path)
    counts = dict.fromkeys(("the same bytes", "refused by both", "refused by us", "refused by curl", "different"), 0)
    refused, accepted, different = [], [], []
    for name, theirs in suite.curls.items():
        mine = ours[name]
        if mine is None:
            counts["refused by both" if theirs is None else "refused by us"] += 1
            refused += [name] if theirs is not None else []
        elif theirs is None:
            counts["refused by curl"] += 1
            accepted.append(name)
        else:
            counts["the same bytes" if mine == theirs else "different"] += 1
            different += [name] if mine != theirs else []
    print(f"{len(suite.curls)} replies: {counts}; and {len(suite.led_elsewhere)} that lead to another host")
    assert different == []
    assert accepted == []
    assert sorted(refused) == sorted(" ".join(REFUSED.values()).split())
    assert counts["the same bytes"] > 0


def test_a_file_that_has_begun_is_finished_with_the_bytes_of_one_reply_or_kept(suite: Suite, tmp_path: Path) -> None:
    """Each reply arrives after half of another file. The two must never be mixed in one file."""
    ours = _one_after_the_other(suite, tmp_path, begun=True, max_tries=4)
    mixed = [name for name, mine in ours.items() if mine is not None and mine != suite.curls[name]]
    assert mixed == []
    assert any(mine is not None for mine in ours.values())
