"""`gindex evaluate recall`: are the documents found that state what a query asks for?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import GindexCommand
from .index_evaluation import index_options, ranking_options, spread
from .options import permissions
from .progress import terminal_progress
from .queries import read_sought
from .reports import report

if TYPE_CHECKING:
    from gindex.lab.evaluations.recall import Recall


@click.command(cls=GindexCommand)
@index_options(["index", "funnel", "bm25"])
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    required=True,
    help="JSON lines with id, prompt, completion, and in documents the ids of those that state the answer.",
)
@ranking_options
def recall(
    index: Path,
    methods: tuple[str, ...],
    plot: Path | None,
    model: str | None,
    device: str,
    as_json: bool,
    queries: Path,
    candidates: int,
    seed: int,
) -> None:
    """Look in INDEX for the documents that are known to state what each query asks for.

    Prints which share of them is among the first k, and the mean reciprocal rank of the first (MRR). Intervals are 95%,
    by bootstrap over the queries.

    \b
    Example:
        gindex evaluate recall runs/facts --queries facts.jsonl
        gindex evaluate recall runs/facts --queries facts.jsonl --method index --method exact --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    sought = read_sought(queries)

    from gindex.index import GradientIndex
    from gindex.lab.evaluations.index_plots import plot_recall
    from gindex.lab.evaluations.recall import evaluate_recall
    from gindex.lab.fidelity_plot import check_plot

    if plot is not None:
        check_plot(plot)
    opened = GradientIndex.open(index, model=model, device=device, **permissions())
    measured = evaluate_recall(opened, sought, methods, terminal_progress(), candidates=candidates, seed=seed)
    report(measured, _text, plot_recall, plot, as_json)


def _text(measured: "Recall") -> str:
    lines = [f"{measured.queries:,} queries, {measured.documents:,} documents"]
    for name, method in measured.methods.items():
        lines.append(f"{name:<7} MRR {spread(method.mrr)}")
        lines += [f"{'':<7} recall@{k:<4} {spread(interval)}" for k, interval in method.recall.items()]
    return "\n".join(lines)
