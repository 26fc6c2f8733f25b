"""What a pass over all parts needs of each without its tokens: its document, its length, what counts in it.

Axes: P parts, in the order of their ordinals.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from gindex.documents.schema import FORMS_VERSION
from gindex.errors import CorruptStoreError

BLOCK = 16384
"""Parts that are read at once."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class PartColumns:
    """Columns of the parts of tables; nobody may write into them.

    Attributes:
        documents_P: Ordinal of each part's document.
        lengths_P: Its tokens, the context included.
        targets_P: Its tokens that count in its loss.
    """

    documents_P: npt.NDArray[np.int64]
    lengths_P: npt.NDArray[np.int64]
    targets_P: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        for column in fields(self):
            getattr(self, column.name).flags.writeable = False

    @classmethod
    def joined(cls, tables: Sequence[Self]) -> Self:
        """Several columns, one after the other."""
        if len(tables) == 1:
            return tables[0]
        names = [column.name for column in fields(cls)]
        return cls(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in names})


def read_columns(connection: sqlite3.Connection, version: int) -> Iterator[PartColumns]:
    """Read the columns of a table in blocks, by an index that has them where its version of gindex made one.

    Args:
        connection: The table.
        version: The version of its format.

    Raises:
        CorruptStoreError: The parts of documents do not follow on each other.
    """
    stored = connection.execute("SELECT ordinal, document, token_count FROM parts ORDER BY document, part")
    following: int | None = None
    while rows := stored.fetchmany(BLOCK):
        columns = np.array(rows, np.int64)
        first, last = int(columns[0, 0]), int(columns[-1, 0])
        if (np.diff(columns[:, 0]) != 1).any() or following not in (None, first):
            raise CorruptStoreError(
                field="parts",
                expected="ordinals that follow on each other, document by document",
                found=f"others from {first} to {last}",
                remedy="restore the table or build the index again",
            )
        following = last + 1
        lengths_P = columns[:, 2].copy()
        targets_P = np.maximum(lengths_P - 1, 0)
        if version >= FORMS_VERSION:
            counted = connection.execute("SELECT part, targets FROM losses WHERE part BETWEEN ? AND ?", (first, last))
            losses = np.array(counted.fetchall(), np.int64).reshape(-1, 2)
            targets_P[losses[:, 0] - first] = losses[:, 1]
        yield PartColumns(documents_P=columns[:, 1].copy(), lengths_P=lengths_P, targets_P=targets_P)
