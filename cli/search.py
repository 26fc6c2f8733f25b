"""`gindex search`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gindex.queries.files import read_queries
from gindex.search_options import AGGREGATES, INDEX, LOOK_FOR, OUTPUT, REFINERS, SearchOptions

from .command import GindexCommand
from .early_checks import check_asked
from .kinds import kind_options, kind_settings
from .options import (
    FOLDER,
    base_option,
    device_option,
    is_address,
    key_option,
    made,
    model_option,
    opening,
    option,
    permission_options,
    setting,
    settings,
)
from .progress import terminal_progress
from .queries import read_each
from .query_options import check_one_asked, made_query, query_options
from .render import failure_text, fidelity_text, json_text, result_text, timing_text
from .wording import error_text

if TYPE_CHECKING:
    from gindex.queries.query import FailedQuery, Query
    from gindex.search.result import Outcome


@click.command(cls=GindexCommand)
@click.argument("index")
@click.argument("prompt", required=False)
@query_options
@option(
    "--queries",
    type=click.Path(path_type=Path),
    group=LOOK_FOR,
    help="JSON lines in the place of PROMPT, each a query of any form: id, prompt, completion, contrast and span; "
    "messages; input_ids and labels; or chosen and rejected. A query that fails is reported in its place and the "
    "others are answered; the exit code is then that of the first that failed.",
)
@option(
    "--aggregate",
    type=click.Choice(AGGREGATES),
    group=LOOK_FOR,
    needs=("queries",),
    unset="each is answered by itself",
    help="Ask all of --queries as one query: their mean or sum, each times its field weight.",
)
@setting(SearchOptions, "k", "-k", "--top")
@settings(SearchOptions, leave_out=("k",))
@kind_options(REFINERS, "refine")
@option("--json", "as_json", is_flag=True, group=OUTPUT, help="Print one JSON object a query.")
@model_option
@base_option
@device_option
@permission_options
@option(
    "--allow-degraded",
    is_flag=True,
    group=INDEX,
    needs=(FOLDER,),
    help="Search what is left where vectors are lost or damaged, and say so.",
)
@key_option
@click.pass_context
def search(
    ctx: click.Context,
    /,
    index: str,
    prompt: str | None,
    queries: Path | None,
    aggregate: str | None,
    model: str | None,
    device: str,
    allow_degraded: bool,
    api_key: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Print the documents with the most influence on what a model says.

    INDEX is a folder or http://host:port/name; PROMPT is the text that the model is given.

    A score is the inner product of the query's and the document's vectors. Positive means that training on the document
    raises the query's log-likelihood. Scores compare within a query; they are not divided by the number of documents.

    \b
    Example:
        gindex search runs/corpus "A compiler is" --completion " a program" -k 5
        gindex search runs/corpus "A compiler is" --completion " a program" --exact --candidates 50
        gindex search http://127.0.0.1:8080/corpus "A compiler is" --completion " a program"
        gindex search runs/corpus --queries queries.jsonl --json
        gindex search runs/corpus --queries queries.jsonl --aggregate mean
        gindex search runs/corpus "A compiler is" --completion " a program" --contrast " a person"
        gindex search runs/corpus --messages conversation.json --span 0:12
        gindex search runs/corpus "A compiler is" --where "year >= 1990 and not author in ('esr', 'rms')"
        gindex search runs/corpus "A compiler is" --words rank --hits document --dedupe 0.9 --layers
        gindex search runs/corpus "A compiler is" --completion " a program" --group-by source
        gindex search runs/corpus "A compiler is" --words filter --words-text "pascal fortran"
    """  # noqa: D301 \b keeps click from wrapping the lines
    check_one_asked(prompt, given, queries, named="PROMPT, --messages, --image, --document and --queries")
    if queries is not None and given["completion"] is not None:
        raise click.UsageError("--completion goes with PROMPT; with --queries it is a field of each line.")
    options = made(SearchOptions, given, refine_settings=kind_settings(REFINERS, "refine", given))
    asked = [made_query(prompt, given)] if queries is None else _read(queries, aggregate)

    from gindex.queries.query import FailedQuery
    from gindex.search.result import answered

    if is_address(index):
        found, fidelity, problems = _ask_service(index, api_key, _readable(asked), options)
    else:
        found, fidelity, problems = _ask_folder(index, model, device, allow_degraded, _readable(asked), options)
    if queries is None or aggregate is not None:
        answered(found)  # a query by itself fails as every command does
    outcomes = [query if isinstance(query, FailedQuery) else found.pop(0) for query in asked]
    for position, outcome in enumerate(outcomes):
        click.echo(_json(outcome, problems) if as_json else ("\n" if position else "") + _text(outcome))
    if not as_json:
        results = [outcome for outcome in outcomes if not isinstance(outcome, FailedQuery)]
        if results:
            click.echo(f"\n{timing_text(results)}")
        click.echo(f"index fidelity: {fidelity_text(fidelity)}")
        for warning in _warnings(outcomes):
            click.echo(f"gindex: warning: {warning}", err=True)
    _end(ctx, outcomes)


