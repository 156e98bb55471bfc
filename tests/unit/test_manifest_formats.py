"""Manifests: what is special in each format."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

from rangefetch import ManifestError, read_manifest
from rangefetch.manifests import formats
from support.manifests import MD5, SHA, URLS, facts, items_of, with_mistakes

GOOD = URLS[0]


def test_aria2s_options_and_mirrors(tmp_path: Path) -> None:
    text = (
        f"{URLS[0]}\thttps://m.example.org/one\tftp://m.example.org/one\n dir={tmp_path}/sub\n"
        " out=x.bin\n header=X-Key: a\n header=Accept: b\n referer=https://example.org/\n split=3\n user-agent=me\n"
        " bt-max-peers=1\n"
        f"{URLS[1]}\n dir=other\n"
    )
    one, two = items_of(text, directory=str(tmp_path), strict=True)
    assert (one.path, one.mirrors) == ("sub/x.bin", ("https://m.example.org/one",))
    assert dict(one.options["headers"]) == {"X-Key": "a", "Accept": "b", "Referer": "https://example.org/"}
    assert (one.options["split"], one.options["user_agent"]) == (3, "me")
    assert (two.path, two.below("/d")) == ("other/", (URLS[1], {"save_dir": "/d/other"}))
    with pytest.raises(ManifestError, match="leads out"):
        items_of(text, directory="/elsewhere", strict=True)


def test_a_list_cannot_loosen_what_the_user_has_said() -> None:
    text = f"{GOOD}\n check-certificate=false\n allow-overwrite=true\n all-proxy=http://evil.example.net\n no-proxy=*\n"
    [item] = items_of(text, strict=True)
    assert dict(item.options) == {}


def test_a_file_report_of_ena() -> None:
    text = (
        "run_accession\tfastq_ftp\tfastq_md5\tfastq_bytes\tsubmitted_ftp\n"
        f"E1\tftp.sra.ebi.ac.uk/v/E1_1.fastq.gz;ftp.sra.ebi.ac.uk/v/E1_2.fastq.gz\t{MD5[0]};{MD5[1]}\t10;20\tx.org/s.bam\n"
    )
    items = items_of(text, strict=True)
    assert facts(items) == [
        ("https://ftp.sra.ebi.ac.uk/v/E1_1.fastq.gz", "", f"md5={MD5[0]}", 10, ()),
        ("https://ftp.sra.ebi.ac.uk/v/E1_2.fastq.gz", "", f"md5={MD5[1]}", 20, ()),
    ]
    assert [item.line for item in items] == [2, 2]
    [item] = items_of(text, columns={"url": "submitted_ftp"}, strict=True)
    assert item.url == "https://x.org/s.bam"


def test_a_csv_field_of_several_lines_and_stray_quotes() -> None:
    text = f'name,url,note\na,{URLS[0]},"one\ntwo ""quoted"""\nb,{URLS[1]},5" disk\n'
    items = items_of(text, strict=True)
    assert [(item.line, item.path, item.columns["note"]) for item in items] == [
        (2, "a", 'one\ntwo "quoted"'),
        (4, "b", '5" disk'),
    ]


def test_commas_and_quotes_in_urls_are_no_tables() -> None:
    urls = ["https://example.org/a,b.zip", "https://example.org/'x'", "https://example.org/?a=1,2"]
    manifest = read_manifest(io.BytesIO("\n".join(urls).encode()))
    assert manifest.format == "urls"
    assert [item.url for item in manifest] == urls


def test_rclones_rows() -> None:
    text = f'{URLS[0]},dir/one.bin\n"https://example.org/a,b","with space, comma.bin"\n{URLS[1]},\n'
    items = items_of(text, strict=True, input_format="rclone")
    assert [(item.url, item.path) for item in items] == [
        (URLS[0], "dir/one.bin"),
        ("https://example.org/a,b", "with space, comma.bin"),
        (URLS[1], ""),
    ]


def test_common_crawls_paths() -> None:
    path = "crawl-data/CC-MAIN-2025-05/segments/1/warc/x-00000.warc.gz"
    [item] = items_of(gzip.compress(f"{path}\n".encode()), strict=True)
    assert (item.url, item.path) == (f"https://data.commoncrawl.org/{path}", path)
    [item] = items_of(f"{path}\n", strict=True, base_url="https://mirror.example.org")
    assert item.url == f"https://mirror.example.org/{path}"


def test_digests_with_tags_and_escaped_names() -> None:
    text = f"SHA256 (a b#.bin) = {SHA[0]}\n\\{MD5[0]}  c\\\\d.bin\n{'0' * 128} *./e/f.bin\n"
    items = items_of(text, base_url="https://example.org/x/", strict=True)
    assert [(item.url, item.path, item.checksum.partition("=")[0]) for item in items] == [
        ("https://example.org/x/a%20b%23.bin", "a b#.bin", "sha-256"),
        ("https://example.org/x/c%5Cd.bin", "c/d.bin", "md5"),
        ("https://example.org/x/e/f.bin", "e/f.bin", "sha-512"),
    ]


