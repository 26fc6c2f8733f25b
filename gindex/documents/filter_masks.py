"""Which documents of a table pass a filter of which some fields are indexed: by the index where it can tell.

Axes: D documents of the table.
"""

import json

import numpy as np

from gindex.documents.comparisons import Sql, joined
from gindex.documents.conditions import Comparison, Condition, Every, Not
from gindex.documents.field_index import FieldIndex, Mask
from gindex.documents.table_file import TableFile

LOOKED_UP = 4
"""Documents are read one by one where they are at most one in so many; from more on a pass over all is quicker."""


class FilterMasks:
    """The documents of a table that meet conditions."""

    def __init__(self, file: TableFile, index: FieldIndex, seconds: float | None) -> None:
        """Take a table, the index of its fields, and the longest time that a statement may take (None: no limit)."""
        self._file, self._index, self._seconds = file, index, seconds

    def of(self, condition: Condition, among_D: Mask | None = None) -> Mask:
        """The documents [D] that meet a condition.

        Args:
            condition: The condition.
            among_D: The only documents [D] that are asked about; what is said of others is not defined. None for all.
        """
        if condition.fields.isdisjoint(self._index.fields):
            return self._scanned(condition, among_D)
        if isinstance(condition, Comparison):
            return self._index.mask(condition, self._seconds)
        if isinstance(condition, Not):
            return ~self.of(condition.term, among_D)
        terms = sorted(condition.terms, key=lambda term: len(term.fields - self._index.fields.keys()))
        if isinstance(condition, Every):
            mask_D = self._all if among_D is None else among_D
            for term in terms:
                mask_D = mask_D & self.of(term, mask_D)
            return mask_D
        mask_D = ~self._all
        for term in terms:
            mask_D = mask_D | self.of(term, ~mask_D if among_D is None else among_D & ~mask_D)
        return mask_D

    @property
    def _all(self) -> Mask:
        return np.ones(len(self._index.part_counts_D), bool)

    def _scanned(self, condition: Condition, among_D: Mask | None) -> Mask:
        """The documents [D] that meet a condition without an indexed field, read from the table."""
        mask_D, sql = ~self._all, condition.sql
        asked = len(mask_D) if among_D is None else int(among_D.sum())
        if not asked:
            return mask_D
        if among_D is not None and asked * LOOKED_UP <= len(mask_D):
            ordinals = json.dumps((np.flatnonzero(among_D) + self._index.first_document).tolist())
            among = Sql("ordinal IN (SELECT value FROM json_each(?))", (ordinals,))
            sql = joined("AND", [among, sql])
        found = self._file.asked(f"SELECT ordinal FROM documents WHERE {sql.text}", sql.parameters, self._seconds)
        mask_D[np.fromiter((ordinal for (ordinal,) in found), np.int64, len(found)) - self._index.first_document] = True
        return mask_D
