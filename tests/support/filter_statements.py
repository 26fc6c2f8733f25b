"""What filters ask of SQLite."""

from gindex.documents.filters import parse_filter
from gindex.documents.selection import filtered_parts
from gindex.documents.table import DocumentTable


def statements(table: DocumentTable, text: str) -> list[str]:
    """The statements that a filter runs."""
    told: list[str] = []
    (file,) = table.files
    file.connection.set_trace_callback(told.append)
    filtered_parts(table, parse_filter(text))
    file.connection.set_trace_callback(None)
    return told
