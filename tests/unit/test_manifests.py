"""Manifests: the same files in each format, what is wrong with a line, and nothing that leads out of the directory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import rangefetch
from rangefetch import ManifestError, ManifestItem, read_manifest
from rangefetch.manifests import formats
from support.manifests import BASED, FORMATS, MD5, NAMES, SHA, SIZES, URLS, both


def read(text: str | bytes, **how: Any) -> list[ManifestItem]:
    octets = text if isinstance(text, bytes) else text.encode()
    return list(read_manifest(io.BytesIO(octets), **how))


def based(name: str) -> dict[str, Any]:
    return {"base_url": "https://example.org/d"} if name in BASED else {}


def expected(knows: Sequence[str]) -> list[tuple[str, str, str, int, tuple[str, ...]]]:
    def path(n: int) -> str:
        if "host" in knows:
            return f"example.org/d/{NAMES[n]}"
        if "scene" in knows:
            return f"scene{n}/{NAMES[n]}"
        return NAMES[n] if "name" in knows else ""

    return both(
        lambda n: (
            URLS[n],
            path(n),
            f"sha-256={SHA[n]}" if "sha" in knows else f"md5={MD5[n]}" if "md5" in knows else "",
            SIZES[n] if "size" in knows else 0,
            (f"https://mirror.example.org/{NAMES[n]}",) if "mirror" in knows else (),
        )
    )


def facts(items: Sequence[ManifestItem]) -> list[tuple[str, str, str, int, tuple[str, ...]]]:
    return [(item.url, item.path, item.checksum, item.size, item.mirrors) for item in items]


def test_each_format_is_tried() -> None:
    assert {*FORMATS, "parquet", "common-crawl"} == set(formats.NAMES)


@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_the_same_files_in_each_format(name: str, stated: bool) -> None:
    text, knows = FORMATS[name]
    manifest = read_manifest(io.BytesIO(text.encode()), strict=True, input_format=name if stated else "", **based(name))
    assert manifest.format == name
    assert facts(list(manifest)) == expected(knows)


@pytest.mark.parametrize("name", FORMATS)
def test_lines_as_windows_ends_them_and_a_byte_order_mark(name: str) -> None:
    text, knows = FORMATS[name]
    octets = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    assert facts(read(octets, strict=True, **based(name))) == expected(knows)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("name", ["urls", "csv", "metalink", "huggingface"])
def test_compressed_forms(name: str, compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    text, knows = FORMATS[name]
    path = tmp_path / "manifest"
    path.write_bytes(compress(text.encode()))
    assert facts(list(read_manifest(path, strict=True, **based(name)))) == expected(knows)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_form_that_is_cut_off_or_damaged_is_one_error(compress: Callable[[bytes], bytes]) -> None:
    octets = bytearray(compress("".join(f"{URLS[0]}?{n}\n" for n in range(100_000)).encode()))
    for damaged in (octets[: len(octets) // 2], octets[:200] + b"\xff" * 50 + octets[250:], octets[:8]):
        with pytest.raises(ManifestError, match=r"^manifest"):
            read(bytes(damaged))


def test_zstd_is_a_compressed_form_like_the_others(tmp_path: Path) -> None:
    zstd = pytest.importorskip("backports.zstd", reason="it is a package before Python 3.14")
    octets = zstd.compress("".join(f"{url}\n" for url in URLS).encode())
    assert [item.url for item in read(octets)] == list(URLS)
    (tmp_path / "list.jsonl.zst").write_bytes(zstd.compress(json.dumps({"url": URLS[0], "size": 7}).encode()))
    assert [(item.url, item.size) for item in read_manifest(tmp_path / "list.jsonl.zst")] == [(URLS[0], 7)]
    for damaged in (octets[: len(octets) // 2], octets[:20] + b"\xff" * 20):
        with pytest.raises(ManifestError, match=r"^manifest"):
            read(damaged)


def parquet_of(path: Path, columns: dict[str, list[Any]], **how: Any) -> Path:
    arrow = pytest.importorskip("pyarrow", reason="the package pyarrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="the package pyarrow is not installed")
    parquet.write_table(arrow.table(columns), path, **how)
    return path


def test_a_parquet_says_what_csv_does(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "url": list(URLS),
        "name": list(NAMES),
        "sha256": list(SHA),
        "size": list(SIZES),
        "mirrors": [[f"https://mirror.example.org/{name}"] for name in NAMES],
        "other": [None, {"a": 1}],
    }
    path = parquet_of(tmp_path / "list.parquet", columns)
    assert facts(list(read_manifest(path))) == expected(("name", "sha", "size", "mirror"))


def test_a_parquet_is_read_in_batches_and_its_bad_rows_are_numbered(tmp_path: Path) -> None:
    urls: list[Any] = [f"https://example.org/{number}" for number in range(10_000)]
    urls[4999], urls[9000] = None, "nonsense"
    path = parquet_of(tmp_path / "list.parquet", {"link": urls}, row_group_size=1000)
    bad: list[int] = []
    items = read_manifest(path, columns={"url": "link"}, on_bad_line=lambda line, _: bad.append(line))
    assert sum(1 for _ in items) == 9998
    assert bad == [5000, 9001]


def test_a_parquet_without_a_url_or_a_damaged_one_is_one_error(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "list.parquet", {"a": [1], "b": ["x"]})
    with pytest.raises(ManifestError, match="url"):
        list(read_manifest(path))
    whole = parquet_of(tmp_path / "whole.parquet", {"url": [f"https://example.org/{n}" for n in range(5000)]})
    octets = bytearray(whole.read_bytes())
    octets[100:400] = b"\xff" * 300
    path.write_bytes(octets)
    with pytest.raises(ManifestError, match="this Parquet cannot be read"):
        list(read_manifest(path))


def test_what_is_in_zstd_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ManifestError, match=r"rangefetch\[zstd\]"):
        read_manifest(io.BytesIO(b"\x28\xb5\x2f\xfd" + bytes(100)))


def test_parquet_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1" + bytes(100))
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ManifestError, match=r"rangefetch\[parquet\]"):
        list(read_manifest(tmp_path / "list.parquet"))
    with pytest.raises(ManifestError, match=r"rangefetch\[parquet\]"):
        read(b"PAR1" + bytes(100))


# -- lines ------------------------------------------------------------------------------------------------------------


def with_mistakes(text: str, **how: Any) -> tuple[list[ManifestItem], list[tuple[int, str]]]:
    mistakes: list[tuple[int, str]] = []
    items = read(text, on_bad_line=lambda number, what: mistakes.append((number, what)), **how)
    return items, mistakes


GOOD = URLS[0]


@pytest.mark.parametrize(
    ("text", "number", "what"),
    [
        (f"{GOOD}\ngopher://example.org/x\n", 2, "the scheme 'gopher' is not supported"),
        (f"{GOOD}\n/etc/passwd\n", 2, "no URL scheme"),
        (f"{GOOD}\nfile:///etc/passwd.torrent\n", 2, "the scheme 'file' is not supported"),
        (f"{GOOD}\nhttp://example.org:99999/\n", 2, "malformed"),
        (f"{GOOD}\nhttp://example.org/a b\n", 2, "percent-encode"),
        (f"{GOOD}\n{'x' * (2 << 20)}\n", 2, "longer than"),
        (f"{GOOD}\n  out=a\n\n{GOOD}\n  out=../b\n", 4, "leads out of the output directory"),
        (f"{GOOD}\n  out=a\n{GOOD}\n  split=many\n", 4, "not a whole number"),
        (f"{GOOD}\n  out=a\n{GOOD}\n  split=100000\n", 3, "out of range"),
        (f"  out=a\n{GOOD}\n  out=b\n", 1, "there is no URL above it"),
        (f"url,name\n{GOOD},a\n{GOOD}\n", 3, "1 fields, and 2 columns"),
        (f"url,size\n{GOOD},1\n{GOOD},-1\n", 3, "not a size in bytes"),
        (f"url,size\n{GOOD},1\n{GOOD},1e999\n", 3, "not a size in bytes"),
        (f"url,sha256\n{GOOD},{SHA[0]}\n{GOOD},{SHA[0][1:]}\n", 3, "sha-256"),
        (f"url,name\n{GOOD},a\n{GOOD},/etc/passwd\n", 3, "leads out"),
        (f"url,name\n{GOOD},a\n{GOOD},C:\\x\n", 3, "leads out"),
        (f"url,name\n{GOOD},a\n{GOOD},a/../../b\n", 3, "leads out"),
        (f'url,name\n{GOOD},a\n{GOOD},"b\n', 3, "a quote in it is not closed"),
        (f'url,name\n{GOOD},a\n{GOOD},"b"c\n', 3, "the quotes in it are wrong"),
        (f'{{"url": "{GOOD}"}}\n{{"url": \n', 2, "not JSON"),
        (f'{{"url": "{GOOD}"}}\n[1]\n', 2, "not a JSON object"),
        (f'{{"url": "{GOOD}"}}\n{{"name": "x"}}\n', 2, "no column is known to have URLs"),
        (f'{{"url": "{GOOD}"}}\n{"[" * 100_000}\n', 2, "nested too deeply"),
        (f'{{"url": "{GOOD}", "headers": 1}}\n{{"url": "{GOOD}"}}\n', 1, "are no headers"),
        (f'{{"url": "{GOOD}", "headers": {{"Range": "x"}}}}\n{{"url": "{GOOD}"}}\n', 1, "cannot be changed"),
        (f"{GOOD} 1 a\nnothing\n", 2, "not a URL, a length and a path"),
        (f"TsvHttpData-1.0\n{GOOD}\n{GOOD}\t1\t!!\n", 3, "not base64"),
        (f"@EXPLICIT\n{GOOD}\n{GOOD}#xyz\n", 3, "neither an MD5 nor a SHA-256"),
        (f"a.bin {SHA[0]} {GOOD}\nb.bin {SHA[0]}\n", 2, "--base-url"),
        (f"fastq_ftp\tfastq_md5\nexample.org/a;example.org/b\t{MD5[0]}\nexample.org/c\t{MD5[0]}\n", 2, "2 files"),
        ("run\tfastq_ftp\nE1\t\nE2\texample.org/c\n", 2, "no files in the column fastq_ftp"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named_and_does_not_stop_the_rest(text: str, number: int, what: str) -> None:
    items, mistakes = with_mistakes(text)
    assert len(items) == 1
    [(line, words)] = mistakes
    assert line == number
    assert what in words
    with pytest.raises(ManifestError, match=f"^manifest:{number}: "):
        read(text, strict=True)


def test_octets_that_are_not_text() -> None:
    mistakes: list[int] = []
    octets = f"{GOOD}\n".encode() + b"http://example.org/\xff\n" + f"{URLS[1]}\n".encode()
    items = read(octets, on_bad_line=lambda number, _: mistakes.append(number))
    assert ([item.url for item in items], mistakes) == ([*URLS], [2])


def test_without_a_listener_bad_lines_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert len(read(f"{GOOD}\nhttps://example.org/?token=secret x\n")) == 1
    assert "manifest:2:" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "there is nothing in it"),
        ("# nothing yet\n\n", "there is nothing in it"),
        ("nonsense\n", "no line in it can be used"),
        ("url,name\n", "there is nothing in it"),
        ("{", "not JSON"),
        (bytes(range(256)) * 100, "it is not text"),
        ("https://example.org/a\n".encode("utf-16"), "it is in UTF-16"),
        ("<!DOCTYPE html>\n<title>404</title>\n<p>Not here</p>\n", "it is a web page"),
        ("\ufeff\n<HTML lang=en>\n", "it is a web page"),
        ("[]", "there is nothing in it"),
        ("[1]", "no line in it can be used"),
        ("[" * 100_000, "nested too deeply"),
        ('["' + "x" * 100_000, "not JSON"),
        (f"{SHA[0]}  a\n", "--base-url"),
        ('<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file', "not XML"),
        ('<metalink xmlns="urn:ietf:params:xml:ns:metalink"/>', "there is nothing in it"),
        ('lock-version = "1.0"\n[[', "not TOML"),
        (json.dumps([{"type": "file", "oid": "1", "path": "a", "size": 1}]), "which repository it is"),
    ],
)
def test_a_manifest_of_no_use_is_one_error(text: str | bytes, what: str) -> None:
    said: list[tuple[int, str]] = []
    with pytest.raises(ManifestError, match=r"^manifest") as caught:
        read(text, on_bad_line=lambda line, what: said.append((line, what)))
    assert len(said) <= 1
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "nowhere", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ManifestError, match=what):
            read_manifest(path)
    with pytest.raises(ManifestError, match="text mode"):
        read_manifest(io.StringIO("x"))  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(TypeError):
        read_manifest(7)  # type: ignore[arg-type]  # wrong on purpose


def test_a_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(ManifestError, match=r"there is no column 'link' \(--url-column\); there are 'url', 'name'$"):
        read(f"url,name\n{GOOD},x\n", columns={"url": "link"}, input_format="csv")
    with pytest.raises(ManifestError, match="--url-column names it; there are 'a', 'b'"):
        read(f"a,b\n{GOOD},x\n", input_format="csv")
    with pytest.raises(ValueError, match="columns: 'colour'"):
        read("x", columns={"colour": "x"})


def test_columns_are_used_as_they_are_named() -> None:
    text = f"address;label;MD5;title\n{GOOD};x/y.bin;{MD5[0]};T\n"
    [item] = read(text, columns={"url": "address", "name": "label", "checksum": "MD5"}, strict=True)
    assert (item.url, item.path, item.checksum) == (GOOD, "x/y.bin", f"md5={MD5[0]}")
    assert item.columns["title"] == "T"
    [item] = read(f"url,name\n{GOOD},x\n", columns={"name": ""})
    assert item.path == ""


def test_a_format_that_there_is_not() -> None:
    with pytest.raises(ManifestError, match="'xls' is not a format of manifests; there are parquet, "):
        read("x", input_format="xls")


# -- particular formats ----------------------------------------------------------------------------------------------


def test_aria2s_options_and_mirrors(tmp_path: Path) -> None:
    text = (
        f"{URLS[0]}\thttps://m.example.org/one\tftp://m.example.org/one\n dir={tmp_path}/sub\n"
        " out=x.bin\n header=X-Key: a\n header=Accept: b\n referer=https://example.org/\n split=3\n user-agent=me\n"
        " bt-max-peers=1\n"
        f"{URLS[1]}\n dir=other\n"
    )
    one, two = read(text, directory=str(tmp_path), strict=True)
    assert (one.path, one.mirrors) == ("sub/x.bin", ("https://m.example.org/one",))
    assert dict(one.options["headers"]) == {"X-Key": "a", "Accept": "b", "Referer": "https://example.org/"}
    assert (one.options["split"], one.options["user_agent"]) == (3, "me")
    assert (two.path, two.below("/d")) == ("other/", (URLS[1], {"save_dir": "/d/other"}))
    with pytest.raises(ManifestError, match="leads out"):
        read(text, directory="/elsewhere", strict=True)


def test_a_list_cannot_loosen_what_the_user_has_said() -> None:
    text = f"{GOOD}\n check-certificate=false\n allow-overwrite=true\n all-proxy=http://evil.example.net\n no-proxy=*\n"
    [item] = read(text, strict=True)
    assert dict(item.options) == {}


def test_a_file_report_of_ena() -> None:
    text = (
        "run_accession\tfastq_ftp\tfastq_md5\tfastq_bytes\tsubmitted_ftp\n"
        f"E1\tftp.sra.ebi.ac.uk/v/E1_1.fastq.gz;ftp.sra.ebi.ac.uk/v/E1_2.fastq.gz\t{MD5[0]};{MD5[1]}\t10;20\tx.org/s.bam\n"
    )
    items = read(text, strict=True)
    assert facts(items) == [
        ("https://ftp.sra.ebi.ac.uk/v/E1_1.fastq.gz", "", f"md5={MD5[0]}", 10, ()),
        ("https://ftp.sra.ebi.ac.uk/v/E1_2.fastq.gz", "", f"md5={MD5[1]}", 20, ()),
    ]
    assert [item.line for item in items] == [2, 2]
    [item] = read(text, columns={"url": "submitted_ftp"}, strict=True)
    assert item.url == "https://x.org/s.bam"


def test_a_csv_field_of_several_lines_and_stray_quotes() -> None:
    text = f'name,url,note\na,{URLS[0]},"one\ntwo ""quoted"""\nb,{URLS[1]},5" disk\n'
    items = read(text, strict=True)
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
    items = read(text, strict=True, input_format="rclone")
    assert [(item.url, item.path) for item in items] == [
        (URLS[0], "dir/one.bin"),
        ("https://example.org/a,b", "with space, comma.bin"),
        (URLS[1], ""),
    ]


