"""What all commands share: errors as one line and an exit code, and help under headings."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import click

from gindex.errors import GindexError
from gindex.files.open_files import raise_most_open
from gindex.options import LABORATORY

from .options import refuse_idle, today_option
from .terminal import INTERRUPTED, INTERRUPTED_LINE, interruptible, was_interrupted
from .wording import OptionFormatter, error_text, in_options


class GindexCommand(click.Command):
    """A command that ends with one clear line where it fails."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take the arguments; an option that was renamed is refused by its new name."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if (today := today_option(self, error.option_name)) is None:
                raise
            raise click.UsageError(f"{error.option_name} is called {today} now.", ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        refuse_idle(ctx)
        raise_most_open()
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
        """Write the options under their headings; settings in backticks go by their options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        with ctx.scope(cleanup=False):
            for each in self.get_params(ctx):
                shown = each.get_help_record(ctx) if isinstance(each, click.Option) else None
                if shown is not None:
                    sections.setdefault(getattr(each, "group", ""), []).append((shown[0], in_options(shown[1])))
        plain, laboratory = sections.pop("", []), sections.pop(LABORATORY, [])
        help_alone = bool(sections) and len(plain) == 1
        if not help_alone:
            _write_section(formatter, "options", plain)
        for title, options in sections.items():
            _write_section(formatter, title, options)
        if help_alone:
            _write_section(formatter, "other options", plain)
        _write_section(formatter, LABORATORY, laboratory)


class GindexGroup(click.Group):
    """A group that shows its commands under headings, each with the whole first sentence of its help."""

    def __init__(self, *arguments: Any, sections: Mapping[str, Sequence[click.Command]], **attributes: Any) -> None:
        """Take what `click.Group` takes, and the commands under their headings."""
        super().__init__(*arguments, **attributes)
        self._sections = sections
        for command in (command for commands in sections.values() for command in commands):
            self.add_command(command)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of the help."""
        return [str(command.name) for commands in self._sections.values() for command in commands]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands under their headings."""
        for title, commands in self._sections.items():
            _write_section(formatter, title, [(str(command.name), summary(command)) for command in commands])


def summary(command: click.Command) -> str:
    """First sentence of a command's help."""
    paragraph = " ".join((command.help or "").split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".")


def _write_section(formatter: click.HelpFormatter, title: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        with formatter.section(title[:1].upper() + title[1:]):
            formatter.write_dl(rows)


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
