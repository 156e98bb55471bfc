"""How the downloads at aria2 share the connections that a host may have."""

from hypothesis import given
from hypothesis import strategies as st

from rangefetch.aria2.shares import Shares

MEMBERS = "abcdef"


def _joined(**wanted: int) -> Shares[str]:
    shares: Shares[str] = Shares()
    for name, most in wanted.items():
        shares.join(name, 1, most)
    return shares


def test_one_alone_has_what_it_wants() -> None:
    assert _joined(a=16).take("a", 5) == 5
    assert _joined(a=4).take("a", 16) == 4


def test_several_have_equal_shares() -> None:
    shares = _joined(a=16, b=16, c=16)
    assert [shares.take(name, 16) for name in "abc"] == [5, 5, 5]


def test_where_none_is_left_it_waits_until_one_is_given_back() -> None:
    shares = _joined(a=1, b=1)
    assert (shares.take("a", 1), shares.take("b", 1)) == (1, 0)
    shares.give_back("a")
    assert shares.take("b", 1) == 1


def test_one_that_came_first_gives_some_up() -> None:
    shares = _joined(a=16)
    assert shares.take("a", 16) == 16
    shares.join("b", 1, 16)
    assert shares.take("b", 16) == 0
    assert shares.unfair(1) == ["a"]
    assert (shares.take("a", 16), shares.take("b", 16)) == (8, 8)
    assert shares.unfair(1) == []


def test_who_is_left_gets_what_the_others_had() -> None:
    shares = _joined(a=16, b=16)
    assert [shares.take(name, 16) for name in "ab"] == [8, 8]
    shares.leave("b")
    assert shares.unfair(1) == ["a"]
    assert shares.take("a", 16) == 16


def test_hosts_know_nothing_of_each_other() -> None:
    shares = _joined(a=1)
    shares.join("b", 2, 1)
    assert (shares.take("a", 1), shares.take("b", 1)) == (1, 1)


@given(
    st.lists(
        st.tuples(st.sampled_from(MEMBERS), st.sampled_from(["join", "take", "give", "leave"]), st.integers(1, 20))
    )
)
def test_all_together_never_have_more_than_the_one_that_wants_the_most(steps: list[tuple[str, str, int]]) -> None:
    shares: Shares[str] = Shares()
    wanted: dict[str, int] = {}
    most = 0
    for name, step, number in steps:
        if step == "join":
            wanted[name] = number
            most = max(most, number)
            shares.join(name, 1, number)
        elif name in wanted and step == "take":
            assert shares.take(name, number) <= number
        elif step == "give":
            shares.give_back(name)
        elif step == "leave":
            wanted.pop(name, None)
            shares.leave(name)
        assert sum(shares.granted(each) for each in MEMBERS) <= most
