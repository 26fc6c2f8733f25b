"""Kinds by name: the core's own, and those that installed packages add as entry points.

    >>> CURVATURES = Registry("gindex.curvatures", "curvature", {"ekfac": "gindex.curvature.kinds:EKFAC"})
    >>> CURVATURES.get("ekfac")
    CurvatureKind(basis=<function eigenbasis ...>, assumed=None, damped=True)

The laboratory adds its kinds in the same way as anybody else's package does, so the core need not know them. Nothing is
imported before a kind is asked for.
"""

from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_args, get_type_hints

from gindex.errors import ConfigError


class Registry:
    """The kinds of one sort, by name."""

    def __init__(self, group: str, setting: str, own: Mapping[str, str]) -> None:
        """Take the core's own kinds.

        Args:
            group: Group of the entry points that add to them.
            setting: Name of the setting that chooses a kind, for errors.
            own: Where the core's own are, as `module:attribute`; the first is the default.
        """
        self._group, self._setting, self._own = group, setting, own

    def names(self) -> tuple[str, ...]:
        """Names of all kinds, the core's own first, the added ones in order of their names."""
        return tuple(self._found)

    @property
    def default(self) -> str:
        """Name of the core's first kind."""
        return next(iter(self._own))

    def check(self, name: str) -> None:
        """Check that there is a kind of the name.

        Raises:
            ConfigError: There is none.
        """
        if name not in self._own and name not in self._found:
            raise ConfigError(field=self._setting, expected=f"one of {', '.join(self.names())}", found=repr(name))

    def get(self, name: str) -> Any:
        """The kind of the name, imported.

        Raises:
            ConfigError: There is none.
        """
        self.check(name)
        own = self._own.get(name)
        return (self._found[name] if own is None else EntryPoint(name, own, self._group)).load()

    def settings(self, name: str, given: Mapping[str, Any] | None) -> Any:
        """Settings of a kind that has some: an instance of the dataclass that the kind names as `settings`.

        Args:
            name: The kind.
            given: Values by name; the others stay at their defaults.

        Raises:
            ConfigError: There is no such kind, it has no such setting, or a value is out of its range.
        """
        kind, given = self.get(name).settings, given or {}
        hints = get_type_hints(kind)
        known = [field.name for field in fields(kind)]
        for setting, value in given.items():
            where = f"{self._setting}_{setting}"
            if setting not in known:
                expected = f"a setting of {name}: {', '.join(known)}"
                raise ConfigError(field=where, expected=expected, found="another one", remedy="leave it out")
            types = get_args(hints[setting]) or (hints[setting],)
            if type(value) not in (*types, *([int] if float in types else [])):
                raise ConfigError(field=where, expected=types[0].__name__, found=repr(value))
        try:
            return kind(**given)
        except ConfigError as error:
            parts = {part: text for part, text in error.parts().items() if part != "field"}
            raise ConfigError(field=f"{self._setting}_{error.field}", **parts) from error

    @cached_property
    def _found(self) -> dict[str, EntryPoint]:
        own = {name: EntryPoint(name, place, self._group) for name, place in self._own.items()}
        added = {point.name: point for point in sorted(entry_points(group=self._group), key=lambda point: point.name)}
        return own | {name: point for name, point in added.items() if name not in own}
