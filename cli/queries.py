"""Files that commands read beside those of `gindex.queries.files`: queries that may fail, or are sought; messages."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gindex.corpus.json_values import parse_json
from gindex.errors import QueryError
from gindex.queries.files import parse_line, query_lines, query_of_line, with_picture_files
from gindex.queries.query import FailedQuery, Query
from gindex.queries.records import read_query

if TYPE_CHECKING:
    from gindex.lab.evaluations.recall import Sought


def read_each(path: Path) -> list[Query | FailedQuery]:
    """Read queries from JSON lines; in the place of a line that is none stands a `FailedQuery`.

    Raises:
        QueryError: The file is missing, or no line of it is a query.
    """
    found: list[Query | FailedQuery] = []
    for number, line in query_lines(path):
        try:
            found.append(query_of_line(path, number, line))
        except QueryError as error:
            found.append(FailedQuery(query=Query(prompt="", id=f"line {number}"), error=error))
    if not any(isinstance(each, Query) for each in found):
        raise next(each.error for each in found if isinstance(each, FailedQuery))
    return found


def read_sought(path: Path) -> "list[Sought]":
    """Read queries that have the ids of the documents that state their answer in the field `documents`.

    Raises:
        QueryError: See `gindex.queries.files.read_queries`; or a query names no document.
    """
    from gindex.lab.evaluations.recall import Sought

    sought = []
    for number, line in query_lines(path):
        query = query_of_line(path, number, line, ("documents",))
        documents = parse_line(path, number, line).get("documents")
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
    query = read_query(with_picture_files(found, Path() if str(path) == "-" else path.parent), str(path))
    return {"messages": query.messages, "tools": query.tools}
