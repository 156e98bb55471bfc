"""File names from servers and URLs: whatever they say, one safe path component comes out."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefetch.target import filename_from_content_disposition, filename_from_url, safe_filename

nasty_text = st.text(max_size=300) | st.text(
    st.sampled_from("/\\.. \0\n\r\t\"%;=*'aCONul1\u202e\u200d\u0301é\ud800ﬁ名😀"), max_size=300
)


def assert_safe(name: str) -> None:
    if not name:
        return
    assert name == unicodedata.normalize("NFC", name)
    assert not set(name) & set("/\\\0")
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in name)
    assert name == name.strip(" ")
    assert not name.endswith(".")
    assert len(name.encode()) <= 200
    assert name.split(".")[0].rstrip().upper() not in ("CON", "PRN", "AUX", "NUL", "COM1", "LPT9")


@given(name=nasty_text)
@example(name="e\u200d\u0301" * 80)
@example(name="COM\u200b1.txt")
def test_whatever_comes_in_a_safe_name_comes_out_and_stays(name: str) -> None:
    assert_safe(safe_filename(name))
    assert safe_filename(safe_filename(name)) == safe_filename(name)


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
        ('attachment; filename="unterminated.txt', '"unterminated.txt'),
        ("attachment; filename*=UTF-8''na%C3%AFve%20file.txt", "naïve file.txt"),
        ("attachment; filename*=utf-8'en'%e2%82%ac%20rates", "€ rates"),
        ("attachment; filename*=iso-8859-1''%A3.txt", "£.txt"),
        ("attachment; filename*=\"UTF-8''quoted.txt\"", "quoted.txt"),
        ("attachment; filename=plain.txt; filename*=UTF-8''better.txt", "better.txt"),
        ("attachment; filename*=UTF-8''better.txt; filename=plain.txt", "better.txt"),
        ("attachment; filename=plain.txt; filename*=UTF-8''%ff.txt", "plain.txt"),
        ("attachment; filename=plain.txt; filename*=shift_jis''%82.txt", "plain.txt"),
        ("attachment; filename=plain.txt; filename*=no-quotes", "plain.txt"),
        ("attachment; filename=plain.txt; filename*=UTF-8''%2E%2E%2F", "plain.txt"),
        ("attachment; filename*=UTF-8''..%2f..%2fetc%2fpasswd", "passwd"),
        ('attachment; filename="/etc/passwd"', "passwd"),
        ('attachment; filename="..\\\\..\\\\x.dll"', "x.dll"),
        ('attachment; filename="%2e%2e"', "%2e%2e"),
        ('attachment; filename="na\xc3\xafve.txt"', "naïve.txt"),  # UTF-8 handed over as ISO-8859-1
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


@pytest.mark.parametrize("header", [";" * 200_000, ";a" * 100_000, '; a="' * 50_000, ";=\\" * 70_000, '"' * 200_000])
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
