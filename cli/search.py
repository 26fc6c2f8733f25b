"""`gindex search`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gindex.config import (
    CANDIDATE_RANKS,
    GROUP_SCORES,
    GROUPINGS,
    LONG_QUERIES,
    NORMALISATIONS,
    REFINEMENTS,
    SearchOptions,
    default_of,
    help_of,
)

from .command import GindexCommand, check_folder_options, config_option, permission_options, permissions
from .progress import terminal_progress
from .queries import read_each
from .render import failure_text, fidelity_text, json_text, result_text
from .wording import error_text

if TYPE_CHECKING:
    from gindex.queries.query import FailedQuery, Query
    from gindex.search.hit import Outcome


@click.command(cls=GindexCommand)
@click.argument("index")
@click.argument("prompt", required=False)
@click.option(
    "--completion", help="What the model said after PROMPT: only its tokens count. Without it all of PROMPT counts."
)
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    help="JSON lines with id, prompt and completion: many queries at once. One that fails is reported in its place and "
    "the others are answered; the exit code is then that of the first that failed.",
)
@click.option(
    "-k", "--top", "k", type=click.IntRange(min=1), default=default_of(SearchOptions, "k"), show_default=True,
    help=help_of(SearchOptions, "k"),
)  # fmt: skip
@config_option(SearchOptions, "negative", is_flag=True)
@config_option(SearchOptions, "both", is_flag=True)
@config_option(SearchOptions, "exact", is_flag=True)
@config_option(SearchOptions, "candidates", type=click.IntRange(min=1))
@config_option(SearchOptions, "candidates_by", type=click.Choice(CANDIDATE_RANKS))
@config_option(SearchOptions, "refine", type=click.Choice(REFINEMENTS))
@config_option(SearchOptions, "refine_parts", type=click.IntRange(min=0))
@config_option(SearchOptions, "refine_iterations", type=click.IntRange(min=0))
@config_option(SearchOptions, "refine_tolerance", type=float)
@config_option(SearchOptions, "refine_scale", type=float)
@config_option(SearchOptions, "stop_early", type=float, metavar="MISSES")
@config_option(SearchOptions, "shortlist", type=click.IntRange(min=0))
@config_option(SearchOptions, "scan", is_flag=True)
@config_option(SearchOptions, "where", metavar="FILTER")
@config_option(SearchOptions, "bm25", metavar="TEXT")
@config_option(SearchOptions, "bm25_candidates", type=click.IntRange(min=1))
@config_option(SearchOptions, "hybrid", is_flag=True)
@config_option(SearchOptions, "normalise", type=click.Choice(NORMALISATIONS))
@config_option(SearchOptions, "group_by", type=click.Choice(GROUPINGS))
@config_option(SearchOptions, "group_score", type=click.Choice(GROUP_SCORES))
@config_option(SearchOptions, "dedupe", type=float, metavar="COSINE")
@config_option(SearchOptions, "layers", is_flag=True)
@config_option(SearchOptions, "long_queries", type=click.Choice(LONG_QUERIES))
@click.option("--model", help="Folder or hub name of the model, where it has moved since the build.")
@click.option("--device", default="auto", show_default=True, help="Device of the passes: auto, cpu, cuda, ...")
@permission_options
@click.option(
    "--allow-degraded", is_flag=True, help="Search what is left where vectors are lost or damaged, and say so."
)
@click.option("--api-key", envvar="GINDEX_API_KEY", help="Key, where INDEX is at a service that asks for one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a query.")
@click.pass_context
def search(
    ctx: click.Context,
    /,
    index: str,
    prompt: str | None,
    completion: str | None,
    queries: Path | None,
    model: str | None,
    device: str,
    allow_degraded: bool,
    api_key: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Print the documents of INDEX, a folder or http://host:port/name, with the most influence on PROMPT.

    A score is the inner product of the query's and the document's vectors. Positive means that training on the document
    raises the query's log-likelihood. Scores compare within a query; they are not divided by the number of documents.

    \b
    Example:
        gindex search runs/corpus "A compiler is" --completion " a program" -k 5
        gindex search runs/corpus "A compiler is" --completion " a program" --exact --candidates 50
        gindex search runs/corpus "A compiler is" --completion " a program" --exact --refine cg --refine-parts 64
        gindex search http://127.0.0.1:8080/corpus "A compiler is" --completion " a program"
        gindex search runs/corpus --queries queries.jsonl --json
        gindex search runs/corpus "A compiler is" --where "year >= 1990 and not author in ('esr', 'rms')"
        gindex search runs/corpus "A compiler is" --hybrid --group-by document --dedupe 0.9 --layers
    """  # noqa: D301 \b keeps click from wrapping the lines
    if (prompt is None) == (queries is None):
        raise click.UsageError("Give either PROMPT or --queries.")
    if queries is not None and completion is not None:
        raise click.UsageError("--completion goes with PROMPT; with --queries it is a field of each line.")
    options = SearchOptions(**settings)
    asked = read_each(queries) if queries is not None else [_query(prompt or "", completion)]

    from gindex.queries.query import FailedQuery
    from gindex.search.hit import answered

    if index.startswith(("http://", "https://")):
        check_folder_options(index)
        found, fidelity, problems = _ask_service(index, api_key, _readable(asked), options)
    else:
        found, fidelity, problems = _ask_folder(index, model, device, allow_degraded, _readable(asked), options)
    if queries is None:
        answered(found)  # a query by itself fails as every command does
    outcomes = [query if isinstance(query, FailedQuery) else found.pop(0) for query in asked]
    for position, outcome in enumerate(outcomes):
        click.echo(_json(outcome, problems) if as_json else ("\n" if position else "") + _text(outcome))
    if not as_json:
        click.echo(f"index fidelity: {fidelity_text(fidelity)}")
        for warning in _warnings(outcomes):
            click.echo(f"gindex: warning: {warning}", err=True)
    _end(ctx, outcomes)


def _readable(asked: "list[Query | FailedQuery]") -> "list[Query]":
    from gindex.queries.query import Query

    return [query for query in asked if isinstance(query, Query)]


def _json(outcome: "Outcome", problems: tuple[str, ...]) -> str:
    from gindex.search.hit import SearchResult, failure_record, result_record

    record = result_record(outcome) if isinstance(outcome, SearchResult) else failure_record(outcome)
    return json_text(record | ({"degraded": list(problems)} if problems else {}))


def _text(outcome: "Outcome") -> str:
    from gindex.search.hit import SearchResult

    return result_text(outcome) if isinstance(outcome, SearchResult) else failure_text(outcome)


def _warnings(outcomes: "list[Outcome]") -> set[str]:
    """Return what is to be said of how much of the model is tracked, once."""
    from gindex.search.hit import SearchResult

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
    from gindex.index import GradientIndex

    opened = GradientIndex.open(folder, model=model, device=device, allow_degraded=allow_degraded, **permissions())
    for problem in opened.problems:
        click.echo(f"gindex: degraded, answers lack documents: {problem}", err=True)
    results = opened.search_each(asked, options, progress=terminal_progress())
    return results, opened.manifest.fidelity, opened.problems


def _query(prompt: str, completion: str | None) -> "Query | FailedQuery":
    from gindex.queries.query import Query

    return Query(prompt=prompt, completion=completion)
