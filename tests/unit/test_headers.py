"""Parsing headers, and what counts as unknown when they contradict each other."""

import pytest

from rangefetch.headers import merged, parse_headers


def test_names_are_in_lower_case_and_the_first_of_several_counts() -> None:
    assert parse_headers("X-A: 1\nX-a: 2\nDate: today: noon") == {"x-a": "1", "date": "today: noon"}


@pytest.mark.parametrize("name", ["ETag", "Last-Modified", "Content-Range"])
def test_what_is_said_twice_and_differs_is_not_said(name: str) -> None:
    assert merged([(name, '"a"'), ("Date", "today"), (name.upper(), '"b"'), (name, '"a"')]) == {"date": "today"}


@pytest.mark.parametrize("name", ["ETag", "Last-Modified", "Content-Range"])
def test_what_is_said_twice_in_the_same_words_is_said(name: str) -> None:
    assert merged([(name, '"a"'), (name, '"a"')]) == {name.lower(): '"a"'}
