"""Candidates of the index, scored by the stored vectors: as many of them as may be among the best.

Axes: Q queries, N candidates of a query, R of them that were not scored yet, D dimension, C parts for all queries.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.ann.index import Candidates
from gindex.search.ranking import Ranking, best_of
from gindex.search.scan import part_scores, scorer_of
from gindex.search.weights import Weights
from gindex.store.reader import VectorReader
from gindex.workers import spread, threads

QUERIES_READ = 32
"""Queries whose candidates are read at once."""

ROWS_PER_THREAD = 256
"""Fewest candidates of one query that are worth another thread."""

FIRST_SHARE, LEAST_FIRST = 1 / 3, 32
"""Share of a query's candidates, those that the index has as the best, that are scored in any case, and how many."""

LOOK_TWICE = 1024
"""Candidates of all queries from which it pays not to score all of them at once."""

DEVIATIONS = 3.0
"""A candidate is left out where the index had to err by more than so many standard deviations of its errors for it to
be among the best: of those at that edge, one in a thousand would be."""

Ordinals = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


class Rescorer:
    """Scores candidates of some queries by the stored vectors."""

    def __init__(self, reader: VectorReader, queries_QD: Tensor, weights: Weights | None) -> None:
        """Prepare the queries [Q, D]; `weights` [parts] are what the score of each part is multiplied by, if any."""
        self._reader, self._weights = reader, weights
        self._scorer = scorer_of(reader, queries_QD)

    def best(self, candidates: Sequence[Candidates], k: int, common: Ordinals) -> list[Ranking]:
        """The k best of each query's candidates.

        Args:
            candidates: Part ordinals of each query and their scores by the index, best first; in any order where there
                are weights.
            k: How many.
            common: Parts that are candidates of every query: they are scored for all of them at once.
        """
        if sum(len(of) for of, _ in candidates) >= LOOK_TWICE:
            return self._in_two_rounds(candidates, k, np.sort(common))
        every = [np.union1d(of, common) for of, _ in candidates]
        return [best_of(of, scores, k) for of, scores in zip(every, self._scores(every), strict=True)]

    def _in_two_rounds(self, candidates: Sequence[Candidates], k: int, common: Ordinals) -> list[Ranking]:
        """Score the first of each query's candidates, and then those of the others that may be among the best."""
        (common_QC,) = spread(lambda of: part_scores(self._reader, of, self._scorer, self._weights).numpy(), [common])
        own = [(of[alone], scores[alone]) for of, scores in candidates for alone in [~_among(of, common)]]
        first = [of[: self._first(len(of), k)] for of, _ in own]
        known, rest = [], []
        for (own_N, approximate_N), first_N, scores_N, common_C in zip(
            own, first, self._scores(first), common_QC, strict=True
        ):
            best = best_of(np.concatenate([first_N, common]), np.concatenate([scores_N, common_C]), k)
            count = len(first_N)
            of_R, approximate_R = own_N[count:], approximate_N[count:]
            if len(of_R):
                of_R = of_R[may_reach(best.scores[-1], approximate_R, approximate_N[:count], scores_N)]
            known.append(best)
            rest.append(of_R)
        return [
            best_of(np.concatenate([best.ordinals, of_R]), np.concatenate([best.scores, scores_R]), k)
            for best, of_R, scores_R in zip(known, rest, self._scores(rest), strict=True)
        ]

    def _first(self, count: int, k: int) -> int:
        """How many of a query's candidates are scored in any case."""
        return count if self._weights is not None else max(int(count * FIRST_SHARE), LEAST_FIRST, k)

    def _scores(self, own: Sequence[Ordinals]) -> list[Scores]:
        """Score parts of every query, each query's its own."""
        scores: list[Scores] = []
        for start in range(0, len(own), QUERIES_READ):
            scores += self._some_scores(start, own[start : start + QUERIES_READ])
        return scores

    def _some_scores(self, start: int, own: Sequence[Ordinals]) -> list[Scores]:
        """Score parts of some queries from the one at `start`; each thread reads the vectors of its share."""
        ordinals = np.concatenate(own)
        bounds = list(itertools.pairwise(np.cumsum([0, *map(len, own)]).tolist()))
        pieces = [
            (int(a), int(b), query)
            for query, (first, last) in enumerate(bounds, start)
            for a, b in itertools.pairwise(
                np.linspace(first, last, self._pieces(len(own), last - first) + 1).astype(int)
            )
        ]
        count = -(-len(pieces) // min(threads(), len(pieces)))
        shares = [pieces[n : n + count] for n in range(0, len(pieces), count)]

        def score(share: list[tuple[int, int, int]]) -> Tensor:
            first, last = share[0][0], share[-1][1]
            codes, scales = self._reader.coded(ordinals[first:last])
            rows = [(slice(a - first, b - first), self._scorer.one(query)) for a, b, query in share]
            return torch.cat([scorer.slice_scores(codes[n], scales[n]).sum(0)[0] for n, scorer in rows])

        scores = torch.cat(spread(score, shares)).numpy() if len(ordinals) else np.zeros(0, np.float32)
        if self._weights is not None:
            scores = scores * self._weights[ordinals]
        return [scores[first:last] for first, last in bounds]

    def _pieces(self, queries: int, rows: int) -> int:
        """How many pieces the rows of a query are divided into: enough for all threads, where they are worth it."""
        return max(1, min(-(-threads() // queries), rows // ROWS_PER_THREAD))


def may_reach(least: float, approximate_R: Scores, approximate_N: Scores, scores_N: Scores) -> npt.NDArray[np.bool_]:
    """Which scores may be `least` or more, if scores by the index and by the stored vectors are related as elsewhere.

    Args:
        least: The score to be reached.
        approximate_R: Scores by the index of what is in question.
        approximate_N: Scores by the index of what is known.
        scores_N: Its scores by the stored vectors.
    """
    known_N, exact_N = approximate_N.astype(np.float64), scores_N.astype(np.float64)
    square = float(known_N @ known_N)
    if not square > 0:
        return np.ones(len(approximate_R), np.bool_)
    slope = float(exact_N @ known_N) / square
    deviation = float(np.sqrt(np.square(exact_N - slope * known_N).mean()))
    reaches_R: npt.NDArray[np.bool_] = slope * approximate_R.astype(np.float64) + DEVIATIONS * deviation >= least
    return reaches_R


def _among(ordinals: Ordinals, ascending: Ordinals) -> npt.NDArray[np.bool_]:
    """Which ordinals are among others: `np.isin`, but quick for few."""
    if not len(ascending):
        return np.zeros(len(ordinals), np.bool_)
    places = np.minimum(np.searchsorted(ascending, ordinals), len(ascending) - 1)
    among: npt.NDArray[np.bool_] = ascending[places] == ordinals
    return among
