"""A manifest at a URL: the request for it, and the pages that follow."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rangefetch import read_manifest
from rangefetch.manifests.opening import ManifestError
from servers.scripted import Answer, Asked, ScriptedServer
from support.command_line import errors, run

PAGE = 1000


def tree(first: int, count: int) -> list[dict[str, object]]:
    return [{"type": "file", "oid": "0" * 40, "size": 3, "path": f"d/{n}.bin"} for n in range(first, first + count)]


def in_pages(total: int, *, elsewhere: str = "", circle: bool = False) -> ScriptedServer:
    """A server that sends a tree in pages; the Link field of each page leads to the next."""

    def script(asked: Asked) -> Answer:
        cursor = re.search(r"cursor=(\d+)", asked.path)
        first = int(cursor[1]) if cursor else 0
        headers = {}
        if first + PAGE < total:
            following = 0 if circle else first + PAGE
            headers["Link"] = f'<{elsewhere}/api/models/me/x/tree/main?cursor={following}>; rel="next"'
        return Answer(json.dumps(tree(first, min(PAGE, total - first))).encode(), headers)

    return ScriptedServer(script)


@pytest.mark.parametrize("total", [3, 1000, 2500])
def test_all_pages_of_a_tree_are_fetched(total: int) -> None:
    with in_pages(total) as server:
        items = list(read_manifest(server.url("api/models/me/x/tree/main?recursive=true"), strict=True))
        assert [item.path for item in items] == [f"d/{number}.bin" for number in range(total)]
        assert items[-1].url == server.url(f"me/x/resolve/main/d/{total - 1}.bin")
        assert len({path for path in server.paths if "cursor" in path}) == (total - 1) // PAGE


def test_a_page_elsewhere_or_one_that_was_there_is_an_error() -> None:
    with in_pages(2500, elsewhere="http://127.0.0.1:1") as server, pytest.raises(ManifestError, match="another server"):
        list(read_manifest(server.url("api/models/me/x/tree/main")))
    with in_pages(2500, circle=True) as server, pytest.raises(ManifestError, match="circle"):
        list(read_manifest(server.url("api/models/me/x/tree/main?cursor=0")))


def test_of_a_tree_in_a_file_it_is_said_that_there_may_be_more(tmp_path: Path) -> None:
    (tmp_path / "tree.json").write_text(json.dumps(tree(0, PAGE)))
    bad: list[str] = []
    base = "https://huggingface.co/me/x/resolve/main/"
    items = list(read_manifest(tmp_path / "tree.json", on_bad_line=lambda _, what: bad.append(what), base_url=base))
    assert len(items) == PAGE
    assert len(bad) == 1
    assert "more may be missing; give the URL" in bad[0]
    with pytest.raises(ManifestError, match="more may be missing"):
        list(read_manifest(tmp_path / "tree.json", strict=True, base_url=base))


def test_it_is_asked_for_with_the_options_of_the_command(place: Path) -> None:
    def script(asked: Asked) -> Answer:
        if asked.headers.get("x-token") != "s3cret" or asked.headers["user-agent"] != "me/1":
            return Answer(status=403)
        if asked.path == "/list":
            return Answer(f"{server.url('file')}\n".encode())
        return Answer(b"the file")

    with ScriptedServer(script) as server:
        words = ("-d", "out", "-H", "X-Token: s3cret", "-U", "me/1", "--checksum", f"md5={'0' * 32}")
        assert run(place, "-i", server.url("list"), *words[:6]).returncode == 0
        assert (place / "out" / "file").read_bytes() == b"the file"
        # The checksum option applies to the file, not to the list.
        (place / "out" / "file").unlink()
        said = run(place, "-i", server.url("list"), *words)
        assert said.returncode == 1
        assert "checksum" in errors(said)[0]
        assert run(place, "-i", server.url("list"), *words[:2]).returncode == 2


def test_a_proxy_of_the_command_is_that_of_its_list_too(place: Path) -> None:
    """Only the proxy knows the host name."""
    with ScriptedServer(lambda asked: Answer(b"http://nowhere.invalid/file\n")) as proxy:
        said = run(place, "-i", "http://nowhere.invalid/list", "-d", "out", "--all-proxy", proxy.url(""))
        assert said.returncode == 0, said.stderr
        assert proxy.paths == ["http://nowhere.invalid/list", "http://nowhere.invalid/file"]


def test_in_python_it_is_asked_for_with_options_too() -> None:
    with ScriptedServer(lambda asked: Answer(asked.headers["x-url"].encode())) as server:
        [item] = read_manifest(server.url("list"), options={"headers": {"X-Url": "http://h/x"}, "save_dir": "/nowhere"})
        assert item.url == "http://h/x"
        with pytest.raises(TypeError, match="unknown option"):
            read_manifest(server.url("list"), options={"proxyy": ""})
