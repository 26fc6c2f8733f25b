"""`gindex evaluate lds`: do sums of influence predict what training on a random subset does?"""

from pathlib import Path
from typing import Any

import click

from gindex.lab.evaluations.config import LdsConfig

from .command import GindexCommand
from .lab_options import compared_methods, method_options, picture_option, report_options, training_options
from .options import made, settings
from .progress import terminal_progress
from .reports import check_report, deliver


@click.command(cls=GindexCommand)
@training_options
@method_options
@settings(LdsConfig)
@picture_option
@report_options()
def lds(
    training: str, work: Path, documents: int | None, chosen: tuple[str, ...], files: tuple[str, ...], **given: Any
) -> None:
    """Compare methods with retraining on random subsets (linear datamodelling score).

    TRAINING is digits, tabular, fine-tuning:FOLDER, package.module:function or file.py:function. The function is called
    with the ordinals of the documents to train on and a seed, and returns the loss of every query. FOLDER has a causal
    language model in model/, documents.jsonl to fine-tune it on, and queries.jsonl. A method's prediction for a subset
    is the sum of its scores over it. Intervals are 95%, by bootstrap over queries and subsets.

    \b
    Example:
        gindex evaluate lds digits --work runs/digits --plot lds.png
        gindex evaluate lds fine-tuning:runs/small --work runs/small-lds --subsets 80 --repeats 2
        gindex evaluate lds fine_tune.py:train --documents 1200 --work runs/lds --scores mine=scores.npy
        gindex evaluate lds tabular --work runs/tabular --method ekfac --method identity --repeats 3 --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = made(LdsConfig, given)
    check_report(given)

    from gindex.lab.evaluations.experiments import load_experiment
    from gindex.lab.evaluations.lds import evaluate_lds, lds_report
    from gindex.lab.evaluations.work_folder import WorkFolder

    experiment = load_experiment(training, documents)
    methods = compared_methods(experiment, chosen, files)
    measured = evaluate_lds(WorkFolder(experiment, work), methods, config, terminal_progress())
    deliver(lds_report(measured), given)
