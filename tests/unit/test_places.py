"""The places for active downloads: how many there are, which downloads need none, and which get one back."""

from __future__ import annotations

from rangefetch.transfer.places import Places


def test_small_files_have_more_places_than_others() -> None:
    places = Places(2, 4, 8)
    places.take("large1")
    places.take("large2")
    assert not places.has_one_for_any()
    assert not places.is_full()
    places.take("small1", small=True)
    places.take("small2", small=True)
    assert places.is_full()
    places.leave("large1")
    assert places.has_one_for_any()


def test_one_that_grows_has_a_place_as_any_other_or_waits_for_it() -> None:
    places = Places(1, 3, 8)
    places.take("a", small=True)
    places.take("b", small=True)
    assert places.grow("a")
    assert not places.grow("b")
    places.wait_to_return("b")
    assert places.return_next() is None
    places.leave("a")
    assert places.return_next() == "b"
    assert places.return_next() is None
    assert not places.has_one_for_any()


def test_a_stream_needs_no_place() -> None:
    places = Places(1, 1, 8)
    places.take("stream", stream=True)
    assert places.has_one_for_any()


def test_who_is_aside_leaves_its_place_and_waits_to_have_it_back() -> None:
    places = Places(1, 1, 8)
    places.take("a")
    assert places.step_aside("a")
    assert places.has_one_for_any()
    places.take("b")
    assert not places.come_back("a")
    assert places.return_next() is None
    places.leave("b")
    assert places.return_next() == "a"
    assert places.is_full()


def test_who_leaves_comes_not_back() -> None:
    places = Places(1, 1, 8)
    places.take("a")
    places.step_aside("a")
    places.take("b")
    assert not places.come_back("a")
    places.leave("a")
    places.leave("b")
    assert places.return_next() is None
    assert list(places) == []


def test_who_finds_its_place_free_has_it_at_once() -> None:
    places = Places(1, 1, 8)
    places.take("a")
    assert places.step_aside("a")
    assert places.come_back("a")
    assert places.come_back("a")
    assert places.is_full()


def test_not_too_many_are_aside_and_no_stream() -> None:
    places = Places(2, 2, 8)
    for number in range(9):
        places.take(str(number))
        assert places.step_aside(str(number)) == (number < 8)
    places.take("stream", stream=True)
    places.leave("0")
    assert not places.step_aside("stream")
    assert not places.step_aside("nobody")
