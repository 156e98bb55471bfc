"""A download that runs on two of the engine's loops is saved, killed, resumed and hashed like any other."""

import hashlib
from pathlib import Path

from flow.children import child, run_child
from servers.misbehaving import MisbehavingServer, content
from support.downloads import fetch
from support.files import MIB, begun, names, saved_bytes
from support.waiting import until

SIZE = 40 * MIB + 12_345
RATE = 16 * MIB
DIGEST = f"sha256:{hashlib.sha256(content(SIZE)).hexdigest()}"


def test_killed_while_another_loop_helps_only_what_was_not_saved_is_fetched_again(
    server: MisbehavingServer, target: Path
) -> None:
    url = server.url("/shared-rate/x", size=SIZE, rate=RATE)
    with child("fetch_on_two_loops", url, target) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "lent\n"
        state = target.with_name(f"{target.name}.part.json")
        until(lambda: state.exists() and saved_bytes(target) > 12 * MIB)
        process.kill()
        process.wait()
    server.wait_idle()
    assert set(names(target.parent)) <= {*begun(target), f"{target.name}.part.json.tmp"}
    kept, before = saved_bytes(target), server.bytes_sent
    result = fetch(url, target, split=1, checksum=DIGEST)
    assert target.read_bytes() == content(SIZE)
    assert result.resumed == kept
    assert server.bytes_sent - before == SIZE - kept


def test_what_two_loops_bring_has_its_checksum(server: MisbehavingServer, target: Path) -> None:
    ended = run_child("fetch_on_two_loops", server.url("/shared-rate/x", size=SIZE, rate=RATE), target, DIGEST)
    assert (ended.returncode, ended.stdout) == (0, "lent\n1\n"), ended.stderr
    assert target.read_bytes() == content(SIZE)
    assert names(target.parent) == [target.name]
