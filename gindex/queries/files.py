"""Files of queries: JSON lines, each a query of any form."""

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gindex.corpus.json_values import parse_json
from gindex.corpus.picture_pieces import with_located_pictures
from gindex.errors import QueryError
from gindex.queries.query import Query
from gindex.queries.records import read_query

LONGEST_PATH = 1024
"""Characters of a path that is looked for; what is longer is a picture itself."""

_CONVERSATIONS = ("messages", "conversations", "prompt", "completion", "contrast")


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
    record = with_picture_files(parse_line(path, number, line), path.parent)
    return read_query(record, f"{path}:{number}", also)


def with_picture_files(record: Any, folder: Path) -> Any:
    """A query's record with the bytes of the pictures in base64 that its messages name by paths, from a folder on.

    What names no file stays as it is.

    Raises:
        QueryError: A file cannot be read.
    """
    if not isinstance(record, dict):
        return record
    return {
        name: with_located_pictures(value, folder, _as_base64) if name in _CONVERSATIONS else value
        for name, value in record.items()
    }


def _as_base64(value: Any, folder: Path) -> Any:
    """The bytes of a picture's file in base64; of anything else than its path, as it is."""
    if not isinstance(value, str) or value.startswith("data:") or len(value) > LONGEST_PATH:
        return value
    try:
        return b64encode((folder / value).read_bytes()).decode() if (folder / value).is_file() else value
    except OSError as error:
        raise QueryError(field=value, expected="a file of a picture", found=error.strerror) from error


def parse_line(path: Path, number: int, line: str) -> Any:
    """The JSON value of one line of a file.

    Raises:
        QueryError: It is none; names file and line.
    """
    try:
        return parse_json(line)
    except (ValueError, RecursionError) as error:
        raise QueryError(field=f"{path}:{number}", expected="a JSON object", found=error) from error
