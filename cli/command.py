"""What all commands share: errors as one line and an exit code, options that take default and help from the config."""

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from gindex.config import default_of, help_of
from gindex.errors import GindexError

from .terminal import INTERRUPTED, INTERRUPTED_LINE, interruptible, was_interrupted

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class GindexCommand(click.Command):
    """A command that ends with one clear line where it fails."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        _quiet_libraries()
        try:
            with interruptible():
                return super().invoke(ctx)
        except BaseException as error:
            # An interrupt may have become another error on its way here.
            if isinstance(error, KeyboardInterrupt) or was_interrupted():
                click.echo(INTERRUPTED_LINE, err=True)
                ctx.exit(INTERRUPTED)
            if isinstance(error, GindexError):
                click.echo(f"gindex: {error}", err=True)
                ctx.exit(error.exit_code)
            raise


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


def _quiet_libraries() -> None:
    """Leave the terminal to our own messages: libraries' progress bars and notices stay off unless asked for."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(format="gindex: %(message)s", level=logging.WARNING)
