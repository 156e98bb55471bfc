"""Large files are written past the page cache, unless they are read again at once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from servers.misbehaving import MisbehavingServer, content
from support import children
from support.faults import with_faults
from support.files import MIB

SIZE = 6 * MIB + 3

# Each write that bypasses the cache is refused and counted, and then repeated as an ordinary write.
FETCH = """
    import errno, json, sys, threading
    from pathlib import Path
    import rangefetch
    from rangefetch.native import answering
    from support.faults import fail, happened

    way, url, target, options = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
    answering.keeps_in_cache = lambda size: size < 5 << 20
    manager, see_to_the_cache = rangefetch.get_download_manager(), answering.Answering._see_to_the_cache

    def see_and_go_on(self):
        see_to_the_cache(self)
        threading.Thread(target=manager.limit, args=[0]).start()

    answering.Answering._see_to_the_cache = see_and_go_on
    manager.limit("64K")
    fail("pwritev2", errno.EOPNOTSUPP, 1 << 30)
    if way == "stream":
        with rangefetch.stream(url, **options) as stream:
            target.write_bytes(b"".join(stream))
    elif way == "fetch_many":
        rangefetch.fetch_many([(url, target.name)], save_dir=target.parent, **options)
    else:
        rangefetch.fetch(url, target, **options)
    print(happened("pwritev2") > 0)
"""


@pytest.mark.parametrize(
    ("way", "size", "options", "uncached"),
    [
        ("fetch", SIZE, {}, True),
        ("fetch", SIZE, {"split": 1}, True),
        ("fetch_many", SIZE, {}, True),
        ("fetch", 4 * MIB, {}, False),
        ("fetch", SIZE, {"checksum": "sha-256"}, False),
        ("stream", SIZE, {}, False),
    ],
)
def test_a_large_file_is_not_left_in_the_cache_unless_it_is_read_again(
    server: MisbehavingServer,
    target: Path,
    tmp_path: Path,
    way: str,
    size: int,
    options: dict[str, Any],
    uncached: bool,
) -> None:
    if "checksum" in options:
        options = {"checksum": f"sha-256={hashlib.sha256(content(size)).hexdigest()}"}
    url = server.url("/good/x", size=size)
    done = children.run(FETCH, way, url, target, json.dumps(options), env=with_faults(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{uncached}\n", "")
    assert target.read_bytes() == content(size)
