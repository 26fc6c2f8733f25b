"""What a pass over all parts needs of each without its tokens: its document, its length, what counts in it.

Axes: P parts, in the order of their ordinals.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import numpy.typing as npt

from gindex.documents.schema import FORMS_VERSION

_COLUMNS = np.dtype([("ordinal", np.int64), ("document", np.int64), ("length", np.int64)])


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
        """The columns of several tables, one after the other."""
        if len(tables) == 1:
            return tables[0]
        names = [column.name for column in fields(cls)]
        return cls(**{name: np.concatenate([getattr(table, name) for table in tables]) for name in names})


def read_columns(connection: sqlite3.Connection, version: int) -> PartColumns:
    """Read the columns of a table, by an index that has them where its version of gindex made one.

    Args:
        connection: The table.
        version: The version of its format.
    """
    stored = connection.execute("SELECT ordinal, document, token_count FROM parts ORDER BY document, part")
    columns = np.fromiter(stored, _COLUMNS)
    columns = columns[np.argsort(columns["ordinal"], kind="stable")]
    lengths_P = columns["length"].copy()
    targets_P = np.maximum(lengths_P - 1, 0)
    if version >= FORMS_VERSION:
        losses = np.fromiter(
            connection.execute("SELECT part, targets FROM losses"),
            np.dtype([("part", np.int64), ("targets", np.int64)]),
        )
        targets_P[np.searchsorted(columns["ordinal"], losses["part"])] = losses["targets"]
    return PartColumns(documents_P=columns["document"].copy(), lengths_P=lengths_P, targets_P=targets_P)
