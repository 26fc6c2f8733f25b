"""What the commands that train have in common: the training function, its folder, and methods to compare."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from gindex.errors import ConfigError

if TYPE_CHECKING:
    from gindex.lab.evaluations.training import Experiment, Method

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def experiment_options(function: Decorated) -> Decorated:
    """Add TRAINING, --work, --documents, --plot and --json."""
    for decorate in reversed(
        (
            click.argument("training"),
            click.option(
                "--work",
                type=click.Path(path_type=Path),
                required=True,
                help="Folder that keeps finished trainings; the same command goes on where it was.",
            ),
            click.option(
                "--documents",
                type=click.IntRange(min=2),
                help="How many documents there are, where the training function does not say so.",
            ),
            click.option("--plot", type=click.Path(path_type=Path), help="Picture to write: .png, .svg or .pdf."),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        )
    ):
        function = decorate(function)
    return function


def method_options(function: Decorated) -> Decorated:
    """Add --method and --scores."""
    for decorate in reversed(
        (
            click.option(
                "--method",
                "chosen",
                multiple=True,
                help="A method that the training function offers; all of them by default. Give it again for more.",
            ),
            click.option(
                "--scores",
                "files",
                multiple=True,
                metavar="NAME=FILE",
                help="Scores of your own, [queries, documents], as a NumPy file (.npy). Give it again for more.",
            ),
        )
    ):
        function = decorate(function)
    return function


def compared(experiment: "Experiment", chosen: Sequence[str], files: Sequence[str]) -> "dict[str, Method]":
    """Return the methods to compare: those chosen of the training function's own, and files of scores.

    Raises:
        ConfigError: A method is unknown, a file cannot be read, or there is nothing to compare.
    """
    from gindex.lab.evaluations.training import OffersMethods

    offered = experiment.function.methods() if isinstance(experiment.function, OffersMethods) else {}
    unknown = [name for name in chosen if name not in offered]
    if unknown:
        raise ConfigError(
            field="--method", expected=f"one of {', '.join(offered) or 'none at all'}", found=repr(unknown[0])
        )
    methods = {name: offered[name] for name in (chosen or ([] if files else offered))}
    methods |= dict(_file(entry) for entry in files)
    if not methods:
        raise ConfigError(
            field=experiment.name,
            expected="a method to compare",
            found="none",
            remedy="give --scores NAME=FILE, or the training function a method of the name methods",
        )
    return methods


def _file(entry: str) -> "tuple[str, Method]":
    from gindex.lab.evaluations.scores_file import read_scores

    name, equals, path = entry.partition("=")
    if not equals or not name:
        raise ConfigError(field="--scores", expected="NAME=FILE", found=repr(entry))
    scores = read_scores(Path(path))
    return name, lambda: scores
