"""`gindex evaluate poison`: are planted documents found from one bad output?"""

from pathlib import Path
from typing import Any

import click

from gindex.lab.evaluations.config import RankingsConfig
from gindex.queries.files import read_queries

from .command import GindexCommand
from .lab_options import index_argument, index_options, open_index, picture_option, ranking_options, report_options
from .options import made, option
from .progress import terminal_progress
from .reports import check_report, deliver


@click.command(cls=GindexCommand)
@index_argument
@option(
    "--queries",
    type=click.Path(path_type=Path),
    required=True,
    help="JSON lines, each a query of any form: bad outputs of the model. One is enough.",
)
@option("--where", required=True, help='Filter that the planted documents alone pass, as "planted = true".')
@ranking_options(RankingsConfig)
@index_options
@picture_option
@report_options()
def poison(index: Path, queries: Path, where: str, **given: Any) -> None:
    """Look in INDEX for planted documents, from the bad outputs that they cause.

    Prints the share of other documents that rank below a planted one (AUC, with its 95% interval by bootstrap over the
    planted ones), how many of the first are planted, looking at as many as were planted, and the rank of the first.

    \b
    Example:
        gindex evaluate poison runs/poisoned --queries bad.jsonl --where "planted = true"
        gindex evaluate poison runs/poisoned --queries bad.jsonl --where "planted = true" --method exact --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = made(RankingsConfig, given)
    asked = read_queries(queries)
    check_report(given)

    from gindex.lab.evaluations.poison import evaluate_poison, poison_report
    from gindex.lab.report import Source

    opened = open_index(index, given)
    measured = evaluate_poison(opened, asked, where, config, terminal_progress())
    deliver(poison_report(measured, Source.of(opened)), given)
