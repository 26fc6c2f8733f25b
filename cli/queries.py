"""Query files: JSON lines that commands read."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gindex.corpus.json_values import parse_json
from gindex.errors import QueryError

if TYPE_CHECKING:
    from gindex.lab.evaluations.recall import Sought
    from gindex.queries.query import FailedQuery, Query

FIELDS = {"id", "prompt", "completion"}
"""What a query may say."""


def read_queries(path: Path, also: Collection[str] = ()) -> "list[Query]":
    """Read queries from JSON lines with the fields `id` (optional), `prompt` and `completion` (optional).

    Args:
        path: The file.
        also: Other fields that may be there, and are not read.

    Raises:
        QueryError: The file is missing, or a line is not such an object; names file and line.
    """
    return [_query(content) for _, content in _lines(path, {*FIELDS, *also})]


def read_each(path: Path) -> "list[Query | FailedQuery]":
    """Read queries as `read_queries` does; in the place of a line that is none stands a `FailedQuery`.

    Raises:
        QueryError: The file is missing, or no line of it is a query.
    """
    from gindex.queries.query import FailedQuery, Query

    found: list[Query | FailedQuery] = []
    for number, line in _numbered(path):
        try:
            found.append(_query(_parse(path, number, line, FIELDS)))
        except QueryError as error:
            found.append(FailedQuery(query=Query(prompt="", id=f"line {number}"), error=error))
    if not any(isinstance(each, Query) for each in found):
        raise next(each.error for each in found if isinstance(each, FailedQuery))
    return found


def read_sought(path: Path) -> "list[Sought]":
    """Read queries that have the ids of the documents that state their answer in the field `documents`.

    Raises:
        QueryError: See `read_queries`; or a query names no document.
    """
    from gindex.lab.evaluations.recall import Sought

    sought = []
    for number, content in _lines(path, {*FIELDS, "documents"}):
        documents = content.get("documents")
        if not isinstance(documents, list) or not documents or not all(isinstance(name, str) for name in documents):
            raise QueryError(
                field=f"{path}:{number}", expected="a list of ids of documents in documents", found=repr(documents)
            )
        sought.append(Sought(query=_query(content), documents=tuple(dict.fromkeys(documents))))
    return sought


def _query(content: dict[str, Any]) -> "Query":
    from gindex.queries.query import Query

    return Query(prompt=content["prompt"], completion=content.get("completion"), id=content.get("id"))


def _lines(path: Path, known: set[str]) -> list[tuple[int, dict[str, Any]]]:
    return [(number, _parse(path, number, line, known)) for number, line in _numbered(path)]


def _numbered(path: Path) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a string may hold what splitlines() splits at
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(field=path, expected="a file of queries", found=error, remedy="check --queries") from error
    found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise QueryError(field=path, expected="at least one query", found="none", remedy="write one JSON object a line")
    return found


def _parse(path: Path, number: int, line: str, known: set[str]) -> dict[str, Any]:
    try:
        content = parse_json(line)
    except (ValueError, RecursionError) as error:
        raise QueryError(field=f"{path}:{number}", expected="a JSON object", found=error) from error
    if not isinstance(content, dict) or "prompt" not in content or not content.keys() <= known:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        more = "".join(f", {field}" for field in sorted(known - FIELDS))
        raise QueryError(
            field=f"{path}:{number}", expected=f"an object with prompt and perhaps id and completion{more}", found=found
        )
    for field in FIELDS & content.keys():
        value = content[field]
        if not isinstance(value, str) and not (value is None and field != "prompt"):
            raise QueryError(field=f"{path}:{number}", expected=f"text in {field}", found=type(value).__name__)
    return content
