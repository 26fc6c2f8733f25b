"""Files of queries and of messages that commands read."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gindex.corpus.json_values import parse_json
from gindex.errors import QueryError
from gindex.queries.records import read_query

if TYPE_CHECKING:
    from gindex.lab.evaluations.recall import Sought
    from gindex.queries.query import FailedQuery, Query


def read_queries(path: Path, also: Sequence[str] = ()) -> "list[Query]":
    """Read queries of any form from JSON lines; see `gindex.queries.records`.

    Args:
        path: The file.
        also: Other fields that may be there, and are not read.

    Raises:
        QueryError: The file is missing, or a line is no query; names file and line.
    """
    return [_query(path, number, line, also) for number, line in _numbered(path)]


def read_each(path: Path) -> "list[Query | FailedQuery]":
    """Read queries as `read_queries` does; in the place of a line that is none stands a `FailedQuery`.

    Raises:
        QueryError: The file is missing, or no line of it is a query.
    """
    from gindex.queries.query import FailedQuery, Query

    found: list[Query | FailedQuery] = []
    for number, line in _numbered(path):
        try:
            found.append(_query(path, number, line))
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
    for number, line in _numbered(path):
        query = _query(path, number, line, ("documents",))
        documents = _parse(path, number, line).get("documents")
        if not isinstance(documents, list) or not documents or not all(isinstance(name, str) for name in documents):
            raise QueryError(
                field=f"{path}:{number}", expected="a list of ids of documents in documents", found=repr(documents)
            )
        sought.append(Sought(query=query, documents=tuple(dict.fromkeys(documents))))
    return sought


def read_messages(path: Path) -> dict[str, Any]:
    """Read a conversation: the fields of a query that it gives, `messages` and perhaps `tools`.

    Args:
        path: A file of JSON, `-` for the standard input: a list of messages, or an object with them and perhaps tools.

    Raises:
        QueryError: There is no such file, or no such content.
    """
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8-sig")
        content = parse_json(text)
    except (OSError, ValueError, RecursionError) as error:
        raise QueryError(field=path, expected="a file of messages in JSON", found=error) from error
    found = {"messages": content} if isinstance(content, list) else content
    names = {"messages", "conversations", "tools"}
    if not isinstance(found, dict) or found.keys() <= {"tools"} or not found.keys() <= names:
        raise QueryError(
            field=path,
            expected="a list of messages, or an object with messages and perhaps tools",
            found=f"the fields {', '.join(sorted(found))}" if isinstance(found, dict) else "something else",
        )
    query = read_query(found, str(path))
    return {"messages": query.messages, "tools": query.tools}


def _query(path: Path, number: int, line: str, also: Sequence[str] = ()) -> "Query":
    return read_query(_parse(path, number, line), f"{path}:{number}", also)


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


def _parse(path: Path, number: int, line: str) -> Any:
    try:
        return parse_json(line)
    except (ValueError, RecursionError) as error:
        raise QueryError(field=f"{path}:{number}", expected="a JSON object", found=error) from error
