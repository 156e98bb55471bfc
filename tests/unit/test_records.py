"""Records behave as dataclasses, and cost little to define."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import sys

import pytest

from rangefetch import codeflags, records
from support import children


@records.dataclass(frozen=True, slots=True)
class Frozen:
    """Frozen, with slots."""

    name: str
    count: int = 3
    seen: dict[str, int] = records.field(default_factory=dict)
    made: int = records.field(init=False, default=7)


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenTwin:
    """The same, made with ``dataclasses``."""

    name: str
    count: int = 3
    seen: dict[str, int] = dataclasses.field(default_factory=dict)
    made: int = dataclasses.field(init=False, default=7)


@records.dataclass(slots=True)
class Loose:
    """With slots; its values can change."""

    url: str
    host: str = records.field(init=False)

    def __post_init__(self) -> None:
        self.host = self.url.split("/")[2]


@records.dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """With keyword-only fields."""

    size: int
    note: str = records.field(default="", metadata={"shown": "never"})


@records.dataclass(frozen=True, repr=False)
class Private:
    """With a ``__dict__``, and without a ``repr`` of its values."""

    secret: str


class Child(Frozen):
    """With an attribute of its own."""


def test_values_and_defaults_are_those_of_a_dataclass() -> None:
    for cls in (Frozen, FrozenTwin):
        value = cls("a")
        assert (value.name, value.count, value.seen, value.made) == ("a", 3, {}, 7)
        assert value.seen is not cls("a").seen
        assert cls("a", 4, seen={"x": 1}).seen == {"x": 1}
    assert repr(Frozen("a")) == repr(FrozenTwin("a")).replace("FrozenTwin", "Frozen")
    assert str(inspect.signature(Frozen)) == str(inspect.signature(FrozenTwin))
    assert Frozen.__match_args__ == FrozenTwin.__match_args__
    assert (Frozen.__doc__, Frozen.__qualname__, Frozen.__module__) == ("Frozen, with slots.", "Frozen", __name__)


@pytest.mark.parametrize("arguments", [(), ("a", 1, {}, 7)])
def test_wrong_arguments_are_a_type_error(arguments: tuple[object, ...]) -> None:
    for cls in (Frozen, FrozenTwin):
        with pytest.raises(TypeError, match=r"__init__\(\) (missing|takes)"):
            cls(*arguments)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(TypeError, match=r"takes 1 positional argument"):
        Named(1)  # type: ignore[call-arg]  # wrong on purpose


def test_what_is_equal_has_one_hash() -> None:
    assert Named(size=1) == Named(size=1, note="") != Named(size=2)
    assert len({Named(size=1), Named(size=1)}) == 1
    assert Frozen("a") != FrozenTwin("a")  # type: ignore[comparison-overlap]  # wrong on purpose
    assert Loose("http://a/") == Loose("http://a/") != Loose("http://b/")
    with pytest.raises(TypeError, match="unhashable"):
        hash(Loose("http://a/"))


def test_what_is_frozen_stays_as_it_is() -> None:
    value = Named(size=1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'size'"):
        value.size = 2  # type: ignore[misc]  # wrong on purpose
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'size'"):
        del value.size
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.other = 2  # type: ignore[attr-defined]  # wrong on purpose
    child = Child("a")
    child.other = 2  # type: ignore[attr-defined]  # wrong on purpose
    with pytest.raises(dataclasses.FrozenInstanceError):
        child.name = "b"  # type: ignore[misc]  # wrong on purpose
    with pytest.raises(AttributeError):
        Loose("http://a/").other = 2  # type: ignore[attr-defined]  # wrong on purpose


def test_after_init_a_record_may_complete_itself() -> None:
    assert Loose("http://a/b").host == "a"


def test_a_copy_with_changes() -> None:
    for replace in (records.replace, dataclasses.replace):
        assert replace(Frozen("a", 4), name="b") == Frozen("b", 4)
        assert replace(Loose("http://a/"), url="http://b/").host == "b"
        with pytest.raises((TypeError, ValueError), match="init=False"):
            replace(Loose("http://a/"), host="b")
    if sys.version_info >= (3, 13):
        assert copy.replace(Frozen("a"), count=1) == Frozen("a", 1)


@pytest.mark.parametrize("value", [Frozen("a", 1, {"b": 2}), Loose("http://a/"), Named(size=1), Private("x")])
def test_a_record_can_be_pickled_and_copied(value: object) -> None:
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == copy.copy(value) == value


def test_the_functions_of_dataclasses_take_records() -> None:
    value = Frozen("a", 1, {"b": 2})
    assert dataclasses.is_dataclass(value)
    assert dataclasses.is_dataclass(Frozen)
    assert dataclasses.asdict(value) == {"name": "a", "count": 1, "seen": {"b": 2}, "made": 7}
    for mine, theirs in zip(dataclasses.fields(Frozen), dataclasses.fields(FrozenTwin), strict=True):
        assert (mine.name, mine.type, mine.default, mine.default_factory, mine.init) == (
            *(theirs.name, theirs.type, theirs.default, theirs.default_factory, theirs.init),
        )
    assert [field.name for field in records.fields(Child)] == [field.name for field in dataclasses.fields(Child)]
    assert dataclasses.fields(Named)[1].metadata == {"shown": "never"}
    assert dataclasses.fields(Named)[1].kw_only


def test_a_dataclass_may_inherit_from_a_record() -> None:
    @dataclasses.dataclass(frozen=True)
    class More(Named):
        extra: int = 0

    assert More(1, size=2) == More(1, size=2) != More(size=2)
    assert [field.name for field in dataclasses.fields(More)] == ["size", "note", "extra"]
    assert dataclasses.replace(More(1, size=2), note="x").note == "x"


def test_a_repr_that_is_not_wanted_is_not_made() -> None:
    assert "secret" not in repr(Private("secret"))


def test_to_define_one_imports_neither_dataclasses_nor_inspect() -> None:
    done = children.run(
        """
        import sys
        from rangefetch import DownloadOptions, DownloadProgress, DownloadResult, FileInfo
        print(DownloadOptions(split=2), {"ast", "dataclasses", "inspect"} & set(sys.modules))
        """
    )
    assert (done.stdout, done.stderr) == ("DownloadOptions(split=2) set()\n", "")


def test_the_flags_of_code_objects_are_those_of_inspect() -> None:
    mine = {name: value for name, value in vars(codeflags).items() if name.startswith("CO_")}
    assert mine == {name: getattr(inspect, name) for name in mine}
    assert len(mine) == 7
