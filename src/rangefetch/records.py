"""Dataclasses that are cheap to define. To type checkers and users they look like those of ``dataclasses``.

``dataclasses`` imports ``inspect`` and compiles five or six functions for each class, which was a quarter of the time
that ``rangefetch URL`` took for a small file. Here only ``__init__`` is compiled; the other methods are shared by all
classes. Only what the package uses is supported: ``frozen``, ``slots``, ``kw_only`` and ``repr``, ``eq`` (always on),
defaults and factories, and a field's ``init`` and ``metadata``. ``dataclasses.fields``, ``asdict``, ``replace`` and
``is_dataclass`` accept these classes.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from dataclasses import dataclass, field, fields, replace

__all__ = ["dataclass", "field", "fields", "replace"]


class _Missing:
    def __repr__(self) -> str:
        return "<factory>"  # what help() shows as the default of an argument


_MISSING = _Missing()
_FIELDS = "__record_fields__"


class _Field:
    """One field, with the attributes of ``dataclasses.Field`` that the package reads."""

    __slots__ = ("default", "default_factory", "init", "metadata", "name")

    def __init__(
        self, default: Any, default_factory: Callable[[], Any] | _Missing, init: bool, metadata: Mapping[str, Any]
    ) -> None:
        self.name = ""
        self.default = default
        self.default_factory = default_factory
        self.init = init
        self.metadata = metadata


class _Interchange:
    """An attribute that ``dataclasses`` looks up. Made on first access: by then ``dataclasses`` is imported anyway."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._made: dict[type, Any] = {}

    def __get__(self, instance: object, owner: type) -> Any:
        record = next(cls for cls in owner.__mro__ if _FIELDS in cls.__dict__)
        if record not in self._made:
            self._made[record] = getattr(_twin(record), self._name)
        return self._made[record]


def _twin(record: type) -> type:
    """Make a real dataclass with the same fields."""
    import dataclasses

    contents: list[Any] = []
    for each in record.__dict__[_FIELDS]:
        given: dict[str, Any] = {"init": each.init, "metadata": each.metadata}
        if each.default is not _MISSING:
            given["default"] = each.default
        if each.default_factory is not _MISSING:
            given["default_factory"] = each.default_factory
        contents.append((each.name, record.__annotations__[each.name], dataclasses.field(**given)))
    return dataclasses.make_dataclass(
        record.__name__,
        contents,
        frozen="__setattr__" in record.__dict__,
        slots="__slots__" in record.__dict__,
        kw_only=not record.__dict__["__match_args__"],
    )


_SHARED = {name: _Interchange(name) for name in ("__dataclass_fields__", "__dataclass_params__")}


def _field(
    *,
    default: Any = _MISSING,
    default_factory: Callable[[], Any] | _Missing = _MISSING,
    init: bool = True,
    metadata: Mapping[str, Any] | None = None,
) -> Any:
    return _Field(default, default_factory, init, metadata or {})


def _fields(record: Any) -> tuple[_Field, ...]:
    found: tuple[_Field, ...] = getattr(record, _FIELDS)
    return found


def _replace(record: Any, /, **changes: Any) -> Any:
    for each in getattr(record, _FIELDS):
        if each.init:
            changes.setdefault(each.name, getattr(record, each.name))
        elif each.name in changes:
            raise TypeError(f"field {each.name} is declared with init=False, it cannot be specified with replace()")
    return type(record)(**changes)


def _dataclass(*, frozen: bool = False, slots: bool = False, kw_only: bool = False, repr: bool = True) -> Any:
    def decorate(cls: type) -> type:
        return _made(cls, frozen=frozen, slots=slots, kw_only=kw_only, has_repr=repr)

    return decorate


