"""The parts that a search may find: what of them an exact re-rank leaves out, with their scores.

Axes: A asks, S parts of a sample.
"""

import numpy as np
import numpy.typing as npt

from gindex.exact.certification import Outside, Values
from gindex.search.ask import Search
from gindex.search.funnel import Funnel
from gindex.search.sweep import StoredScores
from gindex.store.reader import VectorReader

SAMPLED, NEXT = 4096, 1024
"""Parts that are scored for a certificate, at most: drawn from all, and the best by score after the candidates. Of an
index of more, those are where most of what was missed is, and the others stand for all the rest."""

OVERFETCH = 4
"""Parts that the FAISS index gives for re-scoring, for each of the best by score."""


class Population:
    """All parts that a search may find: each, or the best by score and a sample of the rest."""

    def __init__(self, search: Search, funnel: Funnel, reader: VectorReader) -> None:
        """Score the best and the sample.

        Args:
            search: The search.
            funnel: Gives the parts that may be found, and the best of them.
            reader: The stored vectors.
        """
        searched = funnel.searched(search.selection.parts)
        self._count, self._reader, self._weights = len(searched), reader, search.selection.weights
        self._best: list[dict[int, float]] = [{} for _ in search.asks]
        if len(searched) > SAMPLED:
            searched = np.sort(np.random.default_rng(0).choice(searched, SAMPLED, replace=False))
            self._best = _best(search, funnel)
        self._drawn_S, self._sizes_S = searched, self.sizes(searched)
        scores = StoredScores(reader, search.vectors_AD, self._weights, [ask.scale for ask in search.asks])
        self._scores_AS = scores(searched).astype(np.float64)

    def sizes(self, parts: npt.NDArray[np.int64]) -> Values:
        """The roots of the parts' self-influence, weighted as their scores are."""
        sizes: Values = np.sqrt(self._reader.self_influence(parts).astype(np.float64))
        return sizes if self._weights is None else sizes * self._weights[parts]

    def outside(self, ask: int, known: npt.NDArray[np.int64], waiting: dict[int, float]) -> Outside:
        """What a re-rank leaves out at one end of a query.

        Args:
            ask: Number of the ask.
            known: The parts that are re-ranked.
            waiting: Scores of the candidates that are not re-ranked, positive at this end.
        """
        done = set(known.tolist())
        single = {part: score for part, score in self._best[ask].items() if part not in done} | waiting
        parts = np.array(list(single), np.int64)
        others_S = ~np.isin(self._drawn_S, np.concatenate([known, parts]))
        sampled = int(others_S.sum())
        each = (self._count - len(known) - len(parts)) / max(1, sampled)
        return Outside(
            scores_R=np.concatenate([np.array(list(single.values()), np.float64), self._scores_AS[ask][others_S]]),
            sizes_R=np.concatenate([self.sizes(parts), self._sizes_S[others_S]]),
            counts_R=np.concatenate([np.ones(len(parts)), np.full(sampled, each)]),
        )


def _best(search: Search, funnel: Funnel) -> list[dict[int, float]]:
    """Scores of the best parts of each ask, by part."""
    count = search.options.candidates + NEXT
    rankings = funnel.search(search.vectors_AD, count, search.selection, shortlist=OVERFETCH * count)
    return [
        dict(zip(of.ordinals.tolist(), (ask.scale * of.scores.astype(np.float64)).tolist(), strict=True))
        for ask, of in zip(search.asks, rankings, strict=True)
    ]
