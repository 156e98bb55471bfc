"""File names from servers and URLs: whatever they contain, the result is one safe path component."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefetch.disk.names import (
    choose_filename,
    filename_from_content_disposition,
    filename_from_url,
    harmless_filename,
    is_plain_filename,
    numbered,
    safe_filename,
)

nasty_text = (
    st.text(max_size=300)
    | st.text(st.sampled_from("/\\.. \0\n\r\t\"%;=*'aCONul1\u202e\u200d\u0301é\ud800ﬁ名😀"), max_size=300)
    | st.lists(
        st.sampled_from([".part", ".PaRt", ".json", ".tmp", ".bad", ".1", ".aria2", "a" * 190, "é", "\ufe0f", " ", "-"])
    ).map("".join)
)
OURS = re.compile(r"\.(part|part\.json|part\.aria2|aria2|aria2__temp|bad|bad\.[0-9]+|tmp)", re.IGNORECASE)


def assert_safe(name: str) -> None:
    if not name:
        return
    assert name == unicodedata.normalize("NFC", name)
    assert not set(name) & set("/\\\0")
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in name)
    assert name == name.strip(" ")
    assert not name.endswith(".")
    assert len(name.encode()) <= 200
    assert not any(OURS.fullmatch(name.casefold(), start) for start in range(len(name)))
    assert name.split(".")[0].rstrip().upper() not in ("CON", "PRN", "AUX", "NUL", "COM1", "LPT9")


@given(name=nasty_text)
@example(name="e\u200d\u0301" * 80)
@example(name="COM\u200b1.txt")
def test_whatever_comes_in_a_safe_name_comes_out_and_stays(name: str) -> None:
    assert_safe(safe_filename(name))
    assert safe_filename(safe_filename(name)) == safe_filename(name)
    harmless = harmless_filename(name)
    assert_safe(harmless)
    assert not harmless.startswith((".", "-", "~"))
    assert harmless_filename(harmless) == harmless


@given(name=st.text(st.characters(codec="ascii"), max_size=20) | nasty_text)
@example(name="NUL.txt")
@example(name="x.part")
@example(name="\u212a.txt")
def test_a_plain_name_is_one_that_no_rule_changes(name: str) -> None:
    if is_plain_filename(name):
        assert harmless_filename(name) in (name, "_" + name)
        assert safe_filename(name) == name


@pytest.mark.parametrize("name", ["a", "model-00001-of-00002.safetensors", "x.part1", "x.bad.zip", "v1.tmp.gz", "part"])
def test_names_that_only_look_like_ours_are_kept(name: str) -> None:
    assert safe_filename(name) == name
    assert is_plain_filename(name)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("x.part", "x.part_"),
        ("x.PART", "x.PART_"),
        ("x.part.json", "x.part.json_"),
        ("x.Part.Json", "x.Part.Json_"),
        ("x.part.j\u017fon", "x.part.j\u017fon_"),
        ("x.part.json.tmp", "x.part.json.tmp_"),
        ("x.part.json.bad", "x.part.json.bad_"),
        ("x.part.aria2", "x.part.aria2_"),
        ("x.1.part", "x.1.part_"),
        ("x.aria2", "x.aria2_"),
        ("x.aria2__temp", "x.aria2__temp_"),
        ("x.bad", "x.bad_"),
        ("x.bad.12", "x.bad.12_"),
        ("x.part. .", "x.part_"),
        ("x.par\u200bt", "x.part_"),
        ("x.par\ufe0ft", "x.part_"),
        ("x.part\u0301", "x.part\u0301"),
        (".part", ".part_"),
        ("dir/x.part", "x.part_"),
        ("x" * 195 + ".part" + "y" * 20, "x" * 194 + ".part_"),
        ("x" * 300 + ".part", "x" * 194 + ".part_"),
        ("x" * 199 + ".part", "x" * 194 + ".part_"),
    ],
)
def test_no_name_from_outside_ends_as_the_files_beside_a_target_do(name: str, safe: str) -> None:
    assert safe_filename(name) == safe
    assert not is_plain_filename(name)


@pytest.mark.parametrize(
    ("name", "harmless"),
    [
        (".bash_profile", "_bash_profile"),
        (".netrc", "_netrc"),
        (".htaccess", "_htaccess"),
        ("..x", "_.x"),
        ("-rf", "_rf"),
        ("--help", "_-help"),
        ("~root", "_root"),
        ("\ufe0f.bashrc", "_bashrc"),
        (" .bashrc", "_bashrc"),
        ("desktop.ini", "_desktop.ini"),
        ("AutoRun.inf", "_AutoRun.inf"),
        (".part", "_part_"),
        ("plain.txt", "plain.txt"),
        ("", ""),
    ],
)
def test_a_name_that_somebody_else_chose_neither_hides_nor_acts(name: str, harmless: str) -> None:
    assert harmless_filename(name) == harmless


@pytest.mark.parametrize(
    ("url", "resolved_url", "disposition", "name"),
    [
        ("http://h/.gitattributes", "", "", ".gitattributes"),
        ("http://h/.gitattributes", "http://cdn/.gitattributes?token=x", "", ".gitattributes"),
        ("http://h/.gitattributes", "http://cdn/5d41402a", "attachment; filename=.gitattributes", ".gitattributes"),
        ("http://h/x.zip", "http://h/.wgetrc", "", "_wgetrc"),
        ("http://h/x.zip", "http://h/y.zip", "attachment; filename=.bashrc", "_bashrc"),
        ("http://h/x.zip", "http://h/-rf", "attachment", "_rf"),
        ("http://h/x.zip", "http://h/", "", "x.zip"),
        ("http://h/x.part", "", "", "x.part_"),
        ("http://h/x", "", "attachment; filename=x.part.json", "x.part.json_"),
        ("http://h/", "", "", "download"),
    ],
)
def test_the_users_url_names_what_it_likes_and_a_server_does_not(
    url: str, resolved_url: str, disposition: str, name: str
) -> None:
    assert choose_filename(url, resolved_url, disposition) == name


@given(stem=st.text("ab é名.", max_size=300), extension=st.sampled_from([".gz", ".tar.gz", ".safetensors", ".名"]))
def test_shortening_keeps_the_extension(stem: str, extension: str) -> None:
    name = safe_filename("x" + stem + "x" + extension)
    assert name.endswith(extension)
    assert name.startswith("x")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("plain.txt", "plain.txt"),
        ("with space.txt", "with space.txt"),
        (".gitattributes", ".gitattributes"),
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\Windows\\system.ini", "system.ini"),
        ("a/", ""),
        ("", ""),
        (".", ""),
        ("..", ""),
        ("... . .", ""),
        ("\u202e", ""),
        ("  name. . ", "name"),
        ("evil\u202etxt.exe", "eviltxt.exe"),
        ("nul\0.txt", "_nul.txt"),
        ("two\r\nlines", "twolines"),
        ("cafe\u0301", "café"),
        ("CON", "_CON"),
        ("NUL.txt", "_NUL.txt"),
        ("aux .tar.gz", "_aux .tar.gz"),
        ("COM1", "_COM1"),
        ("lpt\xb9.log", "_lpt\xb9.log"),
        ("CONSOLE", "CONSOLE"),
        ("null.txt", "null.txt"),
        ("x" * 300 + ".tar.gz", "x" * 193 + ".tar.gz"),
        ("é" * 150, "é" * 100),
        ("a." + "b" * 300, "a." + "b" * 198),
    ],
)
def test_safe_filename(name: str, safe: str) -> None:
    assert safe_filename(name) == safe


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("attachment; filename=plain.txt", "plain.txt"),
        ('attachment; filename="with space.txt"', "with space.txt"),
        ("attachment; filename=with space.txt", "with space.txt"),
        ('ATTACHMENT ; FileName = "x.txt" ; size=5', "x.txt"),
        ('inline; filename="a;b=c.txt"; foo=bar', "a;b=c.txt"),
        ('attachment; x="filename=no.txt"; filename=yes.txt', "yes.txt"),
        (r'attachment; filename="say \"hi\".txt"', 'say "hi".txt'),
        (r'attachment; filename="f\oo.html"', "foo.html"),
        ("attachment; filename=it's.txt", "it's.txt"),
        ("attachment; filename=one.txt; filename=two.txt", "one.txt"),
        ("filename=no-type.txt", "no-type.txt"),
        ('attachment; filename="unterminated.txt', "unterminated.txt"),
        ('attachment; filename="unterminated; \\"quote\\"', 'unterminated; "quote"'),
        ('attachment; filename="backslash\\', "backslash"),
        ('attachment; filename="', ""),
        ("attachment; filename*=UTF-8''na%C3%AFve%20file.txt", "naïve file.txt"),
        ("attachment; filename*=utf-8'en'%e2%82%ac%20rates", "€ rates"),
        ("attachment; filename*=iso-8859-1''%A3.txt", "£.txt"),
        ("attachment; filename*=\"UTF-8''quoted.txt\"", "quoted.txt"),
        ("attachment; filename=plain.txt; filename*=UTF-8''better.txt", "better.txt"),
        ("attachment; filename*=UTF-8''better.txt; filename=plain.txt", "better.txt"),
        ("attachment; filename=plain.txt; filename*=UTF-8''%ff.txt", "plain.txt"),
        ("attachment; filename=plain.txt; filename*=shift_jis''%82.txt", "plain.txt"),
        ("attachment; filename=plain.txt; filename*=no-quotes", "plain.txt"),
        ("attachment; filename=plain.txt; filename*=no-charset''x.txt", "plain.txt"),
        ("attachment; filename=plain.txt; filename*=hex''78.txt", "plain.txt"),
        ("attachment; filename*=windows-1252''na%EFve%80.txt", "naïve€.txt"),
        ("attachment; filename*=iso-8859-1''%80.txt", "€.txt"),
        ("attachment; filename*=GBK''%C3%FB.txt", "名.txt"),
        ("attachment; filename*=shift_jis''%96%BC.txt", "名.txt"),
        ("attachment; filename*=koi8-r''%C6.txt", "ф.txt"),
        (r'attachment; filename="C:\dir\file.txt"', "file.txt"),
        (r'attachment; filename="\dir\file.txt"', "file.txt"),
        (r"attachment; filename=C:\dir\file.txt", "file.txt"),
        ('attachment;\tfilename\t=\t"tab.txt"\t;\tsize=1', "tab.txt"),
        ('attachment; filename="a\tb.txt"', "ab.txt"),
        ("attachment; filename=plain.txt; filename*=UTF-8''100%.txt", "plain.txt"),
        ("attachment; filename=plain.txt; filename*=UTF-8''%4.txt", "plain.txt"),
        ("attachment; filename=plain.txt; filename*=UTF-8''%zz.txt", "plain.txt"),
        ("attachment; filename=plain.txt; filename*=UTF-8''%2E%2E%2F", "plain.txt"),
        ("attachment; filename*=UTF-8''..%2f..%2fetc%2fpasswd", "passwd"),
        ('attachment; filename="/etc/passwd"', "passwd"),
        ('attachment; filename="..\\\\..\\\\x.dll"', "x.dll"),
        ('attachment; filename="%2e%2e"', "%2e%2e"),
        ('attachment; filename="na\xc3\xafve.txt"', "naïve.txt"),  # UTF-8 decoded as ISO-8859-1
        ('attachment; filename="na\xefve.txt"', "naïve.txt"),
        ('attachment; filename="名前.txt"', "名前.txt"),
        ('attachment; filename=""', ""),
        ("attachment; filename=", ""),
        ("attachment; filename", ""),
        ("attachment", ""),
        ("", ""),
        (";;;===", ""),
    ],
)
def test_filename_from_content_disposition(header: str, name: str) -> None:
    assert filename_from_content_disposition(header) == name


@given(text=nasty_text)
def test_no_header_breaks_the_parser(text: str) -> None:
    assert_safe(filename_from_content_disposition(text))
    assert_safe(filename_from_content_disposition(f"attachment; filename={text}"))
    assert_safe(filename_from_content_disposition(f"attachment; filename*=UTF-8''{text}"))


@given(name=st.text(max_size=60).map(safe_filename))
def test_a_name_comes_through_a_header_unchanged(name: str) -> None:
    quoted = re.sub(r'(["\\])', r"\\\1", name)
    octets = quoted.encode().decode("latin-1")
    assert filename_from_content_disposition(f'attachment; filename="{octets}"; size=1') == name
    encoded = "".join(f"%{octet:02X}" for octet in name.encode())
    assert filename_from_content_disposition(f"attachment; filename=x; filename*=UTF-8''{encoded}") == (name or "x")


@pytest.mark.parametrize(
    "header", [";" * 200_000, ";a" * 100_000, '; a="' * 50_000, '; a="\\' * 50_000, ";=\\" * 70_000, '"' * 200_000]
)
def test_a_hostile_header_takes_no_time_to_speak_of(header: str) -> None:
    assert filename_from_content_disposition(header) == ""


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://example.org/a/b.iso", "b.iso"),
        ("https://example.org/a/b.iso?x=/y/z#/frag/ment", "b.iso"),
        ("https://example.org/na%C3%AFve%20file.txt", "naïve file.txt"),
        ("https://example.org/naïve%20file.txt", "naïve file.txt"),
        ("https://example.org/%A3.txt", "£.txt"),
        ("https://example.org/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("https://example.org/a%5Cb.txt", "b.txt"),
        ("https://example.org/..", ""),
        ("https://example.org/%2e%2e", ""),
        ("https://example.org/100%.txt", "100%.txt"),
        ("https://example.org/dir/", ""),
        ("https://example.org/", ""),
        ("https://example.org", ""),
        ("https://example.org?file=x.txt", ""),
        ("https://[::1", ""),
        ("", ""),
    ],
)
def test_filename_from_url(url: str, name: str) -> None:
    assert filename_from_url(url) == name


@given(text=nasty_text)
def test_no_url_breaks_the_parser(text: str) -> None:
    assert_safe(filename_from_url(text))
    assert_safe(filename_from_url("http://example.org/" + text))


@pytest.mark.parametrize(
    ("name", "becomes"),
    [("a.bin", "a.2.bin"), ("a.tar.gz", "a.tar.2.gz"), ("bare", "bare.2"), (".hidden", ".hidden.2"), ("a.", "a..2")],
)
def test_a_number_goes_before_the_extension(name: str, becomes: str) -> None:
    assert numbered(name, 2) == becomes