def _readable(asked: "Sequence[Query | FailedQuery]") -> "list[Query]":
    from gindex.queries.query import Query

    return [query for query in asked if isinstance(query, Query)]


def _json(outcome: "Outcome", problems: tuple[str, ...]) -> str:
    from gindex.search.result import SearchResult, failure_record, result_record

    record = result_record(outcome) if isinstance(outcome, SearchResult) else failure_record(outcome)
    return json_text(record | ({"degraded": list(problems)} if problems else {}))


def _text(outcome: "Outcome") -> str:
    from gindex.search.result import SearchResult

    return result_text(outcome) if isinstance(outcome, SearchResult) else failure_text(outcome)


def _warnings(outcomes: "list[Outcome]") -> set[str]:
    """Warnings of how little of the model is tracked, each once."""
    from gindex.search.result import SearchResult

    told = [outcome.coverage for outcome in outcomes if isinstance(outcome, SearchResult)]
    return {coverage.warning for coverage in told if coverage is not None and coverage.warning is not None}


def _end(ctx: click.Context, outcomes: "list[Outcome]") -> None:
    """Say which queries failed, and end with the exit code of the first of them."""
    from gindex.queries.query import FailedQuery

    failed = [outcome for outcome in outcomes if isinstance(outcome, FailedQuery)]
    if failed:
        number = next(n for n, outcome in enumerate(outcomes, start=1) if outcome is failed[0])
        have = "has no answer," if len(failed) == 1 else "have no answer, the first"
        which = f"{len(failed)} of {len(outcomes)} queries {have} number {number}: " if len(outcomes) > 1 else ""
        click.echo(f"gindex: {which}{error_text(failed[0].error)}", err=True)
        ctx.exit(failed[0].error.exit_code)


def _ask_service(
    url: str, api_key: str | None, asked: "list[Query]", options: SearchOptions
) -> "tuple[list[Outcome], dict[str, Any] | None, tuple[str, ...]]":
    from gindex.client import Client

    with Client(url, api_key=api_key) as client:
        return client.search_each(asked, options, progress=terminal_progress()), client.info()["fidelity"], ()


def _ask_folder(
    folder: str, model: str | None, device: str, allow_degraded: bool, asked: "list[Query]", options: SearchOptions
) -> "tuple[list[Outcome], dict[str, Any] | None, tuple[str, ...]]":
    check_asked(Path(folder), options.where)

    from gindex.index import GradientIndex
    from gindex.store.values import values_of

    opened = GradientIndex.open(folder, model=model, device=device, allow_degraded=allow_degraded, **opening())
    for problem in opened.problems:
        click.echo(f"gindex: degraded, answers lack documents: {problem}", err=True)
    results = opened.search_each(asked, options, progress=terminal_progress())
    return results, values_of(opened.manifest.fidelity), opened.problems


def _read(path: Path, aggregate: str | None) -> "Sequence[Query | FailedQuery]":
    from gindex.queries.query import Query

    return read_each(path) if aggregate is None else [Query(queries=read_queries(path), aggregate=aggregate)]
