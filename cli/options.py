"""Options of commands, made of the fields of settings: spelling, type, help, default, range and heading.

    @click.command(cls=GindexCommand)
    @settings(SearchOptions, leave_out=("k",))
    def search(**given: Any) -> None:
        options = made(SearchOptions, given)

An option also knows what it needs to do anything. One that was given and would do nothing is refused.
"""

from collections.abc import Callable, Collection, Mapping
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import click
from click.core import ParameterSource

from gindex.config import MODEL, PERMISSIONS, ModelConfig
from gindex.errors import ConfigError
from gindex.options import Option, Settings, field_of, met, need_text, option_of, options_of
from gindex.search_options import INDEX, OUTPUT

from .wording import in_options

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Config = TypeVar("Config", bound=Settings)

FOLDER, SERVICE, LOADED = "@folder", "@service", "@loaded"
"""What an option may need beside other options."""

_NEEDED = {
    FOLDER: "an index in a folder",
    SERVICE: "an index at a service, http://host:port/name",
    LOADED: "a model that the command loads",
}


_RECORDED = "where the build recorded it"


class SettingOption(click.Option):
    """An option with a heading in the help, and with what it needs to do anything."""

    def __init__(
        self,
        declarations: Collection[str],
        *,
        group: str = "",
        needs: tuple[str, ...] = (),
        unset: str = "",
        range: str = "",
        formerly: tuple[str, ...] = (),
        **attributes: Any,
    ) -> None:
        """Take what `click.Option` takes, and more.

        Args:
            declarations: Spellings and name.
            group: Heading that it is shown under.
            needs: Options of which one must be given too, as in `gindex.options.Option`; or FOLDER, SERVICE, LOADED.
            unset: How its default reads, where that is None.
            range: How its range reads.
            formerly: Settings that it was the option of, by names that they had.
            attributes: Those of `click.Option`.
        """
        super().__init__(list(declarations), **attributes)
        self.group, self.needs, self._unset, self._range = group, needs, unset, range
        self.formerly = formerly

    def get_help_extra(self, ctx: click.Context) -> Any:
        """What stands in brackets after the help: default, range, whether it is required."""
        extra = super().get_help_extra(ctx)
        if self._unset:
            extra["default"] = self._unset
        if self._range:
            extra["range"] = self._range
        return extra


class OrWord(click.ParamType):  # type: ignore[type-arg]  # older ones take none
    """A value, or a word that stands for None, as `all`."""

    def __init__(self, of: "click.ParamType[Any]", word: str) -> None:
        """Take the type of the values, and the word."""
        self.of, self.word, self.name = of, word, f"{of.name}|{word}"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """What stands for a value in help."""
        return f"{self.of.name.upper()}|{self.word}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value, or None."""
        return None if value == self.word else self.of.convert(value, param, ctx)


def option(*declarations: str, **attributes: Any) -> Callable[[Decorated], Decorated]:
    """Give a command an option of its own: see `SettingOption`."""
    return click.option(*declarations, cls=SettingOption, **attributes)


def setting(
    config: type, name: str, *declarations: str, prefix: str = "", **other: Any
) -> Callable[[Decorated], Decorated]:
    """Give a command an option for a field of settings.

    Args:
        config: The settings.
        name: The field.
        declarations: Spellings, where they are not `--some-name`.
        prefix: What stands before the name, for settings within settings.
        other: What is other than the field says: attributes of `SettingOption`, `help` and `default` among them.
    """
    of = field_of(config, name)
    described = option_of(of)
    attributes: dict[str, Any] = {
        "default": of.default,
        "show_default": of.default is not None and of.default != () and of.default is not False,
        "help": described.help,
        "group": described.group,
        "needs": tuple(f"{prefix}{need}" for need in described.needs),
        "unset": described.unset if of.default is None else "none" if of.default == () else "",
        "range": described.range,
        "formerly": described.formerly,
        "metavar": described.metavar,
    }
    if other.get("required"):
        del attributes["default"]
    spellings = declarations or (f"--{(prefix + name).replace('_', '-')}",)
    typed = _type_of(get_type_hints(config)[name], described, of.default)
    return option(*spellings, f"{prefix}{name}", **attributes | typed | other)


def settings(
    config: type, *, prefix: str = "", leave_out: Collection[str] = (), **other: Any
) -> Callable[[Decorated], Decorated]:
    """Give a command an option for every field of settings that the command line offers.

    Args:
        config: The settings.
        prefix: See `setting`.
        leave_out: Fields without an option.
        other: See `setting`; holds for all of them.
    """
    offered = [name for name, of in options_of(config).items() if not option_of(of).python_alone]

    def decorate(command: Decorated) -> Decorated:
        for name in reversed([name for name in offered if name not in leave_out]):
            command = setting(config, name, prefix=prefix, **other)(command)
        return command

    return decorate


