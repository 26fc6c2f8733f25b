"""`gindex evaluate tail-patch`: does a training step on a document make the target more likely?"""

from pathlib import Path
from typing import Any

import click

from gindex.lab.evaluations.config import TailPatchConfig
from gindex.queries.files import read_queries

from .command import GindexCommand
from .lab_options import index_argument, index_options, open_index, picture_option, ranking_options, report_options
from .options import made, option, setting
from .progress import terminal_progress
from .reports import check_report, deliver


@click.command("tail-patch", cls=GindexCommand)
@index_argument
@option(
    "--queries",
    type=click.Path(path_type=Path),
    required=True,
    help="JSON lines, each a query of any form.",
)
@setting(TailPatchConfig, "k", "-k", "--top")
@option("--work", type=click.Path(path_type=Path), help="Folder that keeps finished steps, to go on from there.")
@ranking_options(TailPatchConfig)
@index_options
@picture_option
@report_options()
def tail_patch(index: Path, queries: Path, work: Path | None, **given: Any) -> None:
    """Take one optimiser step on each of the best documents of INDEX; print the change of the target's log-likelihood.

    Each step starts from the model as it is. The target is the query's completion, or all of it. Intervals are 95%, by
    bootstrap over the queries. A random choice says what a step on any document does.

    \b
    Example:
        gindex evaluate tail-patch runs/corpus --queries held-out.jsonl -k 10
        gindex evaluate tail-patch runs/corpus --queries held-out.jsonl --method exact --method random --work runs/patch
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = made(TailPatchConfig, given)
    asked = read_queries(queries, also=["documents"])  # of files for `gindex evaluate recall`
    check_report(given)

    from gindex.lab.evaluations.tail_patch import evaluate_tail_patch, tail_patch_report
    from gindex.lab.report import Source

    opened = open_index(index, given)
    measured = evaluate_tail_patch(opened, asked, config, terminal_progress(), work)
    deliver(tail_patch_report(measured, Source.of(opened)), given)
