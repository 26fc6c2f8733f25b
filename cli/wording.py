"""Texts of the library in the words of the command line: settings by the spellings of their options."""

import logging
import re
from collections.abc import Iterator

import click

from gindex.errors import GindexError

_SETTING = re.compile(r"`([a-z][a-z0-9_]*)`")
_SUBJECT = re.compile(r"(?:^|(?<=: ))([a-z][a-z0-9_]*)((?: and [a-z][a-z0-9_]*)*)(?=$|, position )")
"""Settings that a field names: alone, two of them, or a place within one; an index's address may stand before."""


class OptionFormatter(logging.Formatter):
    """Log lines that call settings by their options."""

    def format(self, record: logging.LogRecord) -> str:
        """Text of a record."""
        return in_options(super().format(record))


def error_text(error: GindexError) -> str:
    """Message of an error, in which settings go by their options."""
    if not error.field:
        return in_options(str(error))
    field = _SUBJECT.sub(lambda found: _subject(found[0]), error.field)
    return in_options(field + str(error).removeprefix(error.field))


def in_options(text: str) -> str:
    """Text whose settings in backticks, as `max_tokens`, go by their options, as --max-tokens."""
    return _SETTING.sub(lambda found: _spelling(found[1]) or found[0], text)


def _subject(names: str) -> str:
    spelled = [(name, _spelling(name)) for name in names.split(" and ")]
    return " and ".join(spelling or name for name, spelling in spelled)


def _spelling(name: str) -> str | None:
    """Option of the running command for a setting, else that of another command; None where none has one."""
    for command in _commands():
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                like = [option for option in parameter.opts if option.lstrip("-").replace("-", "_") == name]
                if like or parameter.name == name:
                    return (like or parameter.opts)[0]
    return None


def _commands() -> Iterator[click.Command]:
    """The running command, those it is within, and all others of the program."""
    context = click.get_current_context(silent=True)
    if context is not None:
        root = context.find_root()
        while context is not None:
            yield context.command
            context = context.parent
        yield from _within(root.command, root)


def _within(command: click.Command, context: click.Context) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _within(inner, context)
