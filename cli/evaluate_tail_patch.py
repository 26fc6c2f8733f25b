"""`gindex evaluate tail-patch`: does a training step on a document make the target more likely?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gindex.lab.evaluations.config import OPTIMIZERS, TailPatchConfig

from .command import GindexCommand
from .index_evaluation import index_options, spread
from .options import permissions, setting
from .progress import terminal_progress
from .queries import read_queries
from .reports import report

if TYPE_CHECKING:
    from gindex.lab.evaluations.tail_patch import TailPatch


@click.command("tail-patch", cls=GindexCommand)
@index_options(["index", "funnel", "random"])
@click.option(
    "--queries", type=click.Path(path_type=Path), required=True, help="JSON lines with id, prompt and completion."
)
@click.option("-k", "--top", type=int, default=TailPatchConfig.k, show_default=True, help="Documents to step on.")
@setting(TailPatchConfig, "optimizer", type=click.Choice(OPTIMIZERS))
@setting(TailPatchConfig, "rate", type=float)
@setting(TailPatchConfig, "candidates", type=int)
@setting(TailPatchConfig, "seed", type=int)
@click.option("--work", type=click.Path(path_type=Path), help="Folder that keeps finished steps, to go on from there.")
def tail_patch(
    index: Path,
    methods: tuple[str, ...],
    plot: Path | None,
    model: str | None,
    device: str,
    as_json: bool,
    queries: Path,
    top: int,
    optimizer: str,
    rate: float,
    candidates: int,
    seed: int,
    work: Path | None,
) -> None:
    """Take one optimiser step on each of the best documents of INDEX; print the change of the target's log-likelihood.

    Each step starts from the model as it is. The target is the query's completion, or all of it. Intervals are 95%, by
    bootstrap over the queries. A random choice says what a step on any document does.

    \b
    Example:
        gindex evaluate tail-patch runs/corpus --queries held-out.jsonl -k 10
        gindex evaluate tail-patch runs/corpus --queries held-out.jsonl --method exact --method random --work runs/patch
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = TailPatchConfig(k=top, optimizer=optimizer, rate=rate, candidates=candidates, seed=seed)
    asked = read_queries(queries, also=["documents"])  # of files for `gindex evaluate recall`

    from gindex.index import GradientIndex
    from gindex.lab.evaluations.index_plots import plot_tail_patch
    from gindex.lab.evaluations.tail_patch import evaluate_tail_patch
    from gindex.lab.fidelity_plot import check_plot

    if plot is not None:
        check_plot(plot)
    opened = GradientIndex.open(index, model=model, device=device, **permissions())
    measured = evaluate_tail_patch(opened, asked, methods, config, terminal_progress(), work)
    report(measured, _text, plot_tail_patch, plot, as_json)


def _text(measured: "TailPatch") -> str:
    lines = [
        f"{measured.queries:,} queries, one step on each of {measured.config.k} documents; change of log-likelihood "
        f"in nats, of {measured.losses.mean():.3f}"
    ]
    for name, method in measured.methods.items():
        lines.append(f"{name:<7} {spread(method.gain)}, raised by {method.raised:.0%} of the steps")
    return "\n".join(lines)