def test_common_crawls_paths() -> None:
    path = "crawl-data/CC-MAIN-2025-05/segments/1/warc/x-00000.warc.gz"
    [item] = read(gzip.compress(f"{path}\n".encode()), strict=True)
    assert (item.url, item.path) == (f"https://data.commoncrawl.org/{path}", path)
    [item] = read(f"{path}\n", strict=True, base_url="https://mirror.example.org")
    assert item.url == f"https://mirror.example.org/{path}"


def test_digests_with_tags_and_escaped_names() -> None:
    text = f"SHA256 (a b#.bin) = {SHA[0]}\n\\{MD5[0]}  c\\\\d.bin\n{'0' * 128} *./e/f.bin\n"
    items = read(text, base_url="https://example.org/x/", strict=True)
    assert [(item.url, item.path, item.checksum.partition("=")[0]) for item in items] == [
        ("https://example.org/x/a%20b%23.bin", "a b#.bin", "sha-256"),
        ("https://example.org/x/c%5Cd.bin", "c/d.bin", "md5"),
        ("https://example.org/x/e/f.bin", "e/f.bin", "sha-512"),
    ]


def test_a_name_that_looks_like_a_url_stays_below_the_base() -> None:
    [item] = read(f"{SHA[0]}  http://evil.example.net/x\n", base_url="https://example.org/x/", strict=True)
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
        items = read(json.dumps({**document, "siblings": siblings}), strict=True)
        assert facts(items) == [
            (f"https://huggingface.co/{base}/resolve/abc/sub/a%20b.bin", "sub/a b.bin", f"sha-256={SHA[0]}", 5, ()),
            (f"https://huggingface.co/{base}/resolve/abc/c", "c", "", 0, ()),
        ]


