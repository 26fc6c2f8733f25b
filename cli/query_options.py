"""Options that say what is asked: a prompt with its completion, or a conversation; a contrast; a span."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gindex.config import LOSSES
from gindex.search_options import LOOK_FOR

from .options import option
from .queries import read_messages

if TYPE_CHECKING:
    from gindex.queries.query import Query

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_OPTIONS = (
    option(
        "--completion",
        group=LOOK_FOR,
        unset="all of PROMPT counts",
        help="What the model said after PROMPT: only its tokens count. Of a model that fills in masks, what fills "
        "those of PROMPT; of a classifier, the label.",
    ),
    option(
        "--label",
        group=LOOK_FOR,
        unset="what the model says",
        help="What a classifier said of PROMPT: a name or number, with commas between several, as those of its words.",
    ),
    option("--pair", group=LOOK_FOR, unset="one text", help="Second text, where a classifier reads two."),
    option(
        "--image",
        type=click.Path(path_type=Path),
        group=LOOK_FOR,
        help="File of a picture: in the place of PROMPT, where a classifier reads pictures; beside it or --messages, "
        "where a language model does.",
    ),
    option(
        "--document",
        metavar="ID",
        group=LOOK_FOR,
        help="Document of the index in the place of PROMPT, with its own label or completion.",
    ),
    option(
        "--messages",
        type=click.Path(path_type=Path, allow_dash=True),
        group=LOOK_FOR,
        help="JSON of a conversation in the place of PROMPT, - for standard input: a list of messages, or an object "
        "with messages and tools. The assistant's last turn counts.",
    ),
    option(
        "--loss",
        type=click.Choice(LOSSES),
        group=LOOK_FOR,
        needs=("messages",),
        unset="last-turn",
        help="Tokens of the conversation that count: those of the assistant's last-turn, of all the assistant's turns, "
        "or all.",
    ),
    option(
        "--turn",
        type=int,
        group=LOOK_FOR,
        needs=("messages",),
        unset="the last",
        help="Number of the assistant's turn that counts, from 1 for the first message.",
    ),
    option(
        "--contrast",
        group=LOOK_FOR,
        help="What the model might have said instead: influence is then that on log p(completion) - log p(contrast). "
        "With --messages another answer, or @FILE with another conversation.",
    ),
    option(
        "--span",
        metavar="START:END",
        group=LOOK_FOR,
        unset="all",
        help="Characters of the completion, or of the turn's content, whose tokens alone count. Of PROMPT, where the "
        "model fills in masks or labels words: those that are masked, or whose labels count.",
    ),
)
NAMES = ("completion", "label", "pair", "image", "document", "messages", "loss", "turn", "contrast", "span")
"""Parameters that the options give a command."""


def query_options(command: Decorated) -> Decorated:
    """Give a command the options of one query; it has an argument PROMPT beside them."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def made_query(prompt: str | None, given: Mapping[str, Any]) -> "Query":
    """The query that a command was given.

    Args:
        prompt: PROMPT, where there is one.
        given: What was given, by the names of the options.

    Raises:
        click.UsageError: A completion stands beside messages.
        QueryError: A file cannot be read, or the span is none.
    """
    from gindex.queries.query import Query
    from gindex.queries.records import read_span

    found = {
        name: given[name]
        for name in ("completion", "label", "pair", "document", "loss", "turn", "contrast")
        if given[name] is not None
    }
    if given["span"] is not None:
        found["span"] = read_span(given["span"], "query")
    if given["image"] is not None:
        found["image"] = _read_picture(given["image"])
    if given["messages"] is None:
        return Query(prompt=prompt or "", **found)
    if "completion" in found:
        raise click.UsageError("--completion goes with PROMPT; with --messages the last turn is what the model said.")
    if found.get("contrast", "").startswith("@"):
        found["contrast"] = read_messages(Path(found["contrast"][1:]))["messages"]
    return Query(**read_messages(given["messages"]), **found)


def check_one_asked(prompt: str | None, given: Mapping[str, Any], *others: object, named: str) -> None:
    """Check that a command was given one query: a picture may stand beside PROMPT or --messages, or by itself.

    Args:
        prompt: PROMPT, where there is one.
        given: What was given, by the names of the options.
        others: What else may stand in the place of PROMPT, None for what was not given.
        named: What may be given, for the error.

    Raises:
        click.UsageError: It was not.
    """
    whole = [each for each in (prompt, given["messages"], given["document"], *others) if each is not None]
    pictured = given["image"] is not None
    alone = pictured and given["document"] is None and not any(each is not None for each in others)
    if len(whole) > 1 or not (whole or pictured) or (pictured and not alone):
        raise click.UsageError(f"Give one of {named}; --image may also stand beside PROMPT or --messages.")


def _read_picture(path: Path) -> bytes:
    from gindex.errors import QueryError

    try:
        return path.read_bytes()
    except OSError as error:
        raise QueryError(field=path, expected="a file of a picture", found=error.strerror) from error
