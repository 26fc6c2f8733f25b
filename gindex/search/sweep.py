"""Sweeps: the scores of all documents, or parts, of a selection for some queries, a block of them at a time.

Nothing of the size of queries times documents is held; a caller that needs all scores at once keeps them itself.

Axes: Q queries, D dimension, P parts, N units (documents or parts).
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.errors import NonFiniteError
from gindex.exact.influence import QueryInfluence
from gindex.model.isolation import plain
from gindex.progress import Phase, Progress, Silent
from gindex.search.scan import PARTS_AT_ONCE, part_scores, scorer_of
from gindex.search.weights import Weights
from gindex.store.reader import VectorReader
from gindex.thread_pool import spread

BLOCK_PARTS, EXACT_BLOCK_PARTS = 16384, 256
"""About as many parts are in a block: of stored vectors some tenths of a second, of recomputed gradients a minute."""

QUERIES_AT_ONCE, PIECES_AT_ONCE = 64, 16
"""Queries that vectors are multiplied by at once, and pieces of `PARTS_AT_ONCE` parts that threads share at once."""

Ordinals = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]

PartScores = Callable[[Ordinals], Scores]
"""Gives the scores [Q, P] of parts [P]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """What has a score: parts, or documents, each with the sum over those of its parts that are selected.

    Attributes:
        parts_P: Ordinals of the selected parts, ascending.
        starts_N: Where among them each unit begins.
        documents_N: Ordinal of each unit's document.
    """

    parts_P: Ordinals
    starts_N: Ordinals
    documents_N: Ordinals

    @classmethod
    def of(cls, parts_P: Ordinals, part_documents: Ordinals, hits: str) -> "Units":
        """Units of selected parts.

        Args:
            parts_P: Ordinals of the parts, ascending.
            part_documents: Ordinal of the document of every part of the index.
            hits: `part` or `document`.
        """
        documents_P = part_documents[parts_P]
        first_P = np.ones(len(parts_P), bool)
        if hits == "document":  # whose parts follow on each other
            first_P[1:] = documents_P[1:] != documents_P[:-1]
        return cls(parts_P=parts_P, starts_N=np.flatnonzero(first_P), documents_N=documents_P[first_P])

    def __len__(self) -> int:
        return len(self.starts_N)

    def blocks(self, parts: int) -> list[slice]:
        """Cut the units into blocks of about as many parts, or of one unit that has more."""
        edges = np.searchsorted(self.starts_N, np.arange(parts, len(self.parts_P), parts))
        edges = np.unique(np.concatenate([[0], edges, [len(self)]]))
        return [slice(a, b) for a, b in itertools.pairwise(edges.tolist())]

    def parts_of(self, some: slice) -> Ordinals:
        """Ordinals of the parts of a block."""
        stop = len(self.parts_P) if some.stop == len(self) else self.starts_N[some.stop]
        return self.parts_P[self.starts_N[some.start] : stop]

    def scores(self, some: slice, score: PartScores) -> npt.NDArray[np.float64]:
        """Scores [Q, N] of a block of units; sums in float64."""
        scores_QP = score(self.parts_of(some)).astype(np.float64)
        sums: npt.NDArray[np.float64] = np.add.reduceat(scores_QP, self.starts_N[some] - self.starts_N[some.start], 1)
        return sums


