"""From asks to candidates, and from candidates to the best of them.

Axes: N parts.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gindex.documents.selection import documents_of, parts_of
from gindex.documents.table import DocumentTable
from gindex.search.ask import Ask, Search
from gindex.search.candidates import Candidate, deduplicated, fused, grouped, ordered
from gindex.search.funnel import Funnel
from gindex.search.lexical import words_choose, words_confine, words_order
from gindex.search.ranking import Ranking
from gindex.search.scan import part_scores, scorer_of
from gindex.search_options import SearchOptions
from gindex.store.reader import VectorReader

GROWTH = 4
"""How many times more parts are asked for where grouping or folding left too few hits."""


class Gatherer:
    """Gathers the candidates of asks: by score, and where words or sums over documents ask for more, those too."""

    def __init__(self, funnel: Funnel, reader: VectorReader, table: DocumentTable) -> None:
        """Join what gives candidates, the stored vectors and the documents."""
        self._funnel, self._reader, self._table = funnel, reader, table

    def gather(self, search: Search) -> list[list[Candidate]]:
        """Candidates of each ask, best first; as many as it takes for grouping and folding to leave k."""
        options = search.options
        wanted = max(options.k, options.candidates) if options.exact or words_order(options) else options.k
        while True:
            rankings = self._funnel.search(
                search.vectors_AD, wanted, search.selection, shortlist=options.shortlist, full=options.scan
            )
            found = [self._candidates(search, *of) for of in zip(search.asks, rankings, strict=True)]
            if not _may_leave_too_few(options) or all(
                len(ranking.ordinals) < wanted or len(self.best(search, ask, of)) >= options.k
                for ask, ranking, of in zip(search.asks, rankings, found, strict=True)
            ):
                return found
            wanted *= GROWTH

    def best(self, search: Search, ask: Ask, candidates: list[Candidate]) -> list[Candidate]:
        """The best k of ordered candidates, after grouping, fusion and folding."""
        options = search.options
        document_of: dict[int, int] = {}
        if words_order(options) or words_confine(options) or options.hits == "document":
            document_of = self._document_of([c.ordinal for c in candidates])
        if options.hits == "document":
            candidates = grouped(candidates, document_of, options.document_score)
        if words_order(options):
            candidates = fused(candidates, document_of, ask.ranks)
        elif words_confine(options):
            lexical = dict(ask.ranks)
            candidates = [replace(c, lexical=lexical[document_of[c.ordinal]]) for c in candidates]
        if options.dedupe is not None:
            return deduplicated(candidates, options.k, options.dedupe, self._reader.decoded)
        return candidates[: options.k]

    def _candidates(self, search: Search, ask: Ask, ranking: Ranking) -> list[Candidate]:
        """Ordered candidates: those of the funnel with those that words or sums over documents add."""
        options = search.options
        scores = dict(zip(ranking.ordinals.tolist(), ranking.scores.tolist(), strict=True))
        chosen_by_words = words_choose(options) and bool(ask.ranks) and ask.sign > 0
        if words_order(options) or chosen_by_words:
            self._add_scores(search, ask, scores, [document for document, _ in ask.ranks])
        if chosen_by_words:
            scores = self._best_by_both(search, ask, scores)
        if options.hits == "document" and options.document_score == "sum":
            documents = documents_of(self._table, np.array(list(scores), np.int64))
            self._add_scores(search, ask, scores, np.unique(documents).tolist())
        candidates = [
            Candidate(ordinal=n, score=ask.sign * ask.scale * s, merit=ask.scale * s) for n, s in scores.items()
        ]
        return candidates if chosen_by_words else ordered(candidates)

    def _add_scores(self, search: Search, ask: Ask, scores: dict[int, float], documents: Sequence[int]) -> None:
        """Add the scores of those parts of documents that lack one and may be found."""
        parts = {int(n) for of in parts_of(self._table, documents).values() for n in of}
        missing = self._funnel.permitted(np.array(sorted(parts - scores.keys()), np.int64), search.selection)
        if len(missing):
            scorer = scorer_of(self._reader, ask.vector_1D)
            more = part_scores(self._reader, missing, scorer, search.selection.weights)[0]
            scores.update(zip(missing.tolist(), more.tolist(), strict=True))

    def _best_by_both(self, search: Search, ask: Ask, scores: dict[int, float]) -> dict[int, float]:
        """Scores of as many candidates as are re-ranked, the best by reciprocal ranks first."""
        by_score = ordered([Candidate(ordinal=n, score=s, merit=s) for n, s in scores.items()])
        best = fused(by_score, self._document_of([c.ordinal for c in by_score]), ask.ranks)
        return {c.ordinal: c.score for c in best[: max(search.options.k, search.options.candidates)]}

    def _document_of(self, ordinals: list[int]) -> dict[int, int]:
        """Document of each part."""
        documents = documents_of(self._table, np.array(ordinals, np.int64))
        return dict(zip(ordinals, documents.tolist(), strict=True))


def _may_leave_too_few(options: SearchOptions) -> bool:
    """Whether grouping or folding may leave fewer hits than were asked for, so that more parts are looked at."""
    return not options.exact and (options.hits == "document" or options.dedupe is not None)
