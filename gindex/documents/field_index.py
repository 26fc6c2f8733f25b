"""The index of some fields of a document table: which documents have which values, in a file beside it.

    fields(number, names)                             names within names, as a JSON array
    field_values(field, key, block, documents)        by `field_keys`; documents in steps of BLOCK, uint16 from there on
    part_counts(block, counts)                        parts of each document of a block, uint32

Documents are numbered from the first one of the table. Everything in it is derived from the table. With it a filter is
answered without the table, whose metadata lie between the texts.

Axes: D documents of the table, P their parts.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.documents.comparisons import Names, Sql
from gindex.documents.conditions import NULL, Comparison
from gindex.documents.field_keys import ABSENT, KNOWN, TEXTS, key_range
from gindex.documents.schema import APPLICATION_ID, asked_errors, limited
from gindex.documents.sqlite_file import SQLiteFile
from gindex.documents.values import Value
from gindex.thread_safety import Lock, once

BLOCK = 1 << 16
"""Documents that a row is of at most: as many as 16 bits tell apart."""

SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = 1;
CREATE TABLE fields(number INTEGER PRIMARY KEY, names TEXT NOT NULL UNIQUE);
CREATE TABLE field_values(
    field INTEGER NOT NULL, key BLOB NOT NULL, block INTEGER NOT NULL, documents BLOB NOT NULL,
    PRIMARY KEY (field, key, block)
) WITHOUT ROWID;
CREATE TABLE part_counts(block INTEGER PRIMARY KEY, counts BLOB NOT NULL);
"""

Mask = npt.NDArray[np.bool_]


class FieldIndex(SQLiteFile):
    """The index of a table's fields, opened for reading.

    Attributes:
        first_document: Ordinal of the table's first document.
    """

    def __init__(self, path: Path, check: Callable[[], object], first_document: int, first_part: int) -> None:
        """Take the file.

        Args:
            path: The file.
            check: Compares it with its checksum, once.
            first_document: Ordinal of the table's first document.
            first_part: Ordinal of its first part.
        """
        super().__init__(path, Lock())
        self.first_document, self._first_part, self._check = first_document, first_part, check

    @once
    def fields(self) -> dict[Names, int]:
        """The indexed fields, and their numbers in the file."""
        return {tuple(json.loads(names)): number for number, names in self._rows("SELECT number, names FROM fields")}

    @once
    def part_counts_D(self) -> npt.NDArray[np.int64]:  # noqa: N802  axes
        """The number of parts of each document [D]."""
        blocks = self._rows("SELECT counts FROM part_counts ORDER BY block")
        return np.concatenate([np.frombuffer(counts, "<u4") for (counts,) in blocks]).astype(np.int64)

    def parts(self, mask_D: Mask) -> npt.NDArray[np.int64]:
        """Ordinals of the parts [P] of some documents, ascending."""
        return np.flatnonzero(np.repeat(mask_D, self.part_counts_D)) + self._first_part

    def knows(self, names: Names) -> bool:
        """Whether a document has an indexed field, null or not."""
        return bool(self._rows(f"SELECT 1 {_IN_RANGE} LIMIT 1", (self.fields[names], *KNOWN)))

    def mask(self, comparison: Comparison, seconds: float | None = None) -> Mask:
        """The documents [D] for which a comparison of an indexed field holds.

        Args:
            comparison: The comparison.
            seconds: Longest time that a statement may take; None for no limit.
        """
        field, operator = self.fields[comparison.column.names or ()], comparison.operator
        if operator == "like":
            return self._like(field, str(comparison.values[0]), seconds)
        ranges = [key_range("=" if operator == "!=" else operator, value) for value in comparison.values]
        if operator in ("!=", NULL):
            ranges.append(ABSENT)
        rows = [row for bounds in ranges for row in self._rows(_SELECT, (field, *bounds), seconds)]
        return ~self._mask(rows) if operator == "!=" else self._mask(rows)

    def _like(self, field: int, pattern: str, seconds: float | None) -> Mask:
        exact = Sql("gindex_holds(substr(key, 2), 'like', ?)", (json.dumps(pattern),))
        if "\0" in pattern:  # LIKE ends both at a NUL
            alike = exact
        else:
            text = f"CASE WHEN instr(key, x'00') THEN {exact.text} ELSE CAST(substr(key, 2) AS TEXT) LIKE ? END"
            alike = Sql(text, (*exact.parameters, pattern))
        parameters = (field, *TEXTS, *alike.parameters)
        return self._mask(self._rows(f"{_SELECT} AND {alike.text}", parameters, seconds))

    def _mask(self, rows: Sequence[tuple[int, bytes]]) -> Mask:
        """The documents [D] of rows of `field_values`: their blocks, and which of each."""
        sizes = np.fromiter((len(documents) // 2 for _, documents in rows), np.int64, len(rows))
        starts = np.fromiter((block * BLOCK for block, _ in rows), np.int64, len(rows))
        places = np.frombuffer(b"".join(documents for _, documents in rows), "<u2")
        mask_D = np.zeros(len(self.part_counts_D), bool)
        mask_D[np.repeat(starts, sizes) + places] = True
        return mask_D

    def _rows(
        self, statement: str, parameters: Sequence[Value | bytes] = (), seconds: float | None = None
    ) -> list[Any]:
        with self.loading, asked_errors(self.path), limited(self.connection, seconds):
            self._check()
            return self.connection.execute(statement, parameters).fetchall()


_IN_RANGE = "FROM field_values WHERE field = ? AND key >= ? AND key < ?"
_SELECT = f"SELECT block, documents {_IN_RANGE}"
