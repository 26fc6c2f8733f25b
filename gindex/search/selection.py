"""What a search is confined to: the parts that may be found, and what their scores are multiplied by.

Axes: N parts of the index.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gindex.documents.filters import parse_filter
from gindex.documents.selection import filtered_parts, parts_of
from gindex.documents.table import DocumentTable
from gindex.search.lexical import LexicalRanks, words_confine
from gindex.search.weights import Weights
from gindex.search_options import SearchOptions


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What a search is confined to, and how its scores are weighted.

    Attributes:
        parts: Ordinals of the only parts to be found, ascending; None where all may be.
        weights: What the score of each part of the index is multiplied by [N]; None where by nothing.
    """

    parts: npt.NDArray[np.int64] | None = None
    weights: Weights | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing may be found."""
        return self.parts is not None and not len(self.parts)


EVERYTHING = Selection()


def selected_parts(
    table: DocumentTable, options: SearchOptions, ranks: list[LexicalRanks]
) -> npt.NDArray[np.int64] | None:
    """Ordinals of the parts that a search's filter and words leave, ascending; None where there are neither.

    Args:
        table: The documents.
        options: The search.
        ranks: The documents with the best BM25 scores, which is the same for all queries where words confine.

    Raises:
        FilterError: The filter does not parse, or names a field that no document has.
    """
    if words_confine(options):  # what the filter leaves of them
        found = parts_of(table, [document for document, _ in ranks[0]]) if ranks else {}
        return np.sort(np.concatenate([np.zeros(0, np.int64), *found.values()]))
    return None if options.where is None else filtered_parts(table, parse_filter(options.where))
