"""What all commands share: errors as one line and an exit code, options that take default and help from the config."""

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from gindex.config import PERMISSIONS, ModelConfig, default_of, help_of
from gindex.errors import GindexError

from .terminal import INTERRUPTED, INTERRUPTED_LINE, interruptible, was_interrupted
from .wording import OptionFormatter, error_text, in_options

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_OF_A_FOLDER = ("model", "device", "allow_degraded", *PERMISSIONS)
"""Options that say how an index in a folder is opened; a service has settings of its own."""


class GindexCommand(click.Command):
    """A command that ends with one clear line where it fails."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        _quiet_libraries()
        _wait_passively()
        try:
            with interruptible():
                return super().invoke(ctx)
        except BaseException as error:
            # An interrupt may have become another error on its way here.
            if isinstance(error, KeyboardInterrupt) or was_interrupted():
                click.echo(INTERRUPTED_LINE, err=True)
                ctx.exit(INTERRUPTED)
            if isinstance(error, GindexError):
                click.echo(f"gindex: {error_text(error)}", err=True)
                ctx.exit(error.exit_code)
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options; in their help, settings in backticks go by their options."""
        with ctx.scope(cleanup=False):
            for option in self.get_params(ctx):
                if isinstance(option, click.Option) and option.help:
                    option.help = in_options(option.help)
        super().format_options(ctx, formatter)


def config_option(config: type, name: str, *, prefix: str = "", **attributes: Any) -> Callable[[Decorated], Decorated]:
    """Make an option `--some-name`, after a prefix, for the field `some_name` of a config class."""
    return click.option(
        f"--{(prefix + name).replace('_', '-')}",
        prefix + name,
        default=default_of(config, name),
        show_default=default_of(config, name) is not None or "automatic",
        help=help_of(config, name),
        **attributes,
    )


def permission_options(command: Decorated) -> Decorated:
    """Give a command that loads a model an option for each of `PERMISSIONS`; `permissions()` has what was given."""
    for name in reversed(PERMISSIONS):
        flag = f"--{name.replace('_', '-')}"
        option = click.option(
            flag, name, is_flag=True, expose_value=False, callback=_permit, help=help_of(ModelConfig, name)
        )
        command = option(command)
    return command


def permissions() -> dict[str, Any]:
    """Return what the running command allows a model to do: arguments of `GradientIndex.open` and of `ModelConfig`."""
    given = click.get_current_context().meta
    return {name: bool(given.get(f"{__name__}.{name}")) for name in PERMISSIONS}


def check_folder_options(address: str) -> None:
    """See that the running command has no option that is about an index in a folder, for one at a service.

    Raises:
        click.UsageError: It has; names them.
    """
    source = click.get_current_context().get_parameter_source
    given = [name for name in _OF_A_FOLDER if source(name) is ParameterSource.COMMANDLINE]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{options}: for an index in a folder, not for {address}; the service has its own.")


def _permit(ctx: click.Context, option: click.Parameter, value: bool) -> None:
    ctx.meta[f"{__name__}.{option.name}"] = value


def _wait_passively() -> None:
    """Have threads sleep while they wait for one another, unless the user's environment says otherwise.

    Those that spin take their core from other processes, and from the threads that they wait for. OpenMP reads
    this when it is loaded, which no command does before.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # of GNU's, which torch and FAISS bring, and others
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # of Intel's and LLVM's


def _quiet_libraries() -> None:
    """Leave the terminal to our own messages: libraries' progress bars and notices stay off unless asked for."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    handler = logging.StreamHandler()
    handler.setFormatter(OptionFormatter("gindex: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
