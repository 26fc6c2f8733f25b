"""Options of registered kinds: each kind's own settings, as its dataclass has them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from gindex.options import default_of, option_of, options_of
from gindex.registry import Registry

from .options import setting

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def kind_options(registry: Registry, name: str) -> Callable[[Decorated], Decorated]:
    """Give a command an option for each setting of the kinds of a registry: `--refine-iterations` for `iterations`.

    Args:
        registry: The kinds.
        name: Name of the option that chooses one of them.
    """
    owners = _owners(registry)

    def decorate(command: Decorated) -> Decorated:
        for field, kinds in reversed(owners.items()):
            config = registry.get(kinds[0]).settings
            needs = tuple(f"{name}={kind}" for kind in kinds)
            shown = str(default_of(config, field))
            command = setting(config, field, prefix=f"{name}_", needs=needs, default=None, unset=shown)(command)
        return command

    return decorate


def kind_settings(registry: Registry, name: str, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings of kinds that a command was given, by their own names; None where it was given none.

    Args:
        registry: The kinds.
        name: Name of the option that chooses one of them.
        given: What the command was given, by the names of its options.
    """
    values = {field: given[f"{name}_{field}"] for field in _owners(registry)}
    return {field: value for field, value in values.items() if value is not None} or None


def _owners(registry: Registry) -> dict[str, list[str]]:
    """Kinds that have each setting that the command line offers."""
    owners: dict[str, list[str]] = {}
    for kind in registry.names():
        for name, field in options_of(registry.get(kind).settings).items():
            if not option_of(field).python_alone:
                owners.setdefault(name, []).append(kind)
    return owners
