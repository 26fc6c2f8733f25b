"""Query files: JSON lines that commands read."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from gindex.errors import QueryError

if TYPE_CHECKING:
    from gindex.search.hit import Query


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
