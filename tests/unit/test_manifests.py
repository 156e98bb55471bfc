"""Manifests: the same files in each format, errors in lines, and names from templates."""

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

from rangefetch import ManifestError, read_manifest
from rangefetch.manifests import formats
from support.manifests import BASED, FORMATS, MD5, NAMES, SHA, SIZES, URLS, both, facts, items_of, with_mistakes


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
    assert facts(items_of(octets, strict=True, **based(name))) == expected(knows)


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
            items_of(bytes(damaged))


def test_zstd_is_a_compressed_form_like_the_others(tmp_path: Path) -> None:
    zstd = pytest.importorskip("backports.zstd", reason="it is a package before Python 3.14")
    octets = zstd.compress("".join(f"{url}\n" for url in URLS).encode())
    assert [item.url for item in items_of(octets)] == list(URLS)
    (tmp_path / "list.jsonl.zst").write_bytes(zstd.compress(json.dumps({"url": URLS[0], "size": 7}).encode()))
    assert [(item.url, item.size) for item in read_manifest(tmp_path / "list.jsonl.zst")] == [(URLS[0], 7)]
    for damaged in (octets[: len(octets) // 2], octets[:20] + b"\xff" * 20):
        with pytest.raises(ManifestError, match=r"^manifest"):
            items_of(damaged)


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
        items_of(b"PAR1" + bytes(100))


# -- lines ------------------------------------------------------------------------------------------------------------


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
        (f"  out=a\n{GOOD}\n  out=b\n", 1, "this option has no URL above it"),
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
        (f'{{"url": "{GOOD}"}}\n{{"name": "x"}}\n', 2, "cannot tell which column has the URLs"),
        (f'{{"url": "{GOOD}"}}\n{"[" * 100_000}\n', 2, "nested too deeply"),
        (f'{{"url": "{GOOD}", "headers": 1}}\n{{"url": "{GOOD}"}}\n', 1, "is not a mapping or list of headers"),
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
        items_of(text, strict=True)


def test_octets_that_are_not_text() -> None:
    mistakes: list[int] = []
    octets = f"{GOOD}\n".encode() + b"http://example.org/\xff\n" + f"{URLS[1]}\n".encode()
    items = items_of(octets, on_bad_line=lambda number, _: mistakes.append(number))
    assert ([item.url for item in items], mistakes) == ([*URLS], [2])


def test_without_a_listener_bad_lines_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert len(items_of(f"{GOOD}\nhttps://example.org/?token=secret x\n")) == 1
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
        (bytes(range(256)) * 100, "it is neither text"),
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
        (json.dumps([{"type": "file", "oid": "1", "path": "a", "size": 1}]), "does not name its repository"),
    ],
)
def test_a_manifest_of_no_use_is_one_error(text: str | bytes, what: str) -> None:
    said: list[tuple[int, str]] = []
    with pytest.raises(ManifestError, match=r"^manifest") as caught:
        items_of(text, on_bad_line=lambda line, what: said.append((line, what)))
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
    with pytest.raises(
        ManifestError, match=r"there is no column 'link' \(--url-column\); the columns are 'url', 'name'$"
    ):
        items_of(f"url,name\n{GOOD},x\n", columns={"url": "link"}, input_format="csv")
    with pytest.raises(ManifestError, match="name it with --url-column; the columns are 'a', 'b'"):
        items_of(f"a,b\n{GOOD},x\n", input_format="csv")
    with pytest.raises(ValueError, match="columns: 'colour'"):
        items_of("x", columns={"colour": "x"})


def test_columns_are_used_as_they_are_named() -> None:
    text = f"address;label;MD5;title\n{GOOD};x/y.bin;{MD5[0]};T\n"
    [item] = items_of(text, columns={"url": "address", "name": "label", "checksum": "MD5"}, strict=True)
    assert (item.url, item.path, item.checksum) == (GOOD, "x/y.bin", f"md5={MD5[0]}")
    assert item.columns["title"] == "T"
    [item] = items_of(f"url,name\n{GOOD},x\n", columns={"name": ""})
    assert item.path == ""


def test_a_format_that_there_is_not() -> None:
    with pytest.raises(ManifestError, match="'xls' is not a manifest format; the formats are parquet, "):
        items_of("x", input_format="xls")


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
    [item] = items_of(text, name=template, strict=True)
    assert item.path == name
    [item] = items_of(f"url,name\n{GOOD},own\n", name="{index}{suffix}")
    assert item.path == "own"


@pytest.mark.parametrize("template", ["{", "{}", "{0!r}", "{url.__class__}", "{index:99999d}", "plain", "{index:{x}}"])
def test_a_template_that_is_none_is_refused_at_once(template: str) -> None:
    if template == "{url.__class__}":
        with pytest.raises(ManifestError, match="no such field or column"):
            items_of(GOOD, name=template, strict=True)
    else:
        with pytest.raises(ValueError):
            read_manifest(io.BytesIO(GOOD.encode()), name=template)


def test_a_template_is_given_nothing_that_leads_elsewhere() -> None:
    for url in ("https://example.org/%2e%2e/%2e%2e/x", "https://example.org/..%2f..%2fetc/x"):
        with pytest.raises(ManifestError, match="leads out"):
            items_of(url, name="{path}", strict=True)
    [item] = items_of(f"url,kind\n{GOOD},../../x\n", name="{kind}", strict=True)
    assert "/" not in item.path
    with pytest.raises(ManifestError, match="needs its sha256"):
        items_of(GOOD, name="{sha256}", strict=True)


# -- reading on demand -----------------------------------------------------------------------------------------------


class Endless(io.RawIOBase):
    """An endless list."""

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
