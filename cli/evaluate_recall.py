"""`gindex evaluate recall`: are the documents found that state what a query asks for?"""

from pathlib import Path
from typing import Any

import click

from gindex.lab.evaluations.config import RankingsConfig

from .command import GindexCommand
from .lab_options import index_argument, index_options, open_index, picture_option, ranking_options, report_options
from .options import made, option
from .progress import terminal_progress
from .queries import read_sought
from .reports import check_report, deliver


@click.command(cls=GindexCommand)
@index_argument
@option(
    "--queries",
    type=click.Path(path_type=Path),
    required=True,
    help="JSON lines, each a query of any form, and in documents the ids of those that state the answer.",
)
@ranking_options(RankingsConfig)
@index_options
@picture_option
@report_options()
def recall(index: Path, queries: Path, **given: Any) -> None:
    """Look in INDEX for the documents that are known to state what each query asks for.

    Prints which share of them is among the first k, and the mean reciprocal rank of the first (MRR). Intervals are 95%,
    by bootstrap over the queries.

    \b
    Example:
        gindex evaluate recall runs/facts --queries facts.jsonl
        gindex evaluate recall runs/facts --queries facts.jsonl --method index --method exact --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = made(RankingsConfig, given)
    sought = read_sought(queries)
    check_report(given)

    from gindex.lab.evaluations.recall import evaluate_recall, recall_report
    from gindex.lab.report import Source

    opened = open_index(index, given)
    measured = evaluate_recall(opened, sought, config, terminal_progress())
    deliver(recall_report(measured, Source.of(opened)), given)
