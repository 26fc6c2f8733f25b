"""What is done with what was measured and noticed: it is drawn and printed."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click


class Measured(Protocol):
    """What was measured."""

    def record(self) -> dict[str, Any]:
        """Return it as it stands in JSON."""


M = TypeVar("M", bound=Measured)


def report(
    measured: M, text: Callable[[M], str], draw: Callable[[M, Path], None], plot: Path | None, as_json: bool
) -> None:
    """Draw to a file, if there is one, and print: what `text` makes of it, or JSON."""
    if plot is not None:
        draw(measured, plot)
    click.echo(json.dumps(measured.record(), indent=1) if as_json else text(measured))


@contextmanager
def corpus_notes() -> Iterator[list[str]]:
    """Collect what is told about the corpus while it is read, beside the lines on standard error."""
    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("gindex.corpus")
    logger.addHandler(handler)
    try:
        yield notes
    finally:
        logger.removeHandler(handler)