def made(config: type[Config], given: Mapping[str, Any], *, prefix: str = "", **more: Any) -> Config:
    """The settings that a command was given.

    Args:
        config: Their class.
        given: What was given, by the names of the options.
        prefix: See `setting`.
        more: Settings beside them.

    Raises:
        ConfigError: One is outside its range; it goes by the name of its option.
    """
    taken = {name: given[f"{prefix}{name}"] for name in options_of(config) if f"{prefix}{name}" in given}
    try:
        return config(**taken | more)
    except ConfigError as error:
        parts = {name: part for name, part in error.parts().items() if name != "field"}
        raise ConfigError(field=f"{prefix}{error.field}", **parts) from error


def _type_of(hint: Any, described: Option, default: Any) -> dict[str, Any]:
    """Attributes of an option for values of a type."""
    if hint is bool:
        return {"is_flag": True}
    if get_args(hint)[1:] == (...,):
        return {"multiple": True, "type": get_args(hint)[0]}
    plain = next((each for each in get_args(hint) if each is not NoneType), hint)
    counted = described.known and not described.form
    kind: Any = click.Choice(described.known) if counted else click.types.convert_type(plain)
    if default is not None and NoneType in get_args(hint):
        kind = OrWord(kind, described.unset)
    return {"type": kind}


json_option = option("--json", "as_json", is_flag=True, group=OUTPUT, help="Print one JSON object.")

model_option = option(
    "--model",
    group=MODEL,
    needs=(LOADED,),
    unset=_RECORDED,
    help="Folder or hub name of the model, where it has moved since the build.",
)

key_option = option(
    "--api-key",
    envvar="GINDEX_API_KEY",
    show_envvar=True,
    group=INDEX,
    needs=(SERVICE,),
    help="Key, where INDEX is at a service that asks for one.",
)

device_option = setting(ModelConfig, "device", needs=(LOADED,))


def permission_options(command: Decorated) -> Decorated:
    """Give a command that loads a model an option for each of `PERMISSIONS`; `permissions()` has what was given."""
    for name in reversed(PERMISSIONS):
        command = setting(ModelConfig, name, needs=(LOADED,), expose_value=False, callback=_keep)(command)
    return command


def permissions() -> dict[str, Any]:
    """What the running command allows a model to do: arguments of `GradientIndex.open` and of `ModelConfig`."""
    given = click.get_current_context().meta
    return {name: bool(given.get(f"{__name__}.{name}")) for name in PERMISSIONS}


def base_option(command: Decorated) -> Decorated:
    """Give a command that opens an index options for its adapter's base and its own task; see `opening()`."""
    more: dict[str, Any] = {"needs": (LOADED,), "expose_value": False, "callback": _keep}
    own = "Function of your own that the index was built with; its code is run, and no index runs it by itself."
    task = option("--task", group=MODEL, metavar="MODULE:FUNCTION", unset="none", help=own, **more)
    return setting(ModelConfig, "base", unset=_RECORDED, **more)(task(command))


def opening() -> dict[str, Any]:
    """What the running command was given to open an index with, beside model and device."""
    meta = click.get_current_context().meta
    return permissions() | {name: meta.get(f"{__name__}.{name}") for name in ("base", "task")}


def _keep(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    ctx.meta[f"{__name__}.{option.name}"] = value


def is_address(index: object) -> bool:
    """Whether an index is named by the address of a service."""
    return str(index).startswith(("http://", "https://"))


def refuse_idle(ctx: click.Context) -> None:
    """See that every option that the running command was given does something.

    Raises:
        click.UsageError: One does nothing beside the others; names it, and what it needs.
    """
    index, without_model = str(ctx.params.get("index", "")), bool(ctx.params.get("no_model"))
    facts = {FOLDER: not is_address(index), SERVICE: is_address(index)}
    facts[LOADED] = facts[FOLDER] and not without_model
    for each in ctx.command.params:
        if (
            isinstance(each, SettingOption)
            and ctx.get_parameter_source(str(each.name)) is ParameterSource.COMMANDLINE
            and not met(each.needs, ctx.params | facts)
        ):
            raise click.UsageError(_idle(str(each.name), each.needs, "--no-model" if without_model else index), ctx)


def today_option(command: click.Command, spelling: str) -> str | None:
    """Spelling of an option of a command that went by another one before; None where none did."""
    name = spelling.lstrip("-").replace("-", "_")
    found = (each for each in command.params if isinstance(each, SettingOption) and name in each.formerly)
    return next((each.opts[0] for each in found), None)


def _idle(name: str, needs: tuple[str, ...], instead: str) -> str:
    spelling, fact = in_options(f"`{name}`"), _NEEDED.get(needs[0])
    if fact is not None:
        return f"{spelling}: expected {fact}, found {instead}; leave {spelling} out."
    needed = in_options(need_text(needs))
    return f"{spelling}: expected {needed} beside it, found none; give that, or leave {spelling} out."