def _made(cls: type, *, frozen: bool, slots: bool, kw_only: bool, has_repr: bool) -> type:
    """Make the final class: a new one with the contents of ``cls`` and the methods that its fields require."""
    namespace = dict(cls.__dict__)
    found = []
    for name in cls.__annotations__:
        value = namespace.get(name, _MISSING)
        each = value if isinstance(value, _Field) else _Field(value, _MISSING, True, {})
        each.name = name
        found.append(each)
        if slots or each.default is _MISSING:
            namespace.pop(name, None)
        else:
            namespace[name] = each.default
    names = tuple(each.name for each in found)
    given = () if kw_only else tuple(each.name for each in found if each.init)
    namespace |= {_FIELDS: tuple(found), "__match_args__": given, **_SHARED}
    namespace["__init__"] = _init(cls, found, frozen=frozen, kw_only=kw_only)
    namespace["__eq__"], namespace["__hash__"] = _comparison(names, hashes=frozen)
    namespace["__replace__"] = _replace
    if has_repr:
        namespace.setdefault("__repr__", _repr)
    if frozen:
        namespace["__setattr__"] = _refusal("assign to", object.__setattr__, names)
        namespace["__delattr__"] = _refusal("delete", object.__delattr__, names)
    if slots:
        namespace["__slots__"] = names
        if frozen:
            namespace["__getstate__"], namespace["__setstate__"] = _getstate, _setstate
    namespace.pop("__dict__", None)
    namespace.pop("__weakref__", None)
    made = type(cls)(cls.__name__, cls.__bases__, namespace)
    made.__qualname__ = cls.__qualname__
    return made


def _init(cls: type, found: list[_Field], *, frozen: bool, kw_only: bool) -> Callable[..., None]:
    """Compile ``__init__``, since it runs for every object and ``help`` shows its signature."""
    scope: dict[str, Any] = {"MISSING": _MISSING, "set_": object.__setattr__}
    arguments = ["self"] + (["*"] if kw_only and any(each.init for each in found) else [])
    body = []
    for each in found:
        name = each.name
        if each.default_factory is not _MISSING:
            scope[f"make_{name}"], scope[f"default_{name}"] = each.default_factory, _MISSING
            value = f"make_{name}() if {name} is MISSING else {name}" if each.init else f"make_{name}()"
        else:
            scope[f"default_{name}"], value = each.default, name
        has_default = each.default is not _MISSING or each.default_factory is not _MISSING
        if each.init:
            arguments.append(f"{name}=default_{name}" if has_default else name)
        elif not has_default:
            continue
        elif value == name:
            value = f"default_{name}"
        body.append(f"set_(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    lines = "\n ".join(body or ["pass"])
    exec(f"def __init__({', '.join(arguments)}):\n {lines}", scope)
    init: Any = scope["__init__"]
    init.__qualname__, init.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    init.__annotations__ = {each.name: cls.__annotations__[each.name] for each in found if each.init}
    init.__annotations__["return"] = None
    return init  # type: ignore[no-any-return]  # what exec() has made is Any


def _comparison(names: tuple[str, ...], *, hashes: bool) -> tuple[Callable[..., Any], Callable[..., int] | None]:
    """``__eq__``, and ``__hash__`` for frozen classes."""
    contents = attrgetter(*names)  # returns a tuple of the values, or the only value

    def is_equal(self: Any, other: object) -> Any:
        return contents(self) == contents(other) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        return hash(contents(self))

    return is_equal, hashed if hashes else None


def _repr(self: Any) -> str:
    values = ", ".join(f"{each.name}={getattr(self, each.name)!r}" for each in getattr(self, _FIELDS))
    return f"{type(self).__qualname__}({values})"


def _refusal(what: str, allow: Callable[..., None], names: tuple[str, ...]) -> Callable[..., None]:
    """``__setattr__`` or ``__delattr__`` of a frozen class. Subclasses may have other attributes, which can change."""

    def refuse(self: object, name: str, *value: object) -> None:
        if name not in names and _FIELDS not in type(self).__dict__:
            return allow(self, name, *value)
        import dataclasses

        raise dataclasses.FrozenInstanceError(f"cannot {what} field {name!r}")

    return refuse


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, each.name) for each in getattr(self, _FIELDS)]


def _setstate(self: Any, state: list[Any]) -> None:
    for each, value in zip(getattr(self, _FIELDS), state, strict=True):
        object.__setattr__(self, each.name, value)


if not TYPE_CHECKING:
    dataclass, field, fields, replace = _dataclass, _field, _fields, _replace
