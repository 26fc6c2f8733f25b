"""`gindex score`."""

from pathlib import Path
from typing import Any

import click

from gindex.queries.files import read_queries
from gindex.search_options import LOOK_FOR, OUTPUT, ScoreOptions

from .command import GindexCommand
from .early_checks import check_asked
from .options import (
    base_option,
    device_option,
    json_option,
    made,
    model_option,
    opening,
    option,
    permission_options,
    settings,
)
from .progress import terminal_progress
from .render import counted, json_text, size


@click.command(cls=GindexCommand)
@click.argument("index", type=click.Path(path_type=Path))
@option(
    "--queries",
    type=click.Path(path_type=Path),
    group=LOOK_FOR,
    required=True,
    help="JSON lines, each a query of any form, as in gindex search. A query goes by its id in the file, or by its "
    "number from 0.",
)
@settings(ScoreOptions)
@option(
    "--out",
    type=click.Path(path_type=Path),
    group=OUTPUT,
    required=True,
    help="File to write. NAME.parquet: a row a document, a column a query. NAME.jsonl: a line a document. NAME.npy: "
    "float32 [queries, documents], with the ids of both in NAME.npy.json.",
)
@json_option
@model_option
@base_option
@device_option
@permission_options
def score(index: Path, queries: Path, out: Path, as_json: bool, model: str | None, device: str, **given: Any) -> None:
    """Write the score of every document for every query into a file.

    What is done so far is in OUT.unfinished: after a kill or a power loss, the same command goes on there, and OUT is
    the same byte for byte.

    \b
    Example:
        gindex score runs/corpus --queries queries.jsonl --out scores.parquet
        gindex score runs/corpus --queries queries.jsonl --out scores.npy --where "source = 'web'" --normalise relatif
        gindex score runs/corpus --queries queries.jsonl --out influence.jsonl --exact --hits part
    """  # noqa: D301 \b keeps click from wrapping the lines
    options = made(ScoreOptions, given)
    asked = read_queries(queries)
    check_asked(index, options.where)

    from dataclasses import asdict

    from gindex.index import GradientIndex

    opened = GradientIndex.open(index, model=model, device=device, **opening())
    file = opened.write_scores(asked, out, options, progress=terminal_progress())
    if as_json:
        click.echo(json_text(asdict(file)))
        return
    what = "exact influence" if file.exact else "scores"
    before = f", {file.resumed:.0%} of it by an earlier run" if file.resumed else ""
    asked_for = "1 query" if file.queries == 1 else f"{file.queries:,} queries"
    click.echo(f"{file.path}: {what} of {counted(file.count, file.hits)} for {asked_for}, {size(file.bytes)}{before}")
