"""Models of pydantic, made of dataclasses: of settings for requests, of results for answers.

Requests have defaults, ranges and descriptions of the settings' fields; answers have descriptions of what the
docstrings of the dataclasses say of their attributes.
"""

import inspect
import re
from collections.abc import Collection
from dataclasses import MISSING, fields, is_dataclass
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, create_model

from gindex.options import Settings, option_of, options_of

LONGEST_TEXT = 200_000
"""Most characters of a prompt, filter or id; the limits of tokens and of the body are below it in all but odd cases."""

MOST_TURNS = 200
"""Most messages, and most tools, of a conversation: its chat template is asked once for each turn."""

_ATTRIBUTE = re.compile(r"^    (\w+): (.*(?:\n {8,}.*)*)", re.MULTILINE)


def setting_fields(config: type[Settings]) -> dict[str, Any]:
    """Fields of a request that takes settings, for `create_model`.

    Args:
        config: The settings.
    """
    hints = get_type_hints(config)
    return {name: (hints[name], setting_field(config, name)) for name in options_of(config)}


def setting_field(config: type[Settings], name: str) -> Any:
    """What a request's field says of a setting: default, description and range."""
    of = options_of(config)[name]
    described, hint = option_of(of), get_type_hints(config)[name]
    text = str in (hint, *get_args(hint)) and not described.known
    return Field(
        default=of.default,
        description=described.help,
        ge=described.least,
        gt=described.above,
        le=described.most,
        max_length=LONGEST_TEXT if text else None,
        json_schema_extra={"enum": list(described.known)} if described.known else None,
    )


def model_of(kind: type, name: str | None = None, *, leave_out: Collection[str] = (), **more: Any) -> type[BaseModel]:
    """Model of what a dataclass is in JSON.

    Args:
        kind: The dataclass; those that its attributes are of become models too.
        name: Name of the model, where it is not that of the dataclass.
        leave_out: Attributes that are not in JSON.
        more: Fields beside them, or in the place of some: a type and a default, or `...`.
    """
    told = attribute_help(kind)
    hints = get_type_hints(kind)
    content = {
        each.name: (
            Annotated[_modelled(hints[each.name]), Field(description=told.get(each.name))],
            ... if each.default is MISSING else each.default,
        )
        for each in fields(kind)
        if each.name not in (*leave_out, *more)
    }
    summary = (inspect.getdoc(kind) or "").split("\n\n")[0]
    return create_model(name or kind.__name__, __doc__=summary, **content | more)


def attribute_help(kind: type) -> dict[str, str]:
    """What the docstring of a dataclass says of its attributes, by name."""
    return {name: " ".join(text.split()) for name, text in _ATTRIBUTE.findall(inspect.getdoc(kind) or "")}


def described(hint: Any, description: str, default: Any = ...) -> tuple[Any, Any]:
    """A field for `model_of`."""
    return Annotated[hint, Field(description=description)], default


def _modelled(hint: Any) -> Any:
    """A type in which models stand for dataclasses."""
    if isinstance(hint, type) and is_dataclass(hint):
        return model_of(hint)
    arguments = tuple(_modelled(each) for each in get_args(hint))
    if not arguments:
        return hint
    if isinstance(hint, UnionType) or get_origin(hint) is Union:
        return reduce(or_, arguments)
    return get_origin(hint)[arguments]
