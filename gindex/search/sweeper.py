"""Sweeps over an index: the scores of all documents, as they are or put together in groups.

Axes: Q queries, D dimension, N documents.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.documents.field_values import read_field_values
from gindex.documents.filters import parse_filter
from gindex.documents.selection import filtered_parts
from gindex.documents.table import DocumentTable
from gindex.exact.influence import QueryInfluence
from gindex.progress import Phase, Progress
from gindex.search.ask import query_scales
from gindex.search.funnel import Funnel
from gindex.search.group_scores import Members, group_scores
from gindex.search.groups import Groups
from gindex.search.sweep import (
    BLOCK_PARTS,
    EXACT_BLOCK_PARTS,
    CountedParts,
    ExactScores,
    PartScores,
    StoredScores,
    Sweep,
    Units,
)
from gindex.search.weights import Normaliser
from gindex.search_options import ScoreOptions, SearchOptions
from gindex.store.reader import VectorReader
from gindex.thread_safety import Lock, once

HELD_SCORES = 1 << 25
"""Most scores of documents that are held at once to be put together: 256 MiB."""

FIELDS = 4
"""Fields whose values are kept for the next search that groups by one of them."""


class Sweeper:
    """Sweeps over one version of an index."""

    def __init__(
        self, funnel: Funnel, reader: VectorReader, table: DocumentTable, normaliser: Normaliser, seed: int
    ) -> None:
        """Join what a sweep needs.

        Args:
            funnel: Makes queries ready, and knows which parts may be found.
            reader: The stored vectors.
            table: The documents.
            normaliser: Gives the weights of parts.
            seed: Seed of bootstrap intervals.
        """
        self._funnel, self._reader, self._table, self._normaliser = funnel, reader, table, normaliser
        self._seed = seed
        self._field_values = lru_cache(FIELDS)(partial(read_field_values, table))
        self.loading = Lock()

    @once
    def part_documents(self) -> npt.NDArray[np.int64]:
        """Ordinal of the document of every part."""
        return self._table.part_documents()

    def scores(self, queries_QD: Tensor, options: ScoreOptions) -> Sweep:
        """The scores of all documents for query vectors [Q, D].

        Raises:
            MismatchError: The vectors have another dimension.
            NonFiniteError: One holds a NaN or an infinity.
            FilterError: The filter does not parse, or names a field that no document has.
        """
        self._funnel.check(queries_QD)
        units = self._units(options)
        return Sweep(
            units=units,
            query_blocks=[slice(0, len(queries_QD))],
            unit_blocks=units.blocks(BLOCK_PARTS),
            scorer=self._scorer(self._funnel.scoring_queries(queries_QD), options.normalise),
        )

    def influence(
        self,
        query_blocks: Sequence[slice],
        influence: Callable[[slice, Progress], QueryInfluence],
        options: ScoreOptions,
    ) -> Sweep:
        """The exact influence of all documents.

        Args:
            query_blocks: Queries whose influence is computed at once.
            influence: Gives what computes exact influence on a block of queries.
            options: Which documents, and what their influence is divided by.

        Raises:
            FilterError: The filter does not parse, or names a field that no document has.
        """
        units, weights = self._units(options), self._normaliser.weights(options.normalise)

        def score(some: slice, phase: Phase) -> PartScores:
            return ExactScores(influence(some, CountedParts(phase)), some.stop - some.start, weights)

        return Sweep(units=units, query_blocks=query_blocks, unit_blocks=units.blocks(EXACT_BLOCK_PARTS), scorer=score)

    def groups(
        self, scoring_QD: Tensor, selected: npt.NDArray[np.int64] | None, options: SearchOptions, progress: Progress
    ) -> list[Groups]:
        """The scores of all documents by the value of a field, for each query.

        Args:
            scoring_QD: Queries, as `Funnel.scoring_queries` gives them.
            selected: The only parts to be scored, ascending; None for all.
            options: The search.
            progress: Where the work is reported.

        Raises:
            FilterError: No document has the field.
        """
        units = Units.of(self._funnel.searched(selected), self.part_documents, "document")
        members = Members.of(self._field_values(str(options.group_by)), units.documents_N)
        size, blocks = max(1, HELD_SCORES // max(1, len(units))), units.blocks(BLOCK_PARTS)
        query_blocks = [slice(start, start + size) for start in range(0, len(scoring_QD), size)]
        scorer, seed = self._scorer(scoring_QD, options.normalise), self._seed
        groups: list[Groups] = []
        with progress.phase("group scores", len(units.parts_P) * len(query_blocks), "parts") as phase:
            for queries in query_blocks:
                score, nothing = scorer(queries, phase), np.zeros((len(scoring_QD[queries]), 0))
                scores_QN = np.concatenate([nothing, *(units.scores(some, score) for some in blocks)], 1)
                groups += group_scores(members, scores_QN, options.groups, seed, negative=options.negative)
        return groups

    def _units(self, options: ScoreOptions) -> Units:
        selected = None if options.where is None else filtered_parts(self._table, parse_filter(options.where))
        return Units.of(self._funnel.searched(selected), self.part_documents, options.hits)

    def _scorer(self, scoring_QD: Tensor, normalise: str) -> Callable[[slice, Phase], PartScores]:
        """What scores parts for some of the queries, by the stored vectors."""
        weights, scales = self._normaliser.weights(normalise), query_scales(self._funnel, scoring_QD, normalise)

        def score(some: slice, phase: Phase) -> PartScores:
            return StoredScores(self._reader, scoring_QD[some], weights, scales[some], phase)

        return score
