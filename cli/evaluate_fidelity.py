"""`gindex evaluate fidelity`: how far the scores of an index can be trusted."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .command import GindexCommand
from .options import permission_options, permissions
from .progress import terminal_progress
from .queries import read_queries
from .reports import report

if TYPE_CHECKING:
    from gindex.exact.fidelity import Fidelity

MEASURES = {
    "pearson": "Pearson correlation of scores and influence",
    "spearman": "Spearman correlation",
    "recall@10": "true top 10 among the 10 best scores",
    "recall@100": "true top 100 among the 100 best scores",
    "top10_in_50": "true top 10 among the 50 best scores",
    "top10_in_100": "true top 10 among the 100 best scores",
    "top10_in_200": "true top 10 among the 200 best scores",
    "top10_in_300": "true top 10 among the 300 best scores",
    "top10_in_500": "true top 10 among the 500 best scores",
}


@click.command(cls=GindexCommand)
@click.argument("index", type=click.Path(path_type=Path))
@click.option(
    "--queries", type=click.Path(path_type=Path), help="JSON lines with id, prompt and completion, not in the index."
)
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    help="Documents to draw as queries, where no --queries are given; each leaves itself out.",
)
@click.option("--parts", type=click.IntRange(min=1), help="Parts to rank, drawn from the index; all by default.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the draws.")
@click.option("--plot", type=click.Path(path_type=Path), help="Picture to write: .png, .svg or .pdf.")
@click.option("--model", help="Folder or hub name of the model, where it has moved since the build.")
@click.option("--device", default="auto", show_default=True, help="Device of the passes: auto, cpu, cuda, ...")
@permission_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def fidelity(
    index: Path,
    queries: Path | None,
    sample: int,
    parts: int | None,
    seed: int,
    plot: Path | None,
    model: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Compare the scores of INDEX with exact EK-FAC influence on its own documents.

    Influence is recomputed without projection for every part that is ranked, so this takes as long as passing over
    them. Intervals are 95%, by bootstrap over the queries.

    \b
    Example:
        gindex evaluate fidelity runs/corpus
        gindex evaluate fidelity runs/corpus --queries held-out.jsonl --parts 2000 --json
        gindex evaluate fidelity runs/corpus --sample 32 --plot fidelity.png
    """  # noqa: D301 \b keeps click from wrapping the lines
    asked = read_queries(queries) if queries is not None else None

    from gindex.index import GradientIndex
    from gindex.lab.fidelity_plot import check_plot, plot_fidelity

    if plot is not None:
        check_plot(plot)
    opened = GradientIndex.open(index, model=model, device=device, **permissions())
    measured = opened.fidelity(asked, sample=sample, parts=parts, seed=seed, progress=terminal_progress())
    report(measured, _text, plot_fidelity, plot, as_json)


def _text(measured: "Fidelity") -> str:
    lines = [f"{measured.queries:,} queries, {measured.parts:,} parts"]
    for name, meaning in MEASURES.items():
        if name in measured.measures:
            value = measured.measures[name]
            lines.append(f"{name:<13}{value.mean:.3f}  [{value.low:.3f}, {value.high:.3f}]  {meaning}")
    return "\n".join(lines)
