"""`gindex evaluate lds`: do sums of influence predict what training on a random subset does?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gindex.lab.evaluations.config import LdsConfig

from .command import GindexCommand
from .experiment_options import compared, experiment_options, method_options
from .options import setting
from .progress import terminal_progress
from .reports import report

if TYPE_CHECKING:
    from gindex.lab.evaluations.lds import Lds


@click.command(cls=GindexCommand)
@experiment_options
@method_options
@setting(LdsConfig, "subsets", type=int)
@setting(LdsConfig, "share", type=float)
@setting(LdsConfig, "repeats", type=int)
@setting(LdsConfig, "seed", type=int)
def lds(
    training: str,
    work: Path,
    documents: int | None,
    plot: Path | None,
    as_json: bool,
    chosen: tuple[str, ...],
    files: tuple[str, ...],
    subsets: int,
    share: float,
    repeats: int,
    seed: int,
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
    config = LdsConfig(subsets=subsets, share=share, repeats=repeats, seed=seed)

    from gindex.lab.evaluations.kept import Kept
    from gindex.lab.evaluations.lds import evaluate_lds
    from gindex.lab.evaluations.named import load_experiment
    from gindex.lab.evaluations.plots import plot_lds
    from gindex.lab.fidelity_plot import check_plot

    if plot is not None:
        check_plot(plot)
    experiment = load_experiment(training, documents)
    methods = compared(experiment, chosen, files)
    measured = evaluate_lds(Kept(experiment, work), methods, config, terminal_progress())
    report(measured, _text, plot_lds, plot, as_json)


def _text(measured: "Lds") -> str:
    config = measured.config
    lines = [
        f"{measured.experiment}: {measured.documents:,} documents, {measured.queries:,} queries, {config.subsets} "
        f"subsets of {config.share:.0%}, {config.repeats} trainings on each"
    ]
    width = max(len(name) for name in measured.methods)
    for name, method in sorted(measured.methods.items(), key=lambda item: -item[1].lds.mean):
        lines.append(f"{name:<{width}}  {method.lds.mean:6.3f}  [{method.lds.low:.3f}, {method.lds.high:.3f}]")
    if measured.ceiling is not None:
        lines.append(f"ceiling {measured.ceiling:.3f}: more than that is lost in the noise between trainings")
    return "\n".join(lines)
