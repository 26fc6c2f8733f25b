"""`gindex search`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gindex.errors import QueryError

from .command import GindexCommand
from .progress import terminal_progress
from .render import result_text

if TYPE_CHECKING:
    from gindex.search.hit import Query


@click.command(cls=GindexCommand)
@click.argument("index", type=click.Path(path_type=Path))
@click.argument("prompt", required=False)
@click.option(
    "--completion", help="What the model said after PROMPT: only its tokens count. Without it all of PROMPT counts."
)
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    help="JSON lines with id, prompt and completion: many queries at once.",
)
@click.option("-k", "--top", type=click.IntRange(min=1), default=10, show_default=True, help="Documents to return.")
@click.option(
    "--negative", is_flag=True, help="Show the most negative influence: training on these made it less likely."
)
@click.option("--exact", is_flag=True, help="Re-rank the best candidates by recomputed, unprojected EK-FAC influence.")
@click.option(
    "--candidates", type=click.IntRange(min=1), default=100, show_default=True, help="Parts that --exact re-ranks."
)
@click.option("--model", help="Folder or hub name of the model, where it has moved since the build.")
@click.option("--device", default="auto", show_default=True, help="Device of the passes: auto, cpu, cuda, ...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a query.")
def search(
    index: Path,
    prompt: str | None,
    completion: str | None,
    queries: Path | None,
    top: int,
    negative: bool,
    exact: bool,
    candidates: int,
    model: str | None,
    device: str,
    as_json: bool,
) -> None:
    """Print the documents of INDEX with the most influence on PROMPT.

    A score is the inner product of the query's and the document's vectors. Positive means that training on the document
    raises the query's log-likelihood. Scores compare within a query; they are not divided by the number of documents.

    \b
    Example:
        gindex search runs/corpus "A compiler is" --completion " a program" -k 5
        gindex search runs/corpus "A compiler is" --completion " a program" --exact --candidates 50
        gindex search runs/corpus --queries queries.jsonl --json
    """  # noqa: D301 \b keeps click from wrapping the lines
    if (prompt is None) == (queries is None):
        raise click.UsageError("Give either PROMPT or --queries.")
    if queries is not None and completion is not None:
        raise click.UsageError("--completion goes with PROMPT; with --queries it is a field of each line.")
    asked = read_queries(queries) if queries is not None else [_query(prompt or "", completion)]

    from gindex.index import GradientIndex, result_record

    results = GradientIndex.open(index, model=model, device=device).search_many(
        asked, k=top, negative=negative, exact=exact, candidates=candidates, progress=terminal_progress()
    )
    for position, result in enumerate(results):
        if as_json:
            click.echo(json.dumps(result_record(result), ensure_ascii=False))
        else:
            click.echo(("\n" if position else "") + result_text(result))


def _query(prompt: str, completion: str | None) -> "Query":
    from gindex.search.hit import Query

    return Query(prompt=prompt, completion=completion)


def read_queries(path: Path) -> "list[Query]":
    """Read queries from JSON lines with the fields `id` (optional), `prompt` and `completion` (optional).

    Raises:
        QueryError: The file is missing, or a line is not such an object; names file and line.
    """
    from gindex.search.hit import Query

    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a string may hold what splitlines() splits at
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"{path}: expected a file of queries, found {error}; check --queries") from error
    queries = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            content = _parse(path, number, line)
            queries.append(Query(prompt=content["prompt"], completion=content.get("completion"), id=content.get("id")))
    if not queries:
        raise QueryError(f"{path}: expected at least one query, found none; write one JSON object a line")
    return queries


def _parse(path: Path, number: int, line: str) -> dict[str, str]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise QueryError(f"{path}:{number}: expected a JSON object, found {error}") from error
    known = {"id", "prompt", "completion"}
    if not isinstance(content, dict) or "prompt" not in content or not content.keys() <= known:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise QueryError(
            f"{path}:{number}: expected an object with prompt and perhaps id and completion, found {found}"
        )
    for field, value in content.items():
        if not isinstance(value, str) and not (value is None and field != "prompt"):
            raise QueryError(f"{path}:{number}: expected text in {field}, found {type(value).__name__}")
    return content
