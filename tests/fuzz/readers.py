"""Fuzz targets for Python's parsers of responses and files: each takes some bytes, and raises if a promise is broken.

``TARGETS`` has them by name. ``run.py`` runs them under atheris; ``test_corpora.py`` runs them on the corpora and on
input from hypothesis. No target touches the network.
"""

# ruff: noqa: PT017 - a fuzzer calls them, and what is looked at is the error that may be raised

from __future__ import annotations

import argparse
import io
import itertools
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from rangefetch import ManifestError, _engine, read_manifest
from rangefetch.aria2 import remote
from rangefetch.checks import check_url, parse_size
from rangefetch.cli import config
from rangefetch.cli.vocabulary import make_parser
from rangefetch.disk import checksum, names, state
from rangefetch.disk.control_file import ControlFile, from_control_file, to_control_file
from rangefetch.disk.decoding import codings_to_undo
from rangefetch.disk.state import StateDamaged
from rangefetch.entries import SENSELESS, Reader
from rangefetch.errors import BadAnswer, LocalError
from rangefetch.headers import parse_date, parse_headers
from rangefetch.identity import is_strong, same_validators
from rangefetch.masking import mask_text, printable
from rangefetch.net import cookies, credentials
from rangefetch.options import DownloadOptions

__all__ = ["TARGETS"]

_RANGE = re.compile(r"bytes +(?:([0-9]+)-([0-9]+)|\*)/([0-9]+|\*)", re.IGNORECASE)
_LARGEST = 1 << 48


def _text(octets: bytes) -> str:
    """Decode as the engine decodes headers."""
    return octets.replace(b"\0", b"").decode("utf-8", "surrogateescape")


def _latin(octets: bytes) -> str:
    """Decode as ``http.client`` decodes headers."""
    return octets.replace(b"\0", b"").replace(b"\n", b" ").decode("latin-1")


def content_disposition(octets: bytes) -> None:
    """A name from a header is one harmless path component, and making it harmless again changes nothing."""
    name = names.choose_filename("http://h/own", "http://h/led/to", _text(octets).replace("\n", " "))
    _is_harmless(name)
    # "own" and "to" come from the URLs; any other name comes from the header.
    assert name in ("own", "to") or names.harmless_filename(name) == name


def url_name(octets: bytes) -> None:
    """A name from a redirect is one harmless path component."""
    name = names.choose_filename("http://h/own", "http://h/" + _text(octets).replace("\n", ""))
    _is_harmless(name)


def _is_harmless(name: str) -> None:
    assert name
    assert "/" not in name
    assert "\\" not in name
    assert name not in (".", "..")
    assert not name.startswith((".", "-", "~", " "))
    assert len(name.encode("utf-8", "surrogateescape")) <= names.MAX_NAME_BYTES + 2
    assert not any(ord(character) < 32 or ord(character) == 127 for character in name)


def content_range(octets: bytes) -> None:
    """The engine accepts exactly the grammar of RFC 9110, with numbers that a file can have. The aria2 backend's parser
    never reads a different range."""
    text = _latin(octets)
    found = _engine.content_range(text.encode("latin-1"))
    match = _RANGE.fullmatch(text)
    if match is None:
        assert found is None
    else:
        first, last, total = match.groups()
        meant = (
            -1 if first is None else _count(first),
            -1 if last is None else _count(last) + 1,
            -1 if total == "*" else _count(total),
        )
        fits = max(meant[0], meant[1] - 1, meant[2]) <= _LARGEST and (first is None or meant[0] < meant[1])
        fits = fits and (meant[2] < 0 or meant[1] <= meant[2]) and (first is not None or meant[2] >= 0)
        assert found == (meant if fits else None)
    pythons = remote._content_range(text)
    if found is not None and found[0] >= 0 and found[2] >= 0:
        # That parser refuses numbers of twenty digits or more, even if they are zeros.
        assert pythons == (found[0], found[1] - 1, found[2]) or (pythons is None and re.search("[0-9]{20}", text))


def _count(digits: str) -> int:
    """Read a number of any length; int() limits the number of digits."""
    return int(digits.lstrip("0")[:30] or "0")


def retry_after(octets: bytes) -> None:
    """A wait is never negative or infinite."""
    assert 0 <= remote._retry_after_s(_latin(octets)) <= 1 << 40


def link(octets: bytes) -> None:
    """A Link header is searched for mirrors in one pass."""
    remote._DUPLICATE.search(_latin(octets))
    remote.tokens(_latin(octets))
    remote._number(_latin(octets))


def header_lines(octets: bytes) -> None:
    """Header names are in lower case, and dates are numbers or None."""
    for name, value in parse_headers(_text(octets)).items():
        assert name == name.lower()
        date_s = parse_date(value)
        assert date_s is None or date_s == date_s


def digests(octets: bytes) -> None:
    """A digest that a server states has its algorithm's length."""
    stated = checksum.all_stated_by_server(parse_headers(_text(octets)), whole=True)
    for algorithm, digest in stated.items():
        assert checksum.split(f"{algorithm}={digest}") == (algorithm, digest)


def codings(octets: bytes) -> None:
    """Only codings named in the header are undone, and only the declared error is raised."""
    listed, _, name = _text(octets).partition("\n")
    try:
        undone = codings_to_undo(listed, [name])
    except BadAnswer:
        return
    assert all(each in listed.lower() for each in undone)


