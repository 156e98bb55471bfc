"""How downloads share the connections allowed to a host, and how many each download at aria2 is granted."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rangefetch.aria2.shares import Grants
from rangefetch.transfer import governor
from rangefetch.transfer.shares import Shares

MEMBERS = "abcdef"

_hosts = itertools.count(1 << 40)
"""Numbers of hosts that no other test uses, since the counts are shared by the whole process."""


class Owner:
    """Records the hosts whose shares changed."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def shares_changed(self, host: int) -> None:
        self.heard.append(host)


class Host:
    """The downloads of one backend at one host."""

    def __init__(self, **wanted: int) -> None:
        self.number = next(_hosts)
        self.shares = Shares()
        self.owner = Owner()
        self.now_s = 0.0
        self.grants: Grants[str] = Grants(self.owner, self.shares, lambda: self.now_s)
        for name, most in wanted.items():
            self.join(name, most)

    def join(self, name: str, most: int) -> None:
        self.grants.join(name, self.number, most)

    def take(self, names: str, most: int = 16) -> list[int]:
        return [self.grants.take(name, most) for name in names]

    def unfair(self) -> list[str]:
        return self.grants.unfair(self.number)


def test_one_alone_has_what_it_wants() -> None:
    assert Host(a=16).take("a", 5) == [5]
    assert Host(a=4).take("a", 16) == [4]


def test_several_have_equal_shares() -> None:
    assert Host(a=16, b=16, c=16).take("abc") == [5, 5, 5]


def test_where_none_is_left_it_waits_until_one_is_given_back() -> None:
    host = Host(a=1, b=1)
    assert host.take("ab", 1) == [1, 0]
    host.grants.give_back("a")
    assert host.take("b", 1) == [1]


def test_one_that_came_first_gives_some_up() -> None:
    host = Host(a=16)
    assert host.take("a") == [16]
    host.join("b", 16)
    assert host.take("b") == [0]
    assert host.unfair() == ["a"]
    assert host.take("ab") == [8, 8]
    assert host.unfair() == []


def test_who_is_left_gets_what_the_others_had() -> None:
    host = Host(a=16, b=16)
    assert host.take("ab") == [8, 8]
    host.grants.leave("b")
    assert host.unfair() == ["a"]
    assert host.take("a") == [16]


def test_hosts_know_nothing_of_each_other() -> None:
    host = Host(a=1)
    host.grants.join("b", next(_hosts), 1)
    assert host.take("ab", 1) == [1, 1]


def test_who_goes_to_another_host_gives_back_what_it_had() -> None:
    host = Host(a=1, b=1)
    assert host.take("a") == [1]
    host.grants.join("a", next(_hosts), 1)
    assert host.take("ba") == [1, 1]


def test_those_of_another_backend_are_counted_and_hear_of_it() -> None:
    host = Host(a=16)
    other = Owner()
    host.shares.join("native", host.number, 16, other)
    assert host.owner.heard == [host.number]
    assert other.heard == []
    assert host.shares.fair(host.number) == {"a": 8, "native": 8}
    assert host.take("a") == [8]
    # Nothing has changed.
    host.join("a", 16)
    assert other.heard == []
    host.grants.leave("a")
    assert other.heard == [host.number]
    assert host.shares.fair(host.number) == {"native": 16}


@pytest.mark.parametrize("most", [1, 4])
def test_connections_that_the_engine_has_are_not_there_for_others(most: int) -> None:
    host = Host(a=most)
    assert governor.take_connections(host.number, most, most) == most
    assert host.take("a") == [0]
    governor.give_back_connections(host.number, 1)
    assert host.take("a") == [1]


@given(
    st.lists(
        st.tuples(st.sampled_from(MEMBERS), st.sampled_from(["join", "take", "give", "leave"]), st.integers(1, 20))
    )
)
def test_all_together_never_have_more_than_the_one_that_wants_the_most(steps: list[tuple[str, str, int]]) -> None:
    host = Host()
    wanted: dict[str, int] = {}
    most = 0
    for name, step, number in steps:
        if step == "join":
            wanted[name] = number
            most = max(most, number)
            host.join(name, number)
        elif name in wanted and step == "take":
            assert host.take(name, number)[0] <= number
        elif step == "give":
            host.grants.give_back(name)
        elif step == "leave":
            wanted.pop(name, None)
            host.grants.leave(name)
        assert sum(host.grants.granted(each) for each in MEMBERS) <= most


def test_who_came_first_is_served_first() -> None:
    host = Host(a=1, b=1, c=1)
    assert host.take("abc", 1) == [1, 0, 0]
    host.grants.give_back("a")
    assert host.take("cb", 1) == [0, 1]


def test_who_does_something_else_is_not_waited_for() -> None:
    host = Host(a=1, b=1, c=1)
    assert host.take("abc", 1) == [1, 0, 0]
    host.grants.give_back("a")
    host.now_s += 2.0
    assert host.take("c", 1) == [1]
