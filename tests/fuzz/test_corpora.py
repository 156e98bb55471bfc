"""The fuzz targets, run on their corpora and on some input from hypothesis. ``make fuzz`` runs them for longer.

The engine's parsers are its own .pxd files, compiled into a library (``harness.pyx``); ``readers.py`` calls Python's.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fuzz.readers import TARGETS
from rangefetch import _engine
from rangefetch.aria2 import remote
from rangefetch.disk import decoding
from rangefetch.errors import BadAnswer
from rangefetch.headers import parse_headers

CORPORA = Path(__file__).parent / "corpora"
ENGINES = {"content_range_c": 0, "answer_c": 1, "origin_c": 2, "write_c": 3}
"""The numbers of the targets in ``harness.pyx``, by corpus."""

pytestmark = pytest.mark.xdist_group("harness")  # in one process, since the harness takes seconds to build


def _entries(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPORA / target).iterdir())]


def test_every_target_has_a_corpus_and_every_corpus_a_target() -> None:
    assert {path.name for path in CORPORA.iterdir()} == TARGETS.keys() | ENGINES.keys()
    assert all(_entries(target) for target in (*TARGETS, *ENGINES))


def test_corpora_are_small() -> None:
    assert all(path.stat().st_size <= 6000 for path in CORPORA.rglob("*") if path.is_file())


@pytest.mark.parametrize("target", ENGINES)
def test_the_engines_readers_keep_their_promises(harness: ctypes.CDLL, target: str) -> None:
    """A result other than 0 is the number, in harness.pyx, of the property that does not hold."""
    for entry in _entries(target):
        assert harness.rf_fuzz_run(ENGINES[target], entry, len(entry)) == 0, entry

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=400) | st.sampled_from(_entries(target)).flatmap(_changed))
    def run(octets: bytes) -> None:
        assert harness.rf_fuzz_run(ENGINES[target], octets, len(octets)) == 0

    run()


@pytest.mark.parametrize("target", TARGETS)
def test_pythons_readers_keep_their_promises(target: str) -> None:
    for entry in _entries(target):
        TARGETS[target](entry)

    @settings(max_examples=150, deadline=None)
    @given(st.binary(max_size=200) | st.sampled_from(_entries(target)).flatmap(_changed))
    def run(octets: bytes) -> None:
        TARGETS[target](octets)

    run()


@st.composite
def _changes(draw: st.DrawFn, entry: bytes) -> bytes:
    changed = bytearray(entry)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(changed)))
        changed[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return bytes(changed)


def _changed(entry: bytes) -> st.SearchStrategy[bytes]:
    """An entry of a corpus with a few bytes replaced, inserted or removed."""
    return _changes(entry)


# -- two parsers of one header ---------------------------------------------------------------------------------------


@given(st.from_regex(r"bytes [0-9]{1,20}-[0-9]{1,20}/([0-9]{1,20}|\*)", fullmatch=True))
@example("bytes 0-0/1")
@example("bytes 0-1/1")
def test_both_read_content_range_alike(text: str) -> None:
    """The aria2 backend's parser accepts some values that the engine refuses, because aria2 accepts them, but gives no
    value another meaning.
    """
    engines, pythons = _engine.content_range(text.encode()), remote._content_range(text)
    if engines is not None and engines[2] >= 0 and pythons is not None:
        assert pythons == (engines[0], engines[1] - 1, engines[2])


WORDS = sorted({*decoding._OWN, *decoding._OTHERS})
NAMES = [
    "x",
    "x.gz",
    ".gz",
    "x.tar.gz",
    "x.TGZ",
    "x.svgz",
    "x.z",
    "x.taz",
    "x.br",
    "x.zst",
    "x.bz2",
    "x.xz",
    "x.gz.txt",
]


def test_both_have_the_same_table_of_codings(harness: ctypes.CDLL) -> None:
    for word in [*WORDS, "identity", "none", "utf-8", "", "gzip2", "x-br"]:
        is_coding = word in decoding._OWN or word in decoding._OTHERS
        assert harness.rf_fuzz_is_coding(word.encode()) == is_coding, word
        assert harness.rf_fuzz_is_coding(word.upper().encode()) == is_coding, word
        endings = [f"x{ending}" for ending in decoding._OWN.get(word, ())]
        for name in [*NAMES, *endings]:
            says = bool(harness.rf_fuzz_says_coding(name.encode(), word.encode()))
            assert says == decoding._is_the_files_own(word, name), (word, name)


_lists = st.lists(
    st.tuples(
        st.sampled_from([*WORDS, "identity", "none", "utf-8", "GZIP"]), st.sampled_from([",", ", ", " ", "\t", ",,"])
    ),
    max_size=4,
).map(lambda parts: "".join(word + separator for word, separator in parts))


@settings(deadline=None)
@given(_lists, st.lists(_lists, max_size=1), st.sampled_from(NAMES))
@example("gzip deflate", [], "x")
@example("identity", ["gzip"], "x")
@example("gzip", [], ".gz")
def test_both_read_a_list_of_codings_alike(harness: ctypes.CDLL, first: str, more: list[str], name: str) -> None:
    """The engine refuses exactly the codings that Python would undo if ``decode`` were set."""
    lines = "\n".join(f"Content-Encoding: {each}" for each in (first, *more))
    refused = bool(harness.rf_fuzz_is_encoded(f"http://h/{name}".encode(), lines.encode(), len(lines)))
    try:
        undone: object = decoding.codings_to_undo(parse_headers(lines).get("content-encoding", ""), [f"/{name}"])
    except BadAnswer:
        undone = True
    assert refused == bool(undone)


# -- time -----------------------------------------------------------------------------------------------------------


def test_no_reader_looks_at_an_octet_more_than_a_few_times() -> None:
    """Twice the input may take twice the interpreter's steps, but not four times."""
    hostile: dict[str, Callable[[int], bytes]] = {
        "content_disposition": lambda n: b'a; filename="' + b"\\" * n,
        "link": lambda n: b";  rel " * n,
        "cookie_file": lambda n: b"\t" * n + b"\n",
        "words_for_people": lambda n: b"?a=http%3A%2F%2F" + b"%26b%3Dc" * n,
        "header_lines": lambda n: b"Date: " + b"1 " * n,
        "digests": lambda n: b"Repr-Digest: " + b"a" * n,
        "codings": lambda n: b" ," * n,
        "input_file": lambda n: b"http://" + b"@" * n,
        "given_url": lambda n: b"http://h/" + b"%" * n,
    }
    for target, make in hostile.items():
        # Regular expressions take no steps; the sizes are such that one worse than linear would hang.
        steps = [_steps(TARGETS[target], make(n)) for n in (2000, 4000)]
        assert steps[1] <= 3 * steps[0] + 200, (target, steps)


def _steps(function: Callable[[bytes], None], octets: bytes) -> int:
    count = 0

    def trace(frame: object, event: str, arg: object) -> object:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]  # typeshed wants the protocol by its own names
    try:
        function(octets)
    finally:
        sys.settrace(before)
    return count
