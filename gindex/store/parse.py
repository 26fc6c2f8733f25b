"""Plain values into dataclasses, each checked against its annotation.

Understood are the plain types, lists, tuples, dicts with names as keys, unions, dataclasses, and TypedDicts. Names are
exact, but a field with a default, or one that a TypedDict does not require, may be missing. `Annotated[dict[str, Any],
T]` is a dict that is checked as a T.
"""

from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints, is_typeddict

T = TypeVar("T")


def parse(kind: type[T], value: Any, where: str = "") -> T:
    """Make a `kind` from plain values.

    Raises:
        ValueError: A field is missing, unknown, or of another type; names it.
    """
    return _parse(kind, value, where)  # type: ignore[no-any-return]


def _parse(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _parse(arguments[1], value, where)
    if origin is UnionType:
        return None if value is None else _parse(arguments[0], value, where)
    if origin is list:
        return [_parse(arguments[0], item, f"{where}[{n}]") for n, item in enumerate(_of(list, value, where))]
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return tuple(_parse(arguments[0], item, f"{where}[{n}]") for n, item in enumerate(_of(list, value, where)))
    if origin is tuple:
        if len(_of(list, value, where)) != len(arguments):
            raise ValueError(f"{len(value)} values in {where}")
        return tuple(_parse(each, item, where) for each, item in zip(arguments, value, strict=True))
    if origin is dict:
        return {name: _parse(arguments[1], item, f"{where}.{name}") for name, item in _of(dict, value, where).items()}
    if is_typeddict(kind) or is_dataclass(kind):
        return kind(**_fields(kind, value, where))
    if kind is float and type(value) is int:
        return float(value)
    return _of(kind, value, where)


def _fields(kind: Any, value: Any, where: str) -> dict[str, Any]:
    hints, optional = _names(kind)
    for name in sorted((_of(dict, value, where).keys() ^ hints.keys()) - optional):
        raise ValueError(f"{'no' if name in hints else 'an unknown'} field {f'{where}.{name}'.removeprefix('.')}")
    return {
        name: _parse(hint, value[name], f"{where}.{name}".removeprefix("."))
        for name, hint in hints.items()
        if name in value
    }


@cache
def _names(kind: type) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the annotations of a class by name, and the names that may be missing."""
    hints = get_type_hints(kind, include_extras=True)
    if not is_dataclass(kind):
        return hints, frozenset(getattr(kind, "__optional_keys__", ()))
    optional = (f.name for f in fields(kind) if f.default is not MISSING or f.default_factory is not MISSING)
    return hints, frozenset(optional)


def _of(kind: type, value: Any, where: str) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{type(value).__name__} as {where or 'a whole'}, not {kind.__name__}")
    return value
