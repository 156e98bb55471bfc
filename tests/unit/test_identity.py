"""The rule for which responses are of the same file, in Python and in the engine."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rangefetch import _engine, identity
from rangefetch.identity import (
    Identity,
    Same,
    Strength,
    contradicts,
    must_compare_before_publishing,
    must_compare_before_resuming,
    same,
)

NOW = "Tue, 14 Nov 2023 22:13:20 GMT"
EARLIER = "Tue, 14 Nov 2023 22:13:19 GMT"

# The validators (ETag, Last-Modified) of two responses, and the result of comparing them.
TABLE = {
    "equal strong ETags": (('"a"', NOW), ('"a"', NOW), Same.PROVEN),
    "equal strong ETags decide alone": (('"a"', NOW), ('"a"', EARLIER), Same.PROVEN),
    "equal strong ETags, a date gone": (('"a"', NOW), ('"a"', ""), Same.PROVEN),
    "other strong ETags": (('"a"', NOW), ('"b"', NOW), Same.DIFFERENT),
    "a strong ETag gone": (('"a"', NOW), ("", NOW), Same.DIFFERENT),
    "a strong ETag that appeared": (("", NOW), ('"a"', NOW), Same.DIFFERENT),
    "a strong ETag become weak": (('"a"', NOW), ('W/"a"', NOW), Same.DIFFERENT),
    "equal weak ETags": (('W/"a"', NOW), ('W/"a"', NOW), Same.LIKELY),
    "equal weak ETags, another date": (('W/"a"', NOW), ('W/"a"', EARLIER), Same.DIFFERENT),
    "other weak ETags": (('W/"a"', NOW), ('W/"b"', NOW), Same.DIFFERENT),
    "a weak ETag gone": (('W/"a"', NOW), ("", NOW), Same.DIFFERENT),
    "a weak ETag that appeared": (("", NOW), ('W/"a"', NOW), Same.DIFFERENT),
    "equal dates": (("", NOW), ("", NOW), Same.LIKELY),
    "other dates": (("", NOW), ("", EARLIER), Same.DIFFERENT),
    "a date gone": (("", NOW), ("", ""), Same.DIFFERENT),
    "a date that appeared": (("", ""), ("", NOW), Same.DIFFERENT),
    "nothing": (("", ""), ("", ""), Same.LIKELY),
    "ETags without quotes prove nothing": (("a", NOW), ("a", NOW), Same.LIKELY),
    "other ETags without quotes": (("a", NOW), ("b", NOW), Same.DIFFERENT),
    "empty ETags prove nothing": (('""', NOW), ('""', NOW), Same.LIKELY),
    "empty ETags, another date": (('""', NOW), ('""', EARLIER), Same.DIFFERENT),
    "an empty ETag become strong": (('""', ""), ('"a"', ""), Same.DIFFERENT),
    "ETags that do not end prove nothing": (('"a', NOW), ('"a', NOW), Same.LIKELY),
    "two ETags in one prove nothing": (('"a", "b"', NOW), ('"a", "b"', NOW), Same.LIKELY),
    "the weak mark is a capital letter": (('w/"a"', ""), ('w/"a"', ""), Same.LIKELY),
}

validators = st.tuples(
    st.sampled_from(["", '"a"', '"b"', 'W/"a"', 'W/"b"', "a", '"', "W/"]) | st.text("abW/\"'\xe9", max_size=6),
    st.sampled_from(["", NOW, EARLIER]) | st.text("ab", max_size=3),
)


def in_the_engine(one: tuple[str, str], other: tuple[str, str]) -> Same:
    return Same(_engine.same_validators(*(text.encode("latin-1") for text in (*one, *other))))


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("rule", [lambda one, other: identity.same_validators(*one, *other), in_the_engine])
def test_validators_say_whether_two_responses_are_of_one_file(case: str, rule: object) -> None:
    one, other, expected = TABLE[case]
    assert rule(one, other) is expected  # type: ignore[operator]  # object, for pytest shows it


@given(validators, validators)
@example(("", ""), ("", ""))
def test_the_engine_and_python_have_one_rule(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert in_the_engine(one, other) is identity.same_validators(*one, *other)


@given(validators, validators)
def test_the_rule_has_no_direction_and_a_response_never_differs_from_itself(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert identity.same_validators(*one, *other) is identity.same_validators(*other, *one)
    assert identity.same_validators(*one, *one) is not Same.DIFFERENT


def test_size_and_coding_are_part_of_the_file() -> None:
    known = Identity(100, '"a"')
    assert same(known, Identity(100, '"a"')) is Same.PROVEN
    assert same(known, Identity(101, '"a"')) is Same.DIFFERENT
    assert same(known, Identity(-1, '"a"')) is Same.PROVEN
    assert same(known, Identity(100, '"a"', coding="gzip")) is Same.DIFFERENT
    assert same(Identity(100), Identity(100)) is Same.LIKELY
    assert same(Identity(100), Identity(99)) is Same.DIFFERENT


SOON = "Sun, 06 Nov 1994 08:49:39 GMT"
LATER = "Sun, 06 Nov 1994 08:49:40 GMT"
THEN = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Identity(9), Identity(9), False),
        (Identity(9), Identity(8), True),
        (Identity(0), Identity(1), True),
        (Identity(9), Identity(-1), False),
        (Identity(9, '"a"', THEN), Identity(8, '"a"', THEN), True),
        (Identity(9, '"a"'), Identity(9, '"a"'), False),
        (Identity(9, '"a"'), Identity(9, '"b"'), True),
        # If both have an ETag, dates do not count: tools that copy files set them arbitrarily.
        (Identity(9, '"a"', THEN), Identity(9, '"a"', LATER), False),
        (Identity(9, '"a"', THEN), Identity(9, '"b"', THEN), True),
        (Identity(9, '"a"', THEN), Identity(9, "", THEN), False),
        (Identity(9, '"a"'), Identity(9), False),
        (Identity(9, "", THEN), Identity(9, "", SOON), False),  # FAT stores times in steps of two seconds
        (Identity(9, "", THEN), Identity(9, "", LATER), True),
        (Identity(9, "", THEN), Identity(9), False),
        (Identity(9, "", "yesterday"), Identity(9, "", LATER), False),
    ],
)
def test_what_two_urls_say_may_speak_against_one_file(one: Identity, other: Identity, expected: bool) -> None:
    assert contradicts(one, other) is contradicts(other, one) is expected


@pytest.mark.parametrize(
    ("headers", "strength"),
    [
        ({"etag": '"a"'}, Strength.STRONG),
        ({"etag": '"a"', "last-modified": NOW, "date": NOW}, Strength.STRONG),
        ({"etag": 'W/"a"'}, Strength.WEAK),
        # With a weak ETag the server does not promise identical bytes, whatever the date.
        ({"etag": 'W/"a"', "last-modified": EARLIER, "date": NOW}, Strength.WEAK),
        ({"last-modified": EARLIER, "date": NOW}, Strength.DATED),
        ({"last-modified": NOW, "date": NOW}, Strength.WEAK),
        ({"last-modified": NOW, "date": EARLIER}, Strength.WEAK),
        ({"last-modified": NOW}, Strength.WEAK),
        ({"last-modified": "yesterday", "date": NOW}, Strength.WEAK),
        ({"date": NOW}, Strength.NONE),
        ({}, Strength.NONE),
    ],
)
def test_a_date_proves_something_once_a_second_has_passed(headers: dict[str, str], strength: Strength) -> None:
    # RFC 9110, section 8.8.2.2.
    assert Identity.of(headers).strength is strength


def test_an_identity_is_read_from_headers() -> None:
    headers = {"etag": 'W/"a"', "last-modified": EARLIER, "date": NOW, "content-encoding": "GZIP"}
    assert Identity.of(headers, 7) == Identity(7, 'W/"a"', EARLIER, NOW, "gzip")
    assert Identity.of({"content-encoding": "identity"}) == Identity.of({"content-encoding": "None"}) == Identity()


WEAKER = [Identity(9, 'W/"a"'), Identity(9, "", EARLIER, NOW), Identity(9)]


def test_a_strong_etag_or_a_checksum_needs_no_comparison() -> None:
    strong = Identity(9, '"a"')
    assert not must_compare_before_resuming(strong, checksum=False)
    assert not must_compare_before_publishing(strong, responses=2, checksum=False)
    for known in WEAKER:
        assert must_compare_before_resuming(known, checksum=False)
        assert must_compare_before_publishing(known, responses=2, checksum=False)
        assert not must_compare_before_resuming(known, checksum=True)
        assert not must_compare_before_publishing(known, responses=2, checksum=True)


@pytest.mark.parametrize("known", WEAKER)
def test_one_response_is_consistent_in_itself(known: Identity) -> None:
    assert not must_compare_before_publishing(known, responses=1, checksum=False)
