"""Names of what a sweep scores: ids of documents, and numbers of parts within them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.documents.table import DocumentTable
from gindex.search.sweep import Units


class UnitNames:
    """The names of units, looked up some at a time.

    Attributes:
        of_parts: Whether the units are parts.
    """

    def __init__(self, table: DocumentTable, units: Units, hits: str) -> None:
        """Look nothing up yet."""
        self._table, self._units, self.of_parts = table, units, hits == "part"

    def __len__(self) -> int:
        return len(self._units)

    def documents(self, some: slice) -> list[str]:
        """Ids of the documents of some units."""
        return self._looked_up("SELECT ordinal, id FROM documents", self._units.documents_N[some])

    def parts(self, some: slice) -> list[int] | None:
        """Number within its document of each of some parts; None where the units are documents."""
        return self._looked_up("SELECT ordinal, part FROM parts", self._units.parts_P[some]) if self.of_parts else None

    def _looked_up(self, statement: str, ordinals: npt.NDArray[np.int64]) -> list[Any]:
        """Values of ascending ordinals, some of which may be the same."""
        ends = int(ordinals[0]), int(ordinals[-1])
        values = dict(self._table.rows(f"{statement} WHERE ordinal BETWEEN ? AND ?", ends))
        return [values[ordinal] for ordinal in ordinals.tolist()]
