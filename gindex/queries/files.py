"""Files of queries: JSON lines, each a query of any form."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gindex.corpus.json_values import parse_json
from gindex.errors import QueryError
from gindex.queries.query import Query
from gindex.queries.records import read_query


def read_queries(path: Path, also: Sequence[str] = ()) -> list[Query]:
    """Read queries of any form from JSON lines; see `gindex.queries.records`.

    Args:
        path: The file.
        also: Other fields that may be there, and are not read.

    Raises:
        QueryError: The file is missing, or a line is no query; names file and line.
    """
    return [query_of_line(path, number, line, also) for number, line in query_lines(path)]


def query_lines(path: Path) -> list[tuple[int, str]]:
    """Lines of a file that are not blank, with their numbers from 1.

    Raises:
        QueryError: The file is missing, is not UTF-8, or has no such line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # a string may hold what splitlines() splits at
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(field=path, expected="a file of queries", found=error, remedy="check `queries`") from error
    found = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise QueryError(field=path, expected="at least one query", found="none", remedy="write one JSON object a line")
    return found


def query_of_line(path: Path, number: int, line: str, also: Sequence[str] = ()) -> Query:
    """The query of one line of a file.

    Raises:
        QueryError: It is none; names file and line.
    """
    return read_query(parse_line(path, number, line), f"{path}:{number}", also)


def parse_line(path: Path, number: int, line: str) -> Any:
    """The JSON value of one line of a file.

    Raises:
        QueryError: It is none; names file and line.
    """
    try:
        return parse_json(line)
    except (ValueError, RecursionError) as error:
        raise QueryError(field=f"{path}:{number}", expected="a JSON object", found=error) from error
