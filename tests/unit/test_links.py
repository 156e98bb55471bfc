"""The ``Link`` field (RFC 8288)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefetch.net.links import Link, parse_links

BASE = "https://example.org/d/file.bin"

pytestmark = pytest.mark.quick


def links(value: str) -> list[tuple[str, set[str], dict[str, str]]]:
    return [(link.url, set(link.relations), dict(link.parameters)) for link in parse_links(value, BASE)]


def test_what_the_rfcs_have_as_examples() -> None:
    assert links("</TheBook/chapter2>; rel=\"previous\"; title*=UTF-8'de'letztes%20Kapitel") == [
        (
            "https://example.org/TheBook/chapter2",
            {"previous"},
            {"rel": "previous", "title*": "UTF-8'de'letztes%20Kapitel"},
        )
    ]
    assert links('<http://a.example/x.bin>; rel=duplicate; pri=1; pref, <ftp://b.example/x>; rel="describedby"') == [
        ("http://a.example/x.bin", {"duplicate"}, {"rel": "duplicate", "pri": "1", "pref": ""}),
        ("ftp://b.example/x", {"describedby"}, {"rel": "describedby"}),
    ]


def test_relations_are_a_list_and_quoted_text_may_hold_what_separates() -> None:
    [link] = parse_links(r'<?page=2>; title="a, \"b\"; c"; REL="next Last"; rel=other', BASE)
    assert link == Link(
        "https://example.org/d/file.bin?page=2",
        frozenset({"next", "last"}),
        {"title": 'a, "b"; c', "rel": "next Last"},
    )


def test_a_link_from_something_else_is_none_of_this_file() -> None:
    assert links('<x>; anchor="#part"; rel=duplicate, <y>; rel=next') == [
        ("https://example.org/d/y", {"next"}, {"rel": "next"})
    ]


@pytest.mark.parametrize("value", ["", "x", "<", "<a b>; rel=next", "; rel=next", "<http://[::1>; rel=next"])
def test_what_is_malformed_is_no_link(value: str) -> None:
    assert links(value) == []


@given(st.text(alphabet='<>;,="\\ \tarel123/:é'))
def test_whatever_is_said_it_is_links_or_nothing(value: str) -> None:
    for link in parse_links(value * 50, BASE):
        assert link.url
