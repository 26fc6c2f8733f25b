"""`gindex evaluate removal`: does the loss rise when the documents on top are left out?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gindex.lab.evaluations.config import RemovalConfig
from gindex.options import default_of, help_of

from .command import GindexCommand
from .experiment_options import compared, experiment_options, method_options
from .options import setting
from .progress import terminal_progress
from .reports import report

if TYPE_CHECKING:
    from gindex.lab.evaluations.removal import Removal


@click.command(cls=GindexCommand)
@experiment_options
@method_options
@click.option(
    "--removed",
    type=int,
    multiple=True,
    default=default_of(RemovalConfig, "removed"),
    show_default=True,
    help=help_of(RemovalConfig, "removed"),
)
@setting(RemovalConfig, "queries", type=int)
@setting(RemovalConfig, "repeats", type=int)
@setting(RemovalConfig, "seed", type=int)
def removal(
    training: str,
    work: Path,
    documents: int | None,
    plot: Path | None,
    as_json: bool,
    chosen: tuple[str, ...],
    files: tuple[str, ...],
    removed: tuple[int, ...],
    queries: int,
    repeats: int,
    seed: int,
) -> None:
    """Leave out the documents that methods put on top, at the bottom, or random ones, and train again.

    TRAINING is as for `gindex evaluate lds`. Printed is the mean change of the queries' loss against training on all
    with the same seeds: where a method is right, leaving out its top documents raises the loss most. Intervals are 95%,
    by bootstrap over the queries.

    \b
    Example:
        gindex evaluate removal digits --work runs/digits --plot removal.png
        gindex evaluate removal digits --work runs/digits --method ekfac --removed 20 --queries 30
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = RemovalConfig(removed=tuple(dict.fromkeys(removed)), queries=queries, repeats=repeats, seed=seed)

    from gindex.lab.evaluations.kept import Kept
    from gindex.lab.evaluations.named import load_experiment
    from gindex.lab.evaluations.plots import plot_removal
    from gindex.lab.evaluations.removal import evaluate_removal
    from gindex.lab.fidelity_plot import check_plot

    if plot is not None:
        check_plot(plot)
    experiment = load_experiment(training, documents)
    methods = compared(experiment, chosen, files)
    measured = evaluate_removal(Kept(experiment, work), methods, config, terminal_progress())
    report(measured, _text, plot_removal, plot, as_json)


def _text(measured: "Removal") -> str:
    lines = [
        f"{measured.experiment}: {measured.documents:,} documents, {len(measured.queries)} queries, mean loss "
        f"{measured.losses.mean():.4f}; change by leaving documents out, {measured.config.repeats} trainings each"
    ]
    width = max(len(change.method) for change in measured.changes)
    for change in measured.changes:
        lines.append(
            f"{change.method:<{width}}  {change.end:<6}  {change.removed:>6,}  {change.change.mean:+.4f}  "
            f"[{change.change.low:+.4f}, {change.change.high:+.4f}]"
        )
    return "\n".join(lines)