def test_records_in_the_newer_form() -> None:
    link = "https://zenodo.org/api/records/7/files/a.zip"
    entry = {"key": "a.zip", "size": 3, "checksum": f"md5:{MD5[0]}", "links": {"self": link}}
    for document in ({"files": {"entries": {"a.zip": entry}}}, {"entries": [entry]}):
        [item] = read(json.dumps(document), strict=True)
        assert (item.url, item.path) == (f"{link}/content", "a.zip")


@pytest.mark.parametrize("lines", [1, 3])
def test_a_document_type_in_a_metalink_is_refused(lines: int) -> None:
    bomb = (
        '<?xml version="1.0"?>' + "\n" * (lines - 1) + '<!DOCTYPE m [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">'
        '<!ENTITY f SYSTEM "file:///etc/passwd">]>'
        '<metalink xmlns="urn:ietf:params:xml:ns:metalink"><file name="x"><url>http://e.org/&b;&f;</url></file></metalink>'
    )
    with pytest.raises(ManifestError, match=f"^manifest:{lines}: a document type"):
        read(bomb)


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


# -- templates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "name"),
    [
        ("{host}/{path}", "example.org/d/x.tar.gz"),
        ("{index:08d}{suffix}", "00000000.tar.gz"),
        ("{sha256:.2}/{sha256}", f"aa/{SHA[0]}"),
        ("{kind}/{stem}-{line}{suffix}", "a_b/x-2.tar.gz"),
        ("{number:04d}", "0007"),
        ("{{x}}{name}", "{x}x.tar.gz"),
    ],
)
def test_a_template_names_what_the_manifest_does_not(template: str, name: str) -> None:
    text = f"url,sha256,kind,number\nhttps://example.org/d/x.tar.gz?a=1,{SHA[0]},a/b,7\n"
    [item] = read(text, name=template, strict=True)
    assert item.path == name
    [item] = read(f"url,name\n{GOOD},own\n", name="{index}{suffix}")
    assert item.path == "own"


