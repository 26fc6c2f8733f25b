"""`gindex evaluate removal`: does the loss rise when the documents on top are left out?"""

from pathlib import Path
from typing import Any

import click

from gindex.lab.evaluations.config import RemovalConfig

from .command import GindexCommand
from .lab_options import compared_methods, method_options, picture_option, report_options, training_options
from .options import made, settings
from .progress import terminal_progress
from .reports import check_report, deliver


@click.command(cls=GindexCommand)
@training_options
@method_options
@settings(RemovalConfig)
@picture_option
@report_options()
def removal(
    training: str, work: Path, documents: int | None, chosen: tuple[str, ...], files: tuple[str, ...], **given: Any
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
    config = made(RemovalConfig, given)
    check_report(given)

    from gindex.lab.evaluations.experiments import load_experiment
    from gindex.lab.evaluations.removal import evaluate_removal, removal_report
    from gindex.lab.evaluations.work_folder import WorkFolder

    experiment = load_experiment(training, documents)
    methods = compared_methods(experiment, chosen, files)
    measured = evaluate_removal(WorkFolder(experiment, work), methods, config, terminal_progress())
    deliver(removal_report(measured), given)
