"""Options of registered kinds: each kind's own settings, as its dataclass has them."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from gindex.registry import Registry

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def kind_options(registry: Registry, setting: str) -> Callable[[Decorated], Decorated]:
    """Give a command an option for each setting of the kinds of a registry: `--refine-iterations` for `iterations`.

    Args:
        registry: The kinds.
        setting: Name of the option that chooses one of them.
    """
    found = {field.name: field for name in registry.names() for field in fields(registry.get(name).settings)}

    def decorate(command: Decorated) -> Decorated:
        for field in reversed(found.values()):
            option = click.option(
                f"--{setting}-{field.name.replace('_', '-')}",
                _parameter(setting, field.name),
                type=type(field.default),
                help=f"{field.metadata['help']}  [default: {field.default:g}]",
            )
            command = option(command)
        return command

    return decorate


def kind_settings(registry: Registry, setting: str, given: dict[str, Any]) -> dict[str, Any] | None:
    """Take the settings of kinds out of a command's arguments: those that were given, by their own names."""
    names = {field.name for name in registry.names() for field in fields(registry.get(name).settings)}
    values = {name: given.pop(_parameter(setting, name)) for name in sorted(names)}
    return {name: value for name, value in values.items() if value is not None} or None


def _parameter(setting: str, name: str) -> str:
    return f"{setting}_{name}"
