"""Which source decides what the remote file is."""

from __future__ import annotations

import pytest

from rangefetch.identity import Identity
from rangefetch.transfer.authority import Authority, Word

URL, MIRROR = 0, 1
FILE = Identity(100, '"a"')


def test_the_first_to_answer_decides_while_the_url_is_silent() -> None:
    authority = Authority()
    assert authority.hear(MIRROR, FILE, stated=True) is Word.GOOD
    assert authority.source == MIRROR


def test_the_url_decides_as_soon_as_it_has_spoken() -> None:
    authority = Authority()
    authority.hear(MIRROR, FILE, stated=True)
    assert authority.hear(URL, Identity(99, '"b"'), stated=True) is Word.GOOD
    assert (authority.source, authority.identity.size) == (URL, 99)
    authority.start_over()
    assert authority.source == -1
    assert authority.hear(MIRROR, FILE, stated=True) is Word.CONTRADICTS
    assert authority.hear(MIRROR, Identity(99, '"c"'), stated=True) is Word.GOOD
    assert authority.identity == Identity(99, '"b"'), "a mirror changes nothing of what the URL has said"


def test_a_state_that_the_url_proved_speaks_for_it() -> None:
    authority = Authority()
    authority.recall(URL, FILE)
    assert authority.is_remembered
    assert authority.hear(MIRROR, Identity(101), stated=True) is Word.CONTRADICTS
    assert authority.hear(URL, FILE, stated=True) is Word.GOOD
    assert not authority.is_remembered


@pytest.mark.parametrize(
    ("size", "etag", "stated", "word"),
    [
        (99, '"a"', False, Word.CUT_SHORT),
        (99, '"b"', False, Word.GOOD),
        (99, '"a"', True, Word.GOOD),
        (100, '"a"', False, Word.GOOD),
        (101, '"a"', False, Word.GOOD),
        (-1, '"a"', False, Word.GOOD),
    ],
)
def test_a_body_shorter_than_the_file_was_is_doubted_unless_it_is_another_version(
    size: int, etag: str, stated: bool, word: Word
) -> None:
    authority = Authority()
    authority.hear(URL, FILE, stated=True)
    authority.start_over()
    assert authority.hear(URL, Identity(size, etag), stated=stated) is word


@pytest.mark.parametrize(("ends_at", "word"), [(99, Word.GOOD), (98, Word.CUT_SHORT)])
def test_a_body_that_ends_where_ranges_are_refused_is_whole(ends_at: int, word: Word) -> None:
    authority = Authority()
    authority.hear(URL, FILE, stated=True)
    authority.contradicts_itself(URL, ends_at=ends_at)
    authority.start_over()
    assert authority.hear(URL, Identity(99, '"a"'), stated=False) is word


@pytest.mark.parametrize(("totals", "word"), [((101, 102), Word.GOOD), ((99,), Word.CUT_SHORT)])
def test_totals_that_differ_from_each_other_say_nothing(totals: tuple[int, ...], word: Word) -> None:
    authority = Authority()
    authority.hear(URL, FILE, stated=True)
    for total in totals:
        authority.contradicts_itself(URL, total=total)
    authority.contradicts_itself(MIRROR, total=7)
    authority.start_over()
    assert authority.hear(URL, Identity(99, '"a"'), stated=False) is word


def test_an_unknown_length_does_not_make_it_forget_the_known_one() -> None:
    authority = Authority()
    authority.hear(URL, Identity(100), stated=True)
    authority.start_over()
    authority.hear(URL, Identity(-1), stated=False)
    assert authority.hear(URL, Identity(99), stated=False) is Word.CUT_SHORT


@pytest.mark.parametrize("size", [50, 500])
def test_another_size_without_a_validator_is_no_new_version_of_a_file_that_had_one(size: int) -> None:
    authority = Authority()
    assert authority.hear(URL, Identity(100, '"a"'), stated=True) is Word.GOOD
    authority.start_over()
    assert authority.hear(URL, Identity(size), stated=False) is Word.UNVOUCHED
    assert authority.hear(URL, Identity(size, '"b"'), stated=False) is Word.GOOD


def test_a_body_of_unannounced_length_is_whole_if_it_is_as_long_as_was_said_or_has_a_validator() -> None:
    authority = Authority()
    assert authority.accepts_length(7)
    authority.hear(URL, Identity(100, '"a"'), stated=True)
    authority.start_over()
    authority.hear(URL, Identity(-1), stated=False)
    assert authority.accepts_length(100)
    assert not authority.accepts_length(99)
    assert not authority.accepts_length(101)
    authority.hear(URL, Identity(-1, '"b"'), stated=False)
    assert authority.accepts_length(101)
