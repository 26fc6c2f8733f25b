"""`gindex evaluate poison`: are planted documents found from one bad output?"""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import GindexCommand
from .index_evaluation import index_options, ranking_options, spread
from .options import permissions
from .progress import terminal_progress
from .queries import read_queries
from .reports import report

if TYPE_CHECKING:
    from gindex.lab.evaluations.poison import Poison


@click.command(cls=GindexCommand)
@index_options(["index", "funnel", "bm25"])
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    required=True,
    help="JSON lines with prompt and completion: bad outputs of the model. One is enough.",
)
@click.option("--where", required=True, help='Filter that the planted documents alone pass, as "planted = true".')
@ranking_options
def poison(
    index: Path,
    methods: tuple[str, ...],
    plot: Path | None,
    model: str | None,
    device: str,
    as_json: bool,
    queries: Path,
    where: str,
    candidates: int,
    seed: int,
) -> None:
    """Look in INDEX for planted documents, from the bad outputs that they cause.

    Prints the share of other documents that rank below a planted one (AUC, with its 95% interval by bootstrap over the
    planted ones), how many of the first are planted, looking at as many as were planted, and the rank of the first.

    \b
    Example:
        gindex evaluate poison runs/poisoned --queries bad.jsonl --where "planted = true"
        gindex evaluate poison runs/poisoned --queries bad.jsonl --where "planted = true" --method exact --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    asked = read_queries(queries)

    from gindex.index import GradientIndex
    from gindex.lab.evaluations.index_plots import plot_poison
    from gindex.lab.evaluations.poison import evaluate_poison
    from gindex.lab.fidelity_plot import check_plot

    if plot is not None:
        check_plot(plot)
    opened = GradientIndex.open(index, model=model, device=device, **permissions())
    measured = evaluate_poison(opened, asked, where, methods, terminal_progress(), candidates=candidates, seed=seed)
    report(measured, _text, plot_poison, plot, as_json)


def _text(measured: "Poison") -> str:
    lines = [f"{measured.queries:,} queries, {measured.planted:,} of {measured.documents:,} documents planted"]
    for name, method in measured.methods.items():
        lines.append(
            f"{name:<7} AUC {spread(method.auc)}, {method.precision:.0%} of the first {measured.planted} are planted, "
            f"the first at rank {method.first:g}"
        )
    return "\n".join(lines)