@pytest.mark.parametrize("template", ["{", "{}", "{0!r}", "{url.__class__}", "{index:99999d}", "plain", "{index:{x}}"])
def test_a_template_that_is_none_is_refused_at_once(template: str) -> None:
    if template == "{url.__class__}":
        with pytest.raises(ManifestError, match="no such field or column"):
            read(GOOD, name=template, strict=True)
    else:
        with pytest.raises(ValueError):
            read_manifest(io.BytesIO(GOOD.encode()), name=template)


def test_a_template_is_given_nothing_that_leads_elsewhere() -> None:
    for url in ("https://example.org/%2e%2e/%2e%2e/x", "https://example.org/..%2f..%2fetc/x"):
        with pytest.raises(ManifestError, match="leads out"):
            read(url, name="{path}", strict=True)
    [item] = read(f"url,kind\n{GOOD},../../x\n", name="{kind}", strict=True)
    assert "/" not in item.path
    with pytest.raises(ManifestError, match="wants its sha256"):
        read(GOOD, name="{sha256}", strict=True)


# -- whatever they say ------------------------------------------------------------------------------------------------

anything = st.binary(max_size=300) | st.sampled_from([text.encode() for text, _ in FORMATS.values()]).flatmap(
    lambda octets: st.tuples(st.integers(0, len(octets)), st.binary(max_size=12), st.integers(0, 40)).map(
        lambda change: octets[: change[0]] + change[1] + octets[change[0] + change[2] :]
    )
)