def validators(octets: bytes) -> None:
    """The engine and Python compare the validators of two responses alike."""
    parts = [each.replace(b"\0", b"")[:1000] for each in octets.split(b"\n")[:4]]
    parts += [b""] * (4 - len(parts))
    texts = [each.decode("utf-8", "surrogateescape") for each in parts]
    assert _engine.same_validators(*parts) == same_validators(*texts).value
    if is_strong(texts[0]):
        assert _engine.same_validators(parts[0], parts[1], parts[0], parts[3]) == "proven"


def saved_state(octets: bytes) -> None:
    """A state is either refused as damaged, or read completely and unchanged when written and read again."""
    try:
        document = state._decode(octets)
        if state._encode(document) != octets:
            # Recompute the checksum, so that the fuzzer gets past it.
            document.pop("crc32", None)
            octets = state._encode(document)
            document = state._decode(octets)
        found = state._from_document(document)
        state._check(found)
    except (ValueError, RecursionError):
        return
    again = state._from_document(state._decode(state._encode(state._to_document(found))))
    assert again == found
    assert 0 <= found.written_bytes <= found.total_size
    assert found.written_end <= found.total_size
    assert "/" not in found.filename


def control_file(octets: bytes) -> None:
    """aria2's control file is unchanged when written and read again; converted to a state, it claims no more bytes."""
    try:
        found = ControlFile.parse(octets)
    except StateDamaged:
        return
    assert ControlFile.parse(found.to_bytes()) == found
    runs = found.extents()
    assert all(0 <= start < end <= found.total_length for start, end in runs)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(runs))
    as_state = from_control_file(octets, "http://h/x")
    assert as_state.written_bytes <= found.written_bytes
    assert ControlFile.parse(to_control_file(as_state)).written_bytes <= found.written_bytes


def session_entry(octets: bytes) -> None:
    """An entry of a session is a valid download, or raises one of ``SENSELESS``, so that only this entry is lost."""
    try:
        entry = json.loads(octets)
    except (ValueError, RecursionError):
        return
    try:
        found = Reader().read(entry)
    except SENSELESS:
        return
    assert re.fullmatch("[0-9a-f]{16}", found.gid)
    assert check_url(found.url) == found.url


def cookie_file(octets: bytes) -> None:
    """No cookie contains a line break or is sent to a host that it is not for."""
    try:
        sent = cookies.cookies_for("http://www.example.org/a/b", octets, "cookies.txt")
    except ValueError:
        return
    assert "\r" not in sent
    assert "\n" not in sent
    domains = [each.domain for each in cookies.read_cookies(octets, "cookies.txt")]
    assert not sent or any("www.example.org".endswith(domain) for domain in domains)


_scratch = tempfile.NamedTemporaryFile(prefix="fuzz-")  # noqa: SIM115 - as long as the process


def netrc_file(octets: bytes) -> None:
    """A netrc file is read, or raises an error of one line, which does not quote the file: it may be a password."""
    path = Path(_scratch.name)
    path.write_bytes(octets)
    try:
        credentials._read_netrc(path)
    except LocalError as error:
        words = str(error).removeprefix(str(path))
        assert re.fullmatch(
            r": cannot read it: (line \d+ is malformed|'[\w-]+' codec can't decode bytes? [\w :-]+)", words
        )


_ACTIONS: dict[str, argparse.Action] = {
    name: action for action in make_parser()._actions for name in action.option_strings
}


def configuration(octets: bytes) -> None:
    """A configuration file becomes arguments of the command line, or raises an error with a message."""
    path = Path(_scratch.name)
    path.write_bytes(octets)
    try:
        for _, words in config.read(path, _ACTIONS, must_exist=True):
            assert all(word.startswith("--") for word in words)
    except config.ConfigError as error:
        assert str(error)


def input_file(octets: bytes) -> None:
    """A manifest in any format is read, or raises an error that names the manifest."""
    try:
        found = list(read_manifest(io.BytesIO(octets), on_bad_line=lambda line, what: None))
    except ManifestError as error:
        assert str(error).startswith("manifest:")
        return
    for item in found:
        assert check_url(item.url) == item.url
        assert ".." not in item.path.split("/")


def given_url(octets: bytes) -> None:
    """An accepted URL has no control characters, and its user name and password can be split off."""
    text = octets.decode("utf-8", "surrogateescape")
    try:
        url = check_url(text, schemes=("http", "https"))
    except ValueError:
        return
    assert not any(ord(character) < 33 or ord(character) == 127 for character in url)
    bare, authorization = credentials.split_userinfo(url)
    assert "\n" not in authorization
    assert "@" not in urlsplit(bare).netloc


def words_for_people(octets: bytes) -> None:
    """Printed text is one line without control characters, and passwords in its URLs are masked."""
    text = octets.decode("utf-8", "surrogateescape")
    assert printable(text).isprintable()
    assert mask_text(mask_text(text)) == mask_text(text)
    if not re.search(r"[/?#@\s]", text):
        assert text not in mask_text(f"http://user:{text}@h/") or text in "http://***@h/"


def sizes(octets: bytes) -> None:
    """A size is a number of bytes, or is refused with an error that names the option."""
    try:
        size = parse_size(octets.decode("utf-8", "replace"), "option")
    except ValueError as error:
        assert str(error).startswith("option")
        return
    assert 0 <= size < 1 << 62
    DownloadOptions(max_file_size=size)


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        *(content_disposition, url_name, content_range, retry_after, link, header_lines, digests, codings, validators),
        *(saved_state, control_file, session_entry, cookie_file, netrc_file, configuration, input_file),
        *(given_url, words_for_people, sizes),
    )
}
