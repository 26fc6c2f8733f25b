"""What the evaluations that ask an index have in common: its options, methods, and lines of text."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .options import permission_options

if TYPE_CHECKING:
    from gindex.statistics import Interval

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

METHODS = ("index", "funnel", "exact", "bm25", "random")


def index_options(methods: Sequence[str]) -> Callable[[Decorated], Decorated]:
    """Add INDEX, --method with these defaults, --plot, --model, --device, what a model may do, and --json."""

    def add(function: Decorated) -> Decorated:
        for decorate in reversed(
            (
                click.argument("index", type=click.Path(path_type=Path)),
                click.option(
                    "--method",
                    "methods",
                    multiple=True,
                    type=click.Choice(METHODS),
                    default=tuple(methods),
                    show_default=True,
                    help="What to compare: scores of the stored vectors, the funnel with --exact, exact influence of "
                    "every document, BM25 for the query's words, a random order. Give it again for more.",
                ),
                click.option("--plot", type=click.Path(path_type=Path), help="Picture to write: .png, .svg or .pdf."),
                click.option("--model", help="Folder or hub name of the model, where it has moved since the build."),
                click.option(
                    "--device", default="auto", show_default=True, help="Device of the passes: auto, cpu, cuda, ..."
                ),
                permission_options,
                click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
            )
        ):
            function = decorate(function)
        return function

    return add


def ranking_options(function: Decorated) -> Decorated:
    """Add --candidates and --seed, for evaluations of whole rankings."""
    candidates = click.option(
        "--candidates",
        type=click.IntRange(min=1),
        default=100,
        show_default=True,
        help="Parts that the funnel re-ranks by exact influence.",
    )
    seed = click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the random order."
    )
    return candidates(seed(function))


def spread(interval: "Interval") -> str:
    """Return a mean with its interval as text."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