@given(anything, st.sampled_from(["", *formats.NAMES]))
@example(b"\x1f\x8b", "")
@example(b"{}", "zenodo")
@example(b"[[]]", "huggingface")
@example(b'{"files": {"entries": 1}}', "zenodo")
def test_whatever_a_manifest_says_it_is_items_or_an_error(octets: bytes, name: str) -> None:
    items_or_an_error(octets, name)


def items_or_an_error(octets: bytes, name: str) -> None:
    try:
        items = read(octets, input_format=name, base_url="https://example.org/b/", on_bad_line=lambda *_: None)
    except ManifestError:
        return
    for item in items:
        parts = item.path.split("/")
        assert ".." not in parts
        assert not item.path.startswith(("/", "~"))
        assert not any(part.startswith(".") for part in parts)
        assert item.url.partition(":")[0].lower() in ("http", "https", "ftp", "sftp", "magnet")
        rangefetch.DownloadOptions.of(**item.below("/d")[1])


MEMBERS = [
    "url",
    "name",
    "path",
    "size",
    "type",
    "oid",
    "lfs",
    "files",
    "entries",
    "links",
    "self",
    "key",
    "install",
    "pip_version",
    "download_info",
    "archive_info",
    "hashes",
    "hash",
    "resources",
    "bytes",
    "distribution",
    "@type",
    "@id",
    "@graph",
    "contentUrl",
    "features",
    "assets",
    "stac_version",
    "href",
    "siblings",
    "rfilename",
    "sha",
    "id",
    "checksum",
    "headers",
    "mirrors",
]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([GOOD, SHA[0], "../x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(MEMBERS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["", *formats.NAMES]))
def test_whatever_a_document_holds_it_is_items_or_an_error(value: Any, name: str) -> None:
    items_or_an_error(json.dumps(value).encode(), name)


# -- fetch_many --------------------------------------------------------------------------------------------------------


class Endless(io.RawIOBase):
    """A list that has no end."""

    given = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        line = f"{GOOD}?{self.given}\n".encode()
        self.given += 1
        buffer[: len(line)] = line
        return len(line)


def test_lines_are_read_as_they_are_wanted() -> None:
    source: BinaryIO = Endless()  # type: ignore[assignment]  # a raw stream does for one
    manifest = read_manifest(source)
    assert [next(manifest).index for _ in range(3)] == [0, 1, 2]
    assert source.given < 20_000  # type: ignore[attr-defined]  # it is Endless
    manifest.close()
    with pytest.raises(StopIteration):
        next(manifest)
