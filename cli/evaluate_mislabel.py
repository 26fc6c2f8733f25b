"""`gindex evaluate mislabel`: does self-influence find labels that were changed?"""

from pathlib import Path
from typing import Any

import click

from gindex.lab.evaluations.config import MislabelConfig

from .command import GindexCommand
from .lab_options import picture_option, report_options, training_options
from .options import made, settings
from .progress import terminal_progress
from .reports import check_report, deliver


@click.command(cls=GindexCommand)
@training_options
@settings(MislabelConfig)
@picture_option
@report_options()
def mislabel(training: str, work: Path, documents: int | None, **given: Any) -> None:
    """Change some labels to another class, train, and see which methods find them.

    TRAINING is digits, or names an object with `labels`, `classes` and `suspicion(labels, seed)`, which trains with
    other labels and returns how suspect each one is, by method. Printed are the area under the ROC curve, with a 95%
    interval by bootstrap over the changed labels, and the share found by inspecting as many as were changed.

    \b
    Example:
        gindex evaluate mislabel digits --work runs/digits --plot mislabel.png
        gindex evaluate mislabel digits --work runs/digits --share 0.05 --repeats 10 --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = made(MislabelConfig, given)
    check_report(given)

    from gindex.lab.evaluations.experiments import load_experiment
    from gindex.lab.evaluations.mislabel import evaluate_mislabel, mislabel_report
    from gindex.lab.evaluations.work_folder import WorkFolder

    measured = evaluate_mislabel(WorkFolder(load_experiment(training, documents), work), config, terminal_progress())
    deliver(mislabel_report(measured), given)
