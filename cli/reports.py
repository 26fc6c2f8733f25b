"""What is done with what an evaluation measured: it is drawn and printed."""

import json
from collections.abc import Callable
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
