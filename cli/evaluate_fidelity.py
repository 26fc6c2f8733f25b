"""`gindex evaluate fidelity`: how far the scores of an index can be trusted."""

from pathlib import Path
from typing import Any

import click

from gindex.lab.evaluations.config import FidelitySampleConfig
from gindex.queries.files import read_queries

from .command import GindexCommand
from .lab_options import index_argument, index_options, open_index, picture_option, queries_option, report_options
from .options import made, settings
from .progress import terminal_progress
from .reports import check_report, deliver


@click.command(cls=GindexCommand)
@index_argument
@queries_option
@settings(FidelitySampleConfig)
@index_options
@picture_option
@report_options()
def fidelity(index: Path, queries: Path | None, **given: Any) -> None:
    """Compare the scores of INDEX with exact EK-FAC influence on its own documents.

    Influence is recomputed without projection for every part that is ranked, so this takes as long as passing over
    them. Intervals are 95%, by bootstrap over the queries.

    \b
    Example:
        gindex evaluate fidelity runs/corpus
        gindex evaluate fidelity runs/corpus --queries held-out.jsonl --parts 2000 --json
        gindex evaluate fidelity runs/corpus --sample 32 --plot fidelity.png
    """  # noqa: D301 \b keeps click from wrapping the lines
    config = made(FidelitySampleConfig, given)
    asked = read_queries(queries) if queries is not None else None
    check_report(given)

    from gindex.lab.evaluations.fidelity import fidelity_report
    from gindex.lab.report import Source

    opened = open_index(index, given)
    measured = opened.fidelity(
        asked, sample=config.sample, parts=config.parts, seed=config.seed, progress=terminal_progress()
    )
    deliver(fidelity_report(measured, Source.of(opened)), given)