def test_a_name_that_looks_like_a_url_stays_below_the_base() -> None:
    [item] = items_of(f"{SHA[0]}  http://evil.example.net/x\n", base_url="https://example.org/x/", strict=True)
    assert item.url.startswith("https://example.org/x/http:/")


def test_a_bag_gives_its_digests(tmp_path: Path) -> None:
    (tmp_path / "fetch.txt").write_text(f"{URLS[0]} 1000 data/a%0Ab.bin\n{URLS[1]} - data/c.bin\n")
    (tmp_path / "manifest-md5.txt").write_text(f"{MD5[0]}  data/c.bin\n")
    (tmp_path / "manifest-sha256.txt").write_text(f"{SHA[0]}  data/a%0Ab.bin\n{SHA[1]} *data/c.bin\n")
    items = list(read_manifest(tmp_path / "fetch.txt", strict=True))
    assert facts(items) == [
        (URLS[0], "data/ab.bin", f"sha-256={SHA[0]}", 1000, ()),
        (URLS[1], "data/c.bin", f"sha-256={SHA[1]}", 0, ()),
    ]


def test_a_repository_of_hugging_face_says_where_its_files_are() -> None:
    siblings = [{"rfilename": "sub/a b.bin", "size": 5, "lfs": {"sha256": SHA[0], "size": 5}}, {"rfilename": "c"}]
    for document, base in (
        ({"modelId": "me/x", "id": "me/x", "sha": "abc"}, "me/x"),
        ({"id": "me/x", "sha": "abc"}, "datasets/me/x"),
        ({"id": "me/x", "sha": "abc", "sdk": "static"}, "spaces/me/x"),
    ):
        items = items_of(json.dumps({**document, "siblings": siblings}), strict=True)
        assert facts(items) == [
            (f"https://huggingface.co/{base}/resolve/abc/sub/a%20b.bin", "sub/a b.bin", f"sha-256={SHA[0]}", 5, ()),
            (f"https://huggingface.co/{base}/resolve/abc/c", "c", "", 0, ()),
        ]


def test_records_in_the_newer_form() -> None:
    link = "https://zenodo.org/api/records/7/files/a.zip"
    entry = {"key": "a.zip", "size": 3, "checksum": f"md5:{MD5[0]}", "links": {"self": link}}
    for document in ({"files": {"entries": {"a.zip": entry}}}, {"entries": [entry]}):
        [item] = items_of(json.dumps(document), strict=True)
        assert (item.url, item.path) == (f"{link}/content", "a.zip")


@pytest.mark.parametrize("lines", [1, 3])
def test_a_document_type_in_a_metalink_is_refused(lines: int) -> None:
    bomb = (
        '<?xml version="1.0"?>' + "\n" * (lines - 1) + '<!DOCTYPE m [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">'
        '<!ENTITY f SYSTEM "file:///etc/passwd">]>'
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="x"><url>http://e.org/&b;&f;</url></file></metalink>'
    )
    with pytest.raises(ManifestError, match=f"^manifest:{lines}: a document type"):
        items_of(bomb)


def test_a_metalink_prefers_what_can_be_fetched() -> None:
    text = (
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="d/x.bin"><url priority="1">ftp://a.org/x</url>'
        "<url>https://b.org/x</url><url priority='2'>https://c.org/x</url></file><file name='y'/></metalink>"
    )
    items, mistakes = with_mistakes(text)
    assert [(item.url, item.path, item.mirrors) for item in items] == [
        ("https://c.org/x", "d/x.bin", ("https://b.org/x",))
    ]
    assert mistakes == [(1, "'y' has no URL")]


def test_lock_files_may_have_what_is_no_archive() -> None:
    text = 'lock-version = "1.0"\n[[packages]]\nname = "a"\nvcs = {type = "git", url = "https://e.org/a.git"}\n'
    text += f'[[packages]]\nname = "b"\narchive = {{url = "{GOOD}", hashes = {{sha256 = "{SHA[0]}"}}}}\n'
    items, mistakes = with_mistakes(text)
    assert facts(items) == [(GOOD, "", f"sha-256={SHA[0]}", 0, ())]
    assert mistakes == [(1, "file 1: a has no wheel, sdist or archive")]


def test_a_format_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    class Ours:
        NAME = "ours"

        def recognises(self, look: formats.Look) -> bool:
            return look.first == "OURS"

        def read(self, look: formats.Look, asked: formats.Asked) -> Any:
            from rangefetch.manifests.item import Row

            yield Row(1, GOOD)

    class Point:
        name = "ours"

        def load(self) -> Ours:
            return Ours()

    class Broken(Point):
        name = "broken"

        def load(self) -> Ours:
            raise ImportError("no")

    monkeypatch.setattr(
        metadata, "entry_points", lambda group: [Broken(), Point()] if group == "rangefetch.manifests" else []
    )
    for input_format in ("", "ours"):
        manifest = read_manifest(io.BytesIO(b"OURS\n"), input_format=input_format)
        assert manifest.format == "ours"
        assert [item.url for item in manifest] == [GOOD]
