"""The line of waiting downloads: in order, past hosts that rest or do not answer, in a bounded number of steps."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from rangefetch.transfer.line import Line

A, B, C = 1, 2, 3


class Rests(dict[int, float]):
    """The seconds for which each host still rests."""

    def __call__(self, host: int) -> float:
        return self.get(host, 0.0)


def order_of(line: Line, now_s: float = 0.0) -> list[str]:
    """Take all downloads that wait, in order."""
    order = []
    while (gid := line.next(now_s)) is not None:
        order.append(gid)
        line.discard(gid)
    return order


def test_they_come_in_the_order_in_which_they_were_added() -> None:
    line = Line(Rests())
    for number, host in enumerate((A, B, A, C, B)):
        line.add(str(number), host)
    assert len(line) == 5
    line.discard("2")
    assert order_of(line) == ["0", "1", "3", "4"]
    assert not line


def test_a_host_that_rests_is_passed_over_until_its_rest_is_over() -> None:
    rests = Rests({A: 5.0})
    line = Line(rests)
    for number, host in enumerate((A, A, B, B)):
        line.add(str(number), host)
    assert line.next(0.0) == "2"
    rests.clear()
    assert line.next(4.9) == "2"
    assert order_of(line, 5.1) == ["0", "1", "2", "3"]


def test_where_all_rest_the_one_is_next_whose_rest_ends_first() -> None:
    line = Line(Rests({A: 9.0, B: 3.0}))
    line.add("a", A)
    line.add("b", B)
    assert order_of(line) == ["b", "a"]


def test_what_leads_to_a_host_that_rests_is_passed_over_too() -> None:
    line = Line(Rests())
    line.add("a", A)
    line.add("b", B)
    line.rest(A, until_s=7.0)
    assert line.next(0.0) == "b"
    assert line.next(7.1) == "a"


def test_what_waits_for_a_host_that_does_not_answer_comes_last_until_it_does() -> None:
    line = Line(Rests())
    for number, host in enumerate((A, B, A, B)):
        line.add(str(number), host)
    line.put_off(A)
    line.add("4", A)
    line.add("5", B)
    assert [line.is_late(str(number)) for number in range(6)] == [True, False, True, False, True, False]
    assert line.next(0.0) == "1"
    line.is_back(A)
    assert order_of(line) == ["0", "1", "2", "3", "4", "5"]


def test_it_gets_its_old_place_back_where_its_number_is_given() -> None:
    line = Line(Rests())
    for number in range(6):
        line.add(str(number), A)
    had = {gid: line.discard(gid) for gid in ("1", "0", "3")}
    for gid, number in had.items():
        line.add(gid, A, number=number)
    assert order_of(line) == ["0", "1", "2", "3", "4", "5"]


def test_whether_somebody_waits_for_another_host() -> None:
    rests = Rests()
    line = Line(rests)
    assert not line.has_another(A, 0.0)
    line.add("a", A)
    assert not line.has_another(A, 0.0)
    assert line.has_another(B, 0.0)
    line.add("b", B)
    assert line.has_another(A, 0.0)
    rests[B] = 4.0
    assert not line.has_another(A, 0.0)
    rests.clear()
    line.put_off(B)
    assert not line.has_another(A, 5.0)
    assert line.next(5.0) == "a"


def test_the_steps_do_not_grow_with_how_many_wait() -> None:
    for count in (200, 20_000):
        line = Line(Rests())
        for number in range(count):
            line.add(str(number), number % 50)
        before = line.steps
        for number in range(100):
            gid = line.next(0.0)
            assert gid == str(number)
            assert line.has_another(number % 50, 0.0)
            line.discard(gid)
        for host in range(25):
            line.put_off(host)
        line.next(0.0)
        assert line.steps - before <= 6 * 100 + 2 * 25


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 1 << 30), count=st.integers(1, 60))
def test_nobody_is_lost_or_served_twice(seed: int, count: int) -> None:
    """Whatever is added, taken or put off meanwhile, the next download is the one that a plain list would give."""
    chance = random.Random(seed)
    rests = Rests()
    line = Line(rests)
    waiting: dict[str, tuple[int, int]] = {}  # by gid: number and host
    late: set[int] = set()
    now_s, added = 0.0, 0
    for _ in range(count):
        host = chance.randrange(4)
        match chance.randrange(6):
            case 0 | 1:
                added += 1
                line.add(f"g{added}", host)
                waiting[f"g{added}"] = (added, host)
            case 2 if waiting:
                gid = chance.choice(list(waiting))
                assert line.discard(gid) == waiting.pop(gid)[0]
            case 3 if waiting:
                gid = chance.choice(list(waiting))
                line.discard(gid)
                line.add(gid, waiting[gid][1], number=waiting[gid][0])
            case 4:
                line.put_off(host)
                late.add(host)
            case 5:
                line.is_back(host)
                late.discard(host)
        expected = sorted(waiting, key=lambda gid: (waiting[gid][1] in late, waiting[gid][0]))
        assert line.next(now_s) == (expected[0] if expected else None)
        assert line.has_another(host, now_s) == any(h != host and h not in late for _, h in waiting.values())
    assert sorted(order_of(line)) == sorted(waiting)


def test_downloads_of_a_host_whose_requests_are_spaced_begin_one_after_the_other() -> None:
    line = Line(Rests(), Rests())
    for number in range(4):
        line.add(str(number), A, spaced=True)
    line.add("other", B)
    line.add("plain", A)
    for begun in ("0", "other", "plain"):
        assert line.next(0.0) == begun
        line.discard(begun)
        if begun == "0":
            line.begins(A, 1.0, 0.0)
    assert line.next(0.0) is None
    assert 0.5 < line.looks_again_s < 1.0  # a moment early, so that it is ready in time
    assert line.next(line.looks_again_s) == "1"


def test_nothing_begins_at_a_host_where_more_requests_are_waiting_than_are_soon_sent() -> None:
    slots = Rests()
    line = Line(Rests(), slots)
    line.add("first", A, spaced=True)
    line.add("second", A, spaced=True)
    assert line.next(0.0) == "first"
    line.discard("first")
    line.begins(A, 0.1, 0.0)
    slots[A] = 5.0
    assert line.next(1.0) is None
    assert line.looks_again_s > 5.0
    slots.clear()
    assert line.next(line.looks_again_s) == "second"


def test_of_hosts_that_rest_one_has_its_turn_even_where_others_have_had_their_requests() -> None:
    line = Line(Rests({B: 3.0}), Rests())
    line.begins(A, 1.0, 0.0)
    line.add("a", A, spaced=True)
    line.add("b", B)
    assert line.next(0.0) == "b"
    line.discard("b")
    assert line.next(0.0) is None
    assert line.passed_over(["a"]) == 1
