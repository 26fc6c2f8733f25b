"""Options that evaluations and studies have in common, and what is made of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gindex.errors import ConfigError
from gindex.lab.evaluations.config import METHODS, RankingsConfig
from gindex.search_options import OUTPUT

from .options import (
    Decorated,
    base_option,
    device_option,
    model_option,
    opening,
    option,
    permission_options,
    setting,
    settings,
)

if TYPE_CHECKING:
    from gindex.index import GradientIndex
    from gindex.lab.evaluations.training import Experiment, Method

index_argument = click.argument("index", type=click.Path(path_type=Path))

queries_option = option(
    "--queries",
    type=click.Path(path_type=Path),
    help="JSON lines, each a query of any form; without them documents of the index are drawn.",
)

picture_option = option(
    "--plot", type=click.Path(path_type=Path), group=OUTPUT, help="Picture of the figures: .png, .svg or .pdf."
)


def joined(*decorators: Callable[[Decorated], Decorated]) -> Callable[[Decorated], Decorated]:
    """One decorator in the place of several, which stand in the order of the help."""

    def decorate(command: Decorated) -> Decorated:
        for each in reversed(decorators):
            command = each(command)
        return command

    return decorate


def report_options(page: str | None = None) -> Callable[[Decorated], Decorated]:
    """Give a command --out and --json.

    Args:
        page: Where the page goes if nothing else is said; None writes one only where it is asked for.
    """
    return joined(
        option(
            "--out",
            type=click.Path(path_type=Path, dir_okay=False),
            default=page,
            show_default=page is not None,
            unset="" if page else "none",
            group=OUTPUT,
            help="Page to write, .html; the numbers go beside it, in a file ending in .json.",
        ),
        option("--json", "as_json", is_flag=True, group=OUTPUT, help="Print the numbers as one JSON object."),
    )


device_options = joined(device_option, permission_options)

index_options = joined(model_option, base_option, device_options)

training_options = joined(
    click.argument("training"),
    option(
        "--work",
        type=click.Path(path_type=Path),
        required=True,
        help="Folder that keeps finished trainings; the same command goes on where it was.",
    ),
    option(
        "--documents",
        type=click.IntRange(min=2),
        help="How many documents there are, where the training function does not say so.",
    ),
)

method_options = joined(
    option(
        "--method",
        "chosen",
        multiple=True,
        help="A method that the training function offers; all of them by default. Give it again for more.",
    ),
    option(
        "--scores",
        "files",
        multiple=True,
        metavar="NAME=FILE",
        help="Scores of your own, [queries, documents], as a NumPy file (.npy). Give it again for more.",
    ),
)


def ranking_options(config: type[RankingsConfig]) -> Callable[[Decorated], Decorated]:
    """Give a command the options of settings that choose methods to rank the documents of an index."""
    methods = setting(config, "methods", "--method", type=click.Choice(METHODS))
    return joined(methods, settings(config, leave_out=("methods", "k")))


def open_index(index: Path, given: Mapping[str, Any]) -> "GradientIndex":
    """The index in a folder, opened as the command was asked to."""
    from gindex.index import GradientIndex

    return GradientIndex.open(index, model=given.get("model"), device=given["device"], **opening())


def compared_methods(experiment: "Experiment", chosen: Sequence[str], files: Sequence[str]) -> "dict[str, Method]":
    """The methods to compare: those chosen of the training function's own, and files of scores.

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
