"""Settings as fields of frozen dataclasses that say all there is to know of them, once.

    >>> @dataclass(frozen=True, kw_only=True)
    ... class CutConfig(Settings):
    ...     max_tokens: int | None = option(None, "Longest part in tokens.", least=2, unset="automatic")
    >>> CutConfig(max_tokens=1)
    ConfigError: max_tokens: expected at least 2, found 1

The checks of the settings, the options of the command line and the schema of the service are made from them.
"""

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, TypeVar

from gindex.errors import ConfigError

LABORATORY = "laboratory"
"""Group of what the product works without."""

Config = TypeVar("Config", bound="Settings")


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is to be known of a setting, beside its name, its type and its default.

    Attributes:
        help: What it does; other settings stand in it in backticks.
        group: Heading that the command line shows it under; empty for the command's own.
        least: Smallest number that it may be.
        above: Number that it must be larger than.
        most: Largest number that it may be.
        choices: Values that it may have, or a function that gives them; empty where they are not counted.
        form: What other values look like than the choices, as MODULE:FUNCTION: texts with a colon; empty for none.
        unset: How None reads: off, all, automatic, ...
        needs: Settings of which one must be given for this one to do anything, as `exact` or `words=rank`.
        metavar: What stands for a value in the help.
        python_alone: Whether the command line leaves it out.
        formerly: Names that it had, for errors.
    """

    help: str
    group: str = ""
    least: float | None = None
    above: float | None = None
    most: float | None = None
    choices: tuple[Any, ...] | Callable[[], tuple[Any, ...]] = ()
    form: str = ""
    unset: str = "none"
    needs: tuple[str, ...] = ()
    metavar: str | None = None
    python_alone: bool = False
    formerly: tuple[str, ...] = ()

    @property
    def known(self) -> tuple[Any, ...]:
        """The values that it may have; empty where they are not counted."""
        return self.choices() if callable(self.choices) else self.choices

    @property
    def range(self) -> str:
        """The numbers that it may be, as `x>=1`; empty where all are."""
        low = self.least if self.above is None else self.above
        if low is None:
            return ""
        if self.most is None:
            return f"x>={low}" if self.above is None else f"x>{low}"
        return f"{low}<=x<={self.most}" if self.above is None else f"{low}<x<={self.most}"

    def takes(self, value: Any) -> bool:
        """Whether a value other than None is one that it may have."""
        if self.known:
            return value in self.known or (self.form != "" and ":" in str(value))
        if self.range == "":
            return True
        high = value < float("inf") if self.most is None else value <= self.most
        return bool(high and (value >= self.least if self.above is None else value > self.above))

    @property
    def values(self) -> str:
        """The values that it may have, for errors."""
        if self.known:
            return f"one of {', '.join(map(str, self.known))}" + (f", or {self.form}" if self.form else "")
        if self.most is not None:
            return (
                f"from {self.least} to {self.most}"
                if self.above is None
                else f"a number in ({self.above}, {self.most}]"
            )
        if self.above is not None:
            return "a positive finite number" if self.above == 0 else f"above {self.above}"
        return f"at least {self.least}"


def option(default: Any, help: str, **more: Any) -> Any:
    """Define a field of settings: its default, its help, and what else an `Option` says."""
    return field(default=default, metadata={"option": Option(help=help, **more)})


def as_in(config: type, name: str, **other: Any) -> Any:
    """Define a field like that of other settings, in default, help and range.

    Args:
        config: The other settings.
        name: Name of the field there.
        other: What an `Option` says otherwise here; `default`, where that is another.
    """
    of = field_of(config, name)
    default = other.pop("default", of.default)
    return field(default=default, metadata={"option": replace(option_of(of), **other)})


def option_of(of: "Field[Any]") -> Option:
    """What a field says of its setting."""
    found: Option = of.metadata["option"]
    return found


def options_of(config: type) -> "dict[str, Field[Any]]":
    """The fields of settings that are options, by name; the components of settings that have some are none."""
    return {each.name: each for each in fields(config) if "option" in each.metadata}


def field_of(config: type, name: str) -> "Field[Any]":
    """The field of the name."""
    return options_of(config)[name]


def help_of(config: type, name: str) -> str:
    """Help of a setting."""
    return option_of(field_of(config, name)).help


def default_of(config: type, name: str) -> Any:
    """Default of a setting."""
    return field_of(config, name).default


class Settings:
    """Base of frozen dataclasses whose fields are options: they are checked as they are made."""

    def __post_init__(self) -> None:
        """Check every setting by itself, and that those that are given can do something.

        Raises:
            ConfigError: One is outside its range, or needs another that is not given.
        """
        for name, each in options_of(type(self)).items():
            value, described = getattr(self, name), option_of(each)
            if value == each.default or (value is None and _may_be_none(each)):
                continue
            if value is None or not described.takes(value):
                raise ConfigError(
                    field=name, expected=described.values, found=repr(value) if described.known else value
                )
            if not met(described.needs, vars(self)):
                raise ConfigError(
                    field=name,
                    expected=f"{need_text(described.needs)} beside it",
                    found="none",
                    remedy=f"give that, or leave `{name}` out",
                )


def met(needs: tuple[str, ...], given: Mapping[str, Any]) -> bool:
    """Whether settings have one of those that another one needs.

    Args:
        needs: See `Option.needs`.
        given: The settings by name.
    """
    if not needs:
        return True
    pairs = [need.partition("=") for need in needs]
    return any(given.get(name) == value if equals else bool(given.get(name)) for name, equals, value in pairs)


def need_text(needs: tuple[str, ...]) -> str:
    """The settings that another one needs, for errors: `exact` or `words` rank."""
    pairs = [need.partition("=") for need in needs]
    return " or ".join(f"`{name}` {value}" if value else f"`{name}`" for name, _, value in pairs)


def renamed(config: type) -> dict[str, str]:
    """The settings that had another name, by that name."""
    return {old: name for name, of in options_of(config).items() for old in option_of(of).formerly}


def today_text(name: str) -> str:
    """What is to be done where a setting was given by a name that it had."""
    return f"it is called `{name}` now"


def changed(settings: Config, changes: Mapping[str, object]) -> Config:
    """Settings with some of them replaced.

    Args:
        settings: The settings.
        changes: New values by name.

    Raises:
        ConfigError: There is no setting of a name, or a value is none that it may have.
    """
    names = [each.name for each in fields(settings)]  # type: ignore[arg-type]  # all of them are dataclasses
    for name in changes:
        if name not in names:
            raise ConfigError(
                field=name,
                expected=f"a setting of {type(settings).__name__}",
                found="none of that name",
                remedy=_right_name(type(settings), name, names),
            )
    return replace(settings, **changes)  # type: ignore[type-var]


def _right_name(config: type, name: str, names: list[str]) -> str:
    """What to write in the place of a name that no setting has."""
    if name in renamed(config):
        return today_text(renamed(config)[name])
    near = get_close_matches(name, names, n=1)
    return f"did you mean `{near[0]}`?" if near else f"there are {', '.join(names)}"


def _may_be_none(of: "Field[Any]") -> bool:
    return of.default is None or "None" in str(of.type)
