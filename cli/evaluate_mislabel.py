"""`gindex evaluate mislabel`: does self-influence find labels that were changed?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gindex.lab.evaluations.config import MislabelConfig

from .command import GindexCommand
from .experiment_options import experiment_options
from .options import setting
from .progress import terminal_progress
from .reports import report

if TYPE_CHECKING:
    from gindex.lab.evaluations.mislabel import Mislabel


@click.command(cls=GindexCommand)
@experiment_options
@setting(MislabelConfig, "share", type=float)
@setting(MislabelConfig, "repeats", type=int)
@setting(MislabelConfig, "seed", type=int)
def mislabel(
    training: str,
    work: Path,
    documents: int | None,
    plot: Path | None,
    as_json: bool,
    share: float,
    repeats: int,
    seed: int,
) -> None:
    """Change some labels to another class, train, and see which methods find them.

    TRAINING is digits, or names an object with `labels`, `classes` and `suspicion(labels, seed)`, which trains with
    other labels and returns how suspect each one is, by method. Printed are the area under the ROC curve, with a 95%
    interval by bootstrap over the changed labels, and the share found by inspecting as many as were changed.

    \b
    Example:
        gindex evaluate mislabel digits --work runs/digits --plot mislabel.png
        gindex evaluate mislabel digits --work runs/digits --share 0.05 --repeats 10 --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = MislabelConfig(share=share, repeats=repeats, seed=seed)

    from gindex.lab.evaluations.kept import Kept
    from gindex.lab.evaluations.mislabel import evaluate_mislabel
    from gindex.lab.evaluations.named import load_experiment
    from gindex.lab.evaluations.plots import plot_mislabel
    from gindex.lab.fidelity_plot import check_plot

    if plot is not None:
        check_plot(plot)
    measured = evaluate_mislabel(Kept(load_experiment(training, documents), work), config, terminal_progress())
    report(measured, _text, plot_mislabel, plot, as_json)


def _text(measured: "Mislabel") -> str:
    lines = [
        f"{measured.experiment}: {measured.changed:,} of {measured.documents:,} labels changed, "
        f"{measured.config.repeats} trainings"
    ]
    width = max(len(name) for name in measured.methods)
    for name, each in sorted(measured.methods.items(), key=lambda item: -item[1].auc.mean):
        lines.append(
            f"{name:<{width}}  AUC {each.auc.mean:.3f}  [{each.auc.low:.3f}, {each.auc.high:.3f}]  "
            f"found {each.found:.0%}"
        )
    return "\n".join(lines)