class StoredScores:
    """Scores parts by their stored vectors."""

    def __init__(
        self,
        reader: VectorReader,
        queries_QD: Tensor,
        weights: Weights | None = None,
        scales: Sequence[float] | None = None,
        phase: Phase | None = None,
    ) -> None:
        """Make the queries ready.

        Args:
            reader: The stored vectors.
            queries_QD: Queries, as `Funnel.scoring_queries` gives them.
            weights: What the score of each part of the index is multiplied by.
            scales: What the scores of each query are multiplied by.
            phase: Advanced by the parts that are done.
        """
        self._reader, self._weights, self._phase = reader, weights, phase
        self._scorers = [scorer_of(reader, some) for some in queries_QD.split(QUERIES_AT_ONCE)]
        self._scales_Q = np.ones(len(queries_QD), np.float32) if scales is None else np.array(scales, np.float32)

    def __call__(self, parts: Ordinals) -> Scores:
        """Scores [Q, P] of parts [P]."""
        pieces = np.split(parts, np.arange(PARTS_AT_ONCE, len(parts), PARTS_AT_ONCE))
        scores: list[Scores] = []
        for start in range(0, len(pieces), PIECES_AT_ONCE):
            some = pieces[start : start + PIECES_AT_ONCE]
            scores += spread(self._piece, some)
            if self._phase is not None:
                self._phase.advance(sum(map(len, some)))
        return np.concatenate(scores, 1) * self._scales_Q[:, None]

    def _piece(self, parts: Ordinals) -> Scores:
        blocks = [part_scores(self._reader, parts, scorer, self._weights).numpy() for scorer in self._scorers]
        return np.concatenate(blocks)


class ExactScores:
    """Scores parts by exact influence."""

    def __init__(self, influence: QueryInfluence, queries: int, weights: Weights | None) -> None:
        """Take what computes influence on some queries, and what that on each part of the index is multiplied by."""
        self._influence, self._queries, self._weights = influence, queries, weights

    def __call__(self, parts: Ordinals) -> Scores:
        """Influence [Q, P] of parts [P]."""
        influence_QP = np.stack(self._influence.of([parts] * self._queries))
        return influence_QP if self._weights is None else influence_QP * self._weights[parts]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """The scores of a block of units for a block of queries, float32 [Q, N]."""

    queries: slice
    units: slice
    scores_QN: Scores


@dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """The scores of all units for all queries, yet to be computed.

    Attributes:
        units: The units.
        query_blocks: Queries that are taken together, in order.
        unit_blocks: Units that are taken together, in order.
        scorer: Gives what scores parts for a block of queries, and advances a phase by the parts that are done.
    """

    units: Units
    query_blocks: Sequence[slice]
    unit_blocks: Sequence[slice]
    scorer: Callable[[slice, Phase], PartScores]

    @property
    def queries(self) -> int:
        """Number of queries."""
        return self.query_blocks[-1].stop if self.query_blocks else 0

    @property
    def tile_count(self) -> int:
        """Number of tiles."""
        return len(self.query_blocks) * len(self.unit_blocks)

    def tiles(self, progress: Progress | None = None, *, first: int = 0) -> Iterator[Tile]:
        """Compute tile by tile: all units for the first block of queries, then for the next.

        Args:
            progress: Where the work is reported.
            first: Tiles at the beginning that are left out.

        Raises:
            NonFiniteError: A score is a NaN or an infinity.
        """
        places = [(queries, units) for queries in self.query_blocks for units in self.unit_blocks][first:]
        total = sum(len(self.units.parts_of(units)) for _, units in places)
        with (progress or Silent()).phase("scores", total, "parts") as phase:
            ready, score = None, None
            for queries, units in places:
                with plain():
                    if score is None or queries != ready:
                        ready, score = queries, None  # what the last block held goes before the next comes
                        score = self.scorer(queries, phase)
                    scores_QN = self.units.scores(units, score).astype(np.float32)
                    self._check(units, scores_QN)
                yield Tile(queries=queries, units=units, scores_QN=scores_QN)

    def _check(self, units: slice, scores_QN: Scores) -> None:
        finite_N = np.isfinite(scores_QN).all(0)
        if not finite_N.all():
            part = self.units.parts_P[self.units.starts_N[units][np.argmin(finite_N)]]
            raise NonFiniteError(
                field=f"part {part}",
                expected="finite scores",
                found="NaN or infinity",
                remedy="leave its document out by `where`",
            )


class CountedParts:
    """The progress of work within a phase that counts parts: what else the work announces is not shown."""

    def __init__(self, phase: Phase) -> None:
        """Take the phase."""
        self._phase = phase

    def phase(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Phase]:
        """The phase around it, where parts are counted; else one that shows nothing."""
        return nullcontext(self._phase) if unit == "parts" else Silent().phase(name, total, unit)
