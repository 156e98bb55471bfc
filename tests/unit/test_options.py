"""Options: valid ones are accepted; invalid ones are refused by name before any file or connection is opened."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefetch.checks import HTTP, check_url, is_metadata_url, parse_size
from rangefetch.net import libcurl
from rangefetch.net.profiles import profile_settings
from rangefetch.net.sources import Source
from rangefetch.options import AllOptions, CommonOptions, DownloadOptions, FetchOptions, StreamOptions

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
LARGEST = (1 << 62) - 1
OF_THE_PLACE = {"save_dir", "filename", "overwrite", "expected_size"}


class OctetPath(os.PathLike[bytes]):
    """A path that is bytes where text is expected."""

    def __fspath__(self) -> bytes:
        return b"octets"


# A surrogate cannot be encoded, and so neither sent nor used in a path.
UNSPEAKABLE = "\ud800"

NO_TEXT: list[Any] = [None, 1, b"octets", ["list"], OctetPath()]
NO_LINE: list[Any] = ["new\nline", "return\r", "zero\0", "\x7f", UNSPEAKABLE]
NO_TRUTH: list[Any] = [None, 0, 1, "true", ""]
NO_SECONDS: list[Any] = [None, True, "5", [1], -0.001, -1, float("nan"), float("inf"), 1e9, 10**400]
NO_SIZE_TEXT = ["M", "4X", "-1", "1e3", "0x10", "4M4", "1.2.3M"]
NO_SIZE: list[Any] = [None, True, 1.5, [1], -1, 1 << 62, "1" * 30, "", " ", *NO_SIZE_TEXT]
NO_COUNT: list[Any] = [None, True, 1.0, "1", 0, -1, 1025, 1 << 70]
NO_URL: list[Any] = [
    None,
    b"http://h/",
    "",
    "h/a",
    "//h/a",
    "ftp://h/a",
    "file:///etc/passwd",
    "http://",
    "http:///a",
    "http://:80/",
    "http://user@/",
    "http://h:port/",
    "http://h:65536/",
    "http://[::1/",
    "http://h/a b",
    "http://h/a\nb",
    "http://h\r\n/",
    "http://h/\0",
    "http://h/\x7f",
    "http://h/" + UNSPEAKABLE,
    " http://h/",
]

WRONG: dict[str, list[Any]] = {
    "save_dir": NO_TEXT + NO_LINE,
    "filename": [*NO_TEXT, *NO_LINE, ".", "..", "a/b", "/a", "a\\b", "../a"],
    "overwrite": NO_TRUTH,
    "wait_for_other": NO_TRUTH,
    "auto_file_renaming": NO_TRUTH,
    "file_allocation": [None, 1, "", "prealloc", "FALLOC"],
    "durable": NO_TRUTH,
    "decode": NO_TRUTH,
    "decode_limit": NO_SIZE,
    "mirrors": ["http://h/a", None, 1, {"http://h/a"}, [None], *([url] for url in NO_URL)],
    "use_github_mirror": NO_TRUTH,
    "github_mirrors": ["https://h/", None, [None], ["h"], ["ftp://h/"], ["ftp://h/=https://h/"]],
    "refresh_url": [1, "http://h/", []],
    "checksum": [*NO_TEXT, *NO_LINE, "md5", "md5=", "=00", "md5=" + "0" * 31, "md5=" + "g" * 32, "crc32=00000000"],
    "expected_size": NO_SIZE,
    "max_file_size": NO_SIZE,
    "split": NO_COUNT,
    "max_connection_per_server": NO_COUNT,
    "min_split_size": NO_SIZE,
    "max_download_limit": NO_SIZE,
    "host_rate": [None, True, "", "x", "-1", "10/x", "10 /s", "/s", "1e3", -1, 1e-9, "0.1/d", 1e9, "10000000/s", [1]],
    "robots": NO_TRUTH,
    "user_agent": NO_TEXT + NO_LINE,
    "headers": [
        None,
        1,
        "A: b",
        {1: "b"},
        {"A": 1},
        {"A": None},
        [1],
        ["no colon"],
        [": no name"],
        {"": "b"},
        {"A B": "c"},
        {"A:": "b"},
        {"A\r\nB": "c"},
        {"Ä": "b"},
        *({"A": text} for text in NO_LINE),
        *({name: "b"} for name in ("Range", "if-range", "ACCEPT-ENCODING", "Content-Length", "Transfer-Encoding")),
    ],
    "proxy": NO_TEXT + NO_LINE,
    "no_proxy": [*NO_TEXT, *NO_LINE],
    "bind_address": [*NO_TEXT, *NO_LINE],
    "ip_version": ["5", "v4", 4, None],
    "cookies": [*NO_TEXT, *NO_LINE, "/nowhere/cookies.txt", "/"],
    "netrc": NO_TRUTH,
    "auth": ["me:s3cret", 1, ("me",), ("me", None), (b"me", "x"), ("a", "b", "c"), ("a:b", "c"), ("a\nb", "c")],
    "bearer_file": [*NO_TEXT, *NO_LINE, "/nowhere/token", "/"],
    "location_trusted": ["h", None, 1, [None], [""], ["http://h/"], ["h/x"], ["a b"], ["u@h"], ["h:99999"], ["h:x"]],
    "ca_file": [*NO_TEXT, *NO_LINE, "/nowhere/ca.pem", "/"],
    "proxy_ca_file": [*NO_TEXT, *NO_LINE, "/nowhere/ca.pem", "/"],
    "certificate": [*NO_TEXT, *NO_LINE, "/nowhere/me.pem", "/"],
    "private_key": [*NO_TEXT, *NO_LINE, "/nowhere/me.key", "/"],
    "verify_tls": NO_TRUTH,
    "http_version": [None, 1.1, 2, "", "1.0", "2.0", "h2"],
    "allow_downgrade": NO_TRUTH,
    "private_addresses": [None, True, "", "no", "Allow"],
    "trace": NO_TEXT + NO_LINE,
    "connect_timeout": NO_SECONDS,
    "read_timeout": NO_SECONDS,
    "total_timeout": NO_SECONDS,
    "max_tries": [None, True, 1.0, "1", -1, 1_000_001],
    "retry_wait": NO_SECONDS,
}


def test_every_option_has_wrong_values_here() -> None:
    assert list(WRONG) == [field.name for field in dataclasses.fields(DownloadOptions)]


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in WRONG for value in WRONG[name]],
    ids=lambda value: ascii(value)[:30],
)
def test_a_wrong_value_is_refused_by_the_options_name(name: str, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        DownloadOptions(**{name: value})
    assert str(caught.value).startswith(f"{name}: "), str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_refused_by_its_name() -> None:
    with pytest.raises(TypeError, match=r"^splitt: unknown option$"):
        DownloadOptions.of({"splitt": 4})
    with pytest.raises(TypeError, match=r"^splitt: unknown option$"):
        DownloadOptions.of(splitt=4)


# Sizes.


@given(st.integers(0, LARGEST))
@example(LARGEST)
def test_a_number_is_so_many_bytes(size: int) -> None:
    assert parse_size(size, "x") == parse_size(str(size), "x") == parse_size(f" {size} ", "x") == size


@given(
    st.integers(0, 1 << 20),
    st.sampled_from(list(UNITS)),
    st.sampled_from(["", "B", "iB", "b"]),
    st.sampled_from(["", " "]),
)
def test_units_are_powers_of_1024_however_they_are_written(count: int, unit: str, rest: str, space: str) -> None:
    expected = count * UNITS[unit]
    for text in (f"{count}{space}{unit}{rest}", f"{count}{space}{unit.lower()}{rest}"):
        assert parse_size(text, "x") == expected


@given(st.decimals(min_value=0, max_value=1000, places=3), st.sampled_from(["K", "M", "G"]))
def test_fractions_are_cut_to_whole_bytes(number: Any, unit: str) -> None:
    assert abs(parse_size(f"{number}{unit}", "x") - int(number * UNITS[unit])) <= 1


@given(st.text(max_size=20) | st.from_regex(r"[0-9. ]{1,20}[KMGTkmgt]?i?[Bb]?", fullmatch=True))
@example("9" * 400)
@example("9" * 400 + ".5")
@example("9" * 5000)
@example("0" * 5000)
@example("1." + "0" * 5000)
@example(".")
@example(".5K")
@example("٣M")
def test_any_text_is_a_size_or_refused_by_the_options_name(text: str) -> None:
    try:
        assert 0 <= parse_size(text, "the option") <= LARGEST
    except ValueError as error:
        assert str(error).startswith("the option: ")  # noqa: PT017 - hypothesis calls it with what may be right, too


# URLs.


@pytest.mark.parametrize("url", NO_URL, ids=ascii)
def test_a_wrong_url_is_refused_by_the_options_name(url: object) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^the option: "):
        check_url(url, "the option", HTTP)


@pytest.mark.parametrize(
    ("url", "followed"),
    [
        ("http://h/a", False),
        ("HTTPS://h", False),
        ("ftp://user:word@h:2121/a", False),
        ("sftp://h/a", False),
        ("magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567&dn=a", True),
        ("magnet:?dn=a&xt=urn%3Abtih%3A0123456789abcdef0123456789abcdef01234567", True),
        ("file:///a/b.torrent", True),
        ("file://localhost/b.METALINK", True),
        ("https://h/a.meta4?token=b", True),
        ("https://h/a.torrent/b", False),
        ("https://h/a?b=c.torrent", False),
    ],
)
def test_what_some_backend_serves_is_a_url(url: str, followed: bool) -> None:
    assert check_url(url) == url
    assert is_metadata_url(url) is followed


@pytest.mark.parametrize(
    "url",
    ["gopher://h/a", "ftp:///a", "file:///etc/passwd", "file://h/a.torrent", "file:a", "magnet:", "magnet:?dn=a", "h"],
)
def test_what_none_serves_is_not(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url: "):
        check_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "https://h/",
        "HTTPS://H:443/a?b=c#d",
        "http://user:pass@h:8080/",
        "http://[::1]:80/",
        "http://127.0.0.1/%20%00",
        "http://h/ä",
        "http://h/\udce4",  # a byte of a command line that is not UTF-8
        "http://h/a|b^c",
    ],
    ids=ascii,
)
def test_a_url_that_can_be_fetched_comes_through_as_it_is(url: str) -> None:
    assert check_url(url) is url


@given(st.text(max_size=40) | st.text(max_size=30).map("http://".__add__))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    try:
        check_url(text)
    except ValueError as error:
        assert str(error).startswith("url: ")  # noqa: PT017 - hypothesis calls it with what may be right, too


# Valid options.


def test_paths_become_text(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    options = DownloadOptions(save_dir=tmp_path, ca_file=bundle, cookies=bundle)
    assert (options.save_dir, options.ca_file, options.cookies) == (str(tmp_path), str(bundle), str(bundle))


def test_sizes_become_numbers_and_at_least_one_byte_is_split_off() -> None:
    options = DownloadOptions.of(min_split_size="1.5M", expected_size="1G", max_download_limit="4K")
    assert (options.min_split_size, options.expected_size, options.max_download_limit) == (1572864, 1 << 30, 4096)
    assert DownloadOptions(min_split_size=0).min_split_size == 1


@pytest.mark.parametrize("headers", [{"A": "b", "C": ""}, ["A: b", "C:"], ("A:b", "C: ")], ids=str)
def test_headers_may_be_a_mapping_or_lines(headers: Any) -> None:
    options = DownloadOptions(headers=headers)
    assert options.headers == {"A": "b", "C": ""}
    assert options.header_items == (("A", "b"), ("C", ""))


def test_a_value_may_hold_colons_and_tabs() -> None:
    assert DownloadOptions(headers=["A: b: c\td"]).header_items == (("A", "b: c\td"),)


@pytest.mark.parametrize("text", ["sha-256=", "sha256:", "SHA-256=", " sha256 = "])
def test_a_checksum_has_one_form_inside(text: str) -> None:
    assert DownloadOptions(checksum=text + "AB" * 32).checksum == "sha-256=" + "ab" * 32


def test_options_come_from_options_mappings_and_keywords() -> None:
    base = DownloadOptions(split=3, headers={"A": "b"})
    assert DownloadOptions.of() == DownloadOptions.of(None) == DownloadOptions()
    assert DownloadOptions.of(base) == base
    assert DownloadOptions.of(base, split=4) == dataclasses.replace(base, split=4)
    assert DownloadOptions.of({"split": 3, "headers": ["A: b"]}) == base
    assert DownloadOptions.of({"split": 5}, split=3, headers={"A": "b"}) == base
    for wrong in ("split=3", [("split", 3)], 3):
        with pytest.raises(TypeError, match=r"^options: "):
            DownloadOptions.of(wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_a_callers_mapping_is_not_the_options_own() -> None:
    headers = {"A": "b"}
    options = DownloadOptions(headers=headers)
    headers["C"] = "d"
    assert isinstance(options.headers, Mapping)
    assert dict(options.headers) == {"A": "b"}


def test_options_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DownloadOptions().split = 3  # type: ignore[misc]  # wrong on purpose


def test_options_as_a_dict_are_camel_case_and_ready_for_json() -> None:
    found = DownloadOptions(headers={"X-A": "b"}, refresh_url=str, mirrors=["http://h/"]).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert "refreshUrl" not in found
    assert len(found) == len(dataclasses.fields(DownloadOptions)) - 1
    assert (found["maxConnectionPerServer"], found["headers"], found["mirrors"]) == (16, {"X-A": "b"}, ["http://h/"])


def test_nothing_secret_is_shown() -> None:
    options = DownloadOptions(
        headers={"Authorization": "Bearer hidden-1", "Cookie": "id=hidden-2", "X-Key": "hidden-3"},
        proxy="http://me:hidden-4@proxy:3128",
        mirrors=["https://me:hidden-5@host/x", "https://hidden@6@host/y", "https://host/a@b"],
        filename="a@b",
        split=3,
    )
    shown = repr(options)
    assert "hidden" not in shown
    assert "hidden" not in f"{options}"
    for shows in ("Authorization", "X-Key", "http://***@proxy:3128", "https://***@host/x", "//host/a@b", "'a@b'"):
        assert shows in shown
    assert "max_tries" not in shown
    assert repr(DownloadOptions()) == "DownloadOptions()"
    assert repr(DownloadOptions(proxy="me:hidden@proxy:1")) == "DownloadOptions(proxy='***@proxy:1')"


# Values of other types with the same meaning.


class ObjectUrl:
    """Like ``yarl.URL`` and ``httpx.URL``: not a string, but its ``str()`` is the URL."""

    def __init__(self, text: str) -> None:
        self._text = text

    @property
    def scheme(self) -> str:
        return self._text.partition(":")[0]

    @property
    def host(self) -> str | None:
        return self._text.split("/")[2]

    def __str__(self) -> str:
        return self._text


def test_an_object_whose_str_is_a_url_is_one() -> None:
    url = ObjectUrl("https://h/a?b=c")
    assert check_url(url) == "https://h/a?b=c"
    assert DownloadOptions(mirrors=[url, "http://h/"]).mirrors == ("https://h/a?b=c", "http://h/")  # type: ignore[list-item]  # str is converted


@pytest.mark.parametrize(
    "url", [ObjectUrl("/a"), ObjectUrl("h/a"), Path("/a"), 1, None, b"http://h/", ["http://h/"], object()]
)
def test_an_object_whose_str_is_no_url_is_refused(url: object) -> None:
    with pytest.raises(TypeError, match=r"^the option: a URL is a string, not "):
        check_url(url, "the option")


def test_an_object_whose_str_is_a_wrong_url_is_refused_as_that() -> None:
    with pytest.raises(ValueError, match="gopher"):
        check_url(ObjectUrl("gopher://h/a"))


@pytest.mark.parametrize("kind", [np.int16, np.int64, np.uint8, np.uint64])
def test_numpys_integers_are_integers(kind: Any) -> None:
    options = DownloadOptions(split=kind(4), expected_size=kind(100), max_tries=kind(2), connect_timeout=kind(3))
    assert options == DownloadOptions(split=4, expected_size=100, max_tries=2, connect_timeout=3)
    plain = (options.split, options.expected_size, options.max_tries, options.connect_timeout)
    assert [type(value) for value in plain] == [int, int, int, float]
    assert json.dumps(options.to_dict())


def test_numpys_booleans_are_true_or_false() -> None:
    for value in (True, False):
        options = DownloadOptions(overwrite=np.bool_(value), netrc=np.bool_(value))  # type: ignore[arg-type]  # NumPy's numbers count as Python's
        assert options.overwrite is value
        assert options.netrc is value
    for wrong in (np.array([True]), np.int64(1), 1, "true"):
        with pytest.raises(TypeError, match="overwrite: expected True or False"):
            DownloadOptions(overwrite=wrong)  # type: ignore[arg-type]  # wrong on purpose


class _Text(str):
    """A ``str`` whose ``str()`` is different, as with enum members."""

    def __str__(self) -> str:
        return "another"


@pytest.mark.parametrize("kind", [np.str_, _Text])
def test_strings_of_a_subclass_are_plain_ones_afterwards(kind: Any) -> None:
    url, name = kind("http://host.example/x"), kind("x.bin")
    options = DownloadOptions(
        filename=name, mirrors=[url], proxy=url, headers={name: name}, github_mirrors=[url], auth=(name, name)
    )
    values = [check_url(url), options.filename, options.proxy, *options.mirrors, *options.github_mirrors]
    values += [text for pair in options.header_items for text in pair] + list(options.auth or ())
    assert set(values) == {"http://host.example/x", "x.bin"}
    assert {type(value) for value in values} == {str}


def test_numpys_floats_are_seconds_and_neither_counts_nor_sizes() -> None:
    assert DownloadOptions(read_timeout=np.float32(1.5)).read_timeout == 1.5  # type: ignore[arg-type]  # NumPy's numbers count as Python's
    for name in ("split", "expected_size"):
        with pytest.raises(TypeError, match=f"^{name}: "):
            DownloadOptions(**{name: np.float64(4)})  # type: ignore[arg-type]  # NumPy's numbers count as Python's
    with pytest.raises(ValueError, match=r"^read_timeout: "):
        DownloadOptions(read_timeout=np.float64("nan"))


# Options as dict keys, and as immutable values.

_SOME: dict[str, Any] = {
    "headers": {"A": "b", "C": "d"},
    "mirrors": ["http://h/"],
    "auth": ("me", "secret"),
    "github_mirrors": ["https://h/"],
    "location_trusted": ["h"],
    "refresh_url": str,
}


def test_options_are_hashable_and_equal_ones_alike() -> None:
    assert hash(DownloadOptions()) == hash(DownloadOptions())
    assert hash(DownloadOptions(**_SOME)) == hash(DownloadOptions(**_SOME))
    reordered = DownloadOptions(headers={"C": "d", "A": "b"})
    assert {DownloadOptions(headers={"A": "b", "C": "d"}): 1}[reordered] == 1
    assert len({DownloadOptions(split=count % 3 + 1) for count in range(9)}) == 3


def test_nothing_in_options_can_be_changed() -> None:
    options = DownloadOptions(**_SOME)
    headers: Any = options.headers
    with pytest.raises(TypeError):
        headers["E"] = "f"
    assert isinstance(options.mirrors, tuple)
    assert options.headers == {"A": "b", "C": "d"}


@pytest.mark.parametrize("copied", [lambda it: pickle.loads(pickle.dumps(it)), copy.copy, copy.deepcopy])
def test_a_copy_of_options_is_equal(copied: Callable[[DownloadOptions], DownloadOptions]) -> None:
    options = DownloadOptions(**_SOME)
    assert copied(options) == options
    assert hash(copied(options)) == hash(options)


def test_headers_do_not_show_their_values() -> None:
    assert repr(DownloadOptions(headers={"X-Token": "hidden"}).headers) == "{'X-Token': '***'}"


CHANGES: list[dict[str, Any]] = [
    {"filename": "a.bin", "save_dir": "/somewhere"},
    {"split": 3, "min_split_size": "1M"},
    {"headers": ["X: y"], "filename": "b"},
    {"ca_file": __file__, "private_key": ""},
    {"split": 16},
]


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize(
    "base", [DownloadOptions(), DownloadOptions(split=4, user_agent="u"), pickle.loads(pickle.dumps(DownloadOptions()))]
)
def test_options_of_options_are_those_that_are_made_anew(base: DownloadOptions, changes: dict[str, Any]) -> None:
    changed = DownloadOptions.of(base, **changes)
    anew = DownloadOptions(**base.given | changes)
    assert (changed, hash(changed), repr(changed), changed.given) == (anew, hash(anew), repr(anew), anew.given)
    assert pickle.loads(pickle.dumps(changed)) == changed


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"split": 0}, ValueError),
        ({"split": "x"}, TypeError),
        ({"none": 1}, TypeError),
        ({"private_key": "/k"}, ValueError),
    ],
)
def test_what_is_changed_is_checked(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(changes))):
        DownloadOptions.of(DownloadOptions(split=4), **changes)


def test_options_that_differ_in_the_place_have_one_manner() -> None:
    base = DownloadOptions(headers={"A": "b"}, proxy="http://proxy:1")
    named = DownloadOptions.of(base, filename="a.bin", save_dir="/somewhere", overwrite=True, expected_size=5)
    assert base.manner is base
    assert named.manner is base
    assert DownloadOptions.of(named, filename="b.bin").manner is base
    source = Source("http://host/file")
    libcurl.load()
    assert profile_settings(named, source) == profile_settings(base, source)


@pytest.mark.parametrize("option", sorted({field.name for field in dataclasses.fields(DownloadOptions)} - OF_THE_PLACE))
def test_with_any_other_option_they_have_their_own(option: str) -> None:
    base = DownloadOptions(certificate=__file__)
    other = DownloadOptions.of(base, filename="a.bin", **{option: getattr(base, option)})
    assert other.manner is other


def test_typed_keywords_are_the_fields() -> None:
    fields = {field.name for field in dataclasses.fields(DownloadOptions)}
    assert set(AllOptions.__annotations__) == fields
    assert set(FetchOptions.__annotations__) == fields - {"mirrors", "checksum"}
    assert set(StreamOptions.__annotations__) == fields - {"save_dir", "filename"}
    assert set(CommonOptions.__annotations__) == fields - {"save_dir", "filename", "mirrors", "checksum"}
    for each in (AllOptions, FetchOptions, StreamOptions, CommonOptions):
        assert each.__required_keys__ == frozenset()
