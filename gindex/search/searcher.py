"""A search from query vectors to hits: selection, funnel, exact re-rank, fusion, grouping, duplicates, layers.

Axes: Q queries, N parts, D dimension.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.config import SearchOptions
from gindex.documents.filters import parse_filter
from gindex.documents.selection import documents_of, filtered_parts, lexical_documents, parts_of
from gindex.documents.table import DocumentTable, PartRecord
from gindex.documents.words import words_of
from gindex.errors import ConfigError
from gindex.exact.stopping import expected_misses
from gindex.search.candidates import Candidate, deduplicated, fused, grouped, ordered
from gindex.search.funnel import Funnel, Selection
from gindex.search.hit import Clock, Hit
from gindex.search.scan import part_scores, part_slice_scores, ready_for
from gindex.search.scored import Scored
from gindex.store.reader import VectorReader
from gindex.store.weights import Normaliser

STOPPING_BLOCK = 16
"""Candidates of a query that are re-ranked before it is asked whether the rest can be left out; k, where it is more."""

GROWTH = 4
"""How many times more parts are asked for where grouping or folding left too few hits."""

Ordinals = npt.NDArray[np.int64]
Lexical = list[tuple[int, float]]
Rerank = Callable[[list[Ordinals]], list[npt.NDArray[np.float32]]]
"""Computes the exact influence on each query of its own parts."""


class Searcher:
    """Searches one index with ready query vectors."""

    def __init__(self, funnel: Funnel, reader: VectorReader, table: DocumentTable, groups: Sequence[str]) -> None:
        """Join what a search needs; `groups` are the names of the vectors' slices."""
        self._funnel, self._reader, self._table, self._groups = funnel, reader, table, groups
        norms = None if funnel.level is None else funnel.level.norms_N.numpy()
        self._normaliser = Normaliser(reader, table.part_lengths, norms)

    def find(
        self,
        queries_QD: Tensor,
        options: SearchOptions,
        texts: Sequence[str | None],
        rerank: Rerank | None,
        clock: Clock,
    ) -> list[list[tuple[Hit, ...]]]:
        """Answer queries.

        Args:
            queries_QD: Query vectors.
            options: What to look for.
            texts: Each query's words, for candidates by both ranks, and for `words` rank without `words_text`.
            rerank: Computes exact influence; needed where `options.exact`.
            clock: Where the time is counted.

        Returns:
            For each query its hits, or the two ends where both were asked for.

        Raises:
            GindexError: A query vector, filter or text that cannot be used.
        """
        prepared_QD = self._funnel.prepared(queries_QD)
        signs = [1.0, -1.0] if options.both else [-1.0 if options.negative else 1.0]
        lexical = self._lexical(options, texts)
        selection = self._selection(options, lexical)
        if selection.parts is not None and not len(selection.parts):
            self._funnel.check(prepared_QD)
            return [[() for _ in signs] for _ in texts]
        run = _Run(
            vectors_QD=_signed(prepared_QD, signs),
            signs=[sign for sign in signs for _ in texts],
            asked=self._funnel.asked,
            lexical=lexical * len(signs),
            selection=selection,
            options=options,
            reranked=clock.reranked,
        )
        found = self._candidates(run)
        clock.lap("search")
        if options.exact:
            if rerank is None:
                raise ConfigError(
                    field="exact",
                    expected="a query of text",
                    found="a vector, which has no tokens",
                    remedy="leave it out",
                )
            found = self._exact(run, found, rerank)
            clock.lap("rerank")
        hits = self._hits(run, [self._finished(run, position, of) for position, of in enumerate(found)])
        clock.lap("search")
        return [[hits[sign * len(texts) + query] for sign in range(len(signs))] for query in range(len(texts))]

    def _lexical(self, options: SearchOptions, texts: Sequence[str | None]) -> list[Lexical]:
        """Return the documents with the best BM25 scores for each query; empty where it isn't asked for."""
        where = None if options.where is None else parse_filter(options.where)
        known: dict[str, Lexical] = {}
        if _takes_both(options):
            count = options.words_documents
            looked = [text if options.words_text is None else options.words_text for text in texts]
            return [
                lexical_documents(self._table, text, count, where, partly=True) if text and words_of(text) else []
                for text in looked
            ]
        if options.words not in ("filter", "rank"):
            return [[] for _ in texts]
        for text in texts:
            words = text if options.words_text is None else options.words_text
            if words is None:
                raise ConfigError(
                    field="words", expected="text to take them from", found="a vector alone", remedy="give `words_text`"
                )
            if words not in known:
                known[words] = lexical_documents(self._table, words, options.words_documents, where)
        return [known[str(text if options.words_text is None else options.words_text)] for text in texts]

    def _selection(self, options: SearchOptions, lexical: list[Lexical]) -> Selection:
        parts = None if options.where is None else filtered_parts(self._table, parse_filter(options.where))
        if options.words == "filter":
            found = parts_of(self._table, [document for document, _ in lexical[0]]) if lexical else {}
            parts = np.sort(np.concatenate([np.zeros(0, np.int64), *found.values()]))  # `where` is in there already
        return Selection(parts=parts, weights=self._normaliser.weights(options.normalise))

    def _candidates(self, run: "_Run") -> list[list[Candidate]]:
        """Return ordered candidates of each query, more of them until grouping and folding leave k."""
        options = run.options
        wanted = max(options.k, options.candidates) if options.exact or options.words == "rank" else options.k
        while True:
            scored = self._funnel.search(
                run.vectors_QD, wanted, run.selection, shortlist=options.shortlist, full=options.scan
            )
            found = [self._completed(run, position, of) for position, of in enumerate(scored)]
            exhausted = all(len(of.ordinals) < wanted for of in scored)
            if exhausted or options.exact or (options.group_by == "part" and options.dedupe is None):
                return found
            if all(
                len(self._finished(run, n, of)) >= options.k or len(scored[n].ordinals) < wanted
                for n, of in enumerate(found)
            ):
                return found
            wanted *= GROWTH

    def _completed(self, run: "_Run", position: int, scored: Scored) -> list[Candidate]:
        """Return ordered candidates: those of the funnel with those that lexical ranks or sums over documents add."""
        options, sign = run.options, run.signs[position]
        scores = dict(zip(scored.ordinals.tolist(), scored.scores.tolist(), strict=True))
        both = bool(run.lexical[position]) and _takes_both(options) and sign > 0
        if options.words == "rank" or both:
            self._score(run, position, scores, [document for document, _ in run.lexical[position]])
        if both:
            scores = self._best_by_both(run, position, scores)
        if options.group_by == "document" and options.group_score == "sum":
            asked = documents_of(self._table, np.array(list(scores), np.int64))
            self._score(run, position, scores, np.unique(asked).tolist())
        scale = run.scale(position)
        candidates = [Candidate(ordinal=n, score=sign * scale * s, merit=scale * s) for n, s in scores.items()]
        return candidates if both else ordered(candidates)

    def _score(self, run: "_Run", position: int, scores: dict[int, float], documents: Sequence[int]) -> None:
        """Add the scores of those parts of documents that lack one and may be found."""
        parts = {int(n) for of in parts_of(self._table, documents).values() for n in of}
        missing = self._funnel.permitted(np.array(sorted(parts - scores.keys()), np.int64), run.selection)
        if len(missing):
            query = ready_for(self._reader, run.vectors_QD[position : position + 1])
            more = part_scores(self._reader, missing, query, run.selection.weights)[0]
            scores.update(zip(missing.tolist(), more.tolist(), strict=True))

    def _best_by_both(self, run: "_Run", position: int, scores: dict[int, float]) -> dict[int, float]:
        """Return the scores of as many candidates as are re-ranked, the best by reciprocal ranks first."""
        by_score = ordered([Candidate(ordinal=n, score=s, merit=s) for n, s in scores.items()])
        ordinals = [candidate.ordinal for candidate in by_score]
        documents = documents_of(self._table, np.array(ordinals, np.int64)).tolist()
        best = fused(by_score, dict(zip(ordinals, documents, strict=True)), run.lexical[position])
        return {c.ordinal: c.score for c in best[: max(run.options.k, run.options.candidates)]}

    def _exact(self, run: "_Run", found: list[list[Candidate]], rerank: Rerank) -> list[list[Candidate]]:
        """Order candidates by exact influence, weighted as their scores are; those that an early stop left drop out."""
        options, queries = run.options, len(found) // (2 if run.options.both else 1)
        most = max((len(of) for of in found), default=0)
        block = most if options.stop_early is None else max(STOPPING_BLOCK, options.k)
        known: list[dict[int, float]] = [{} for _ in range(queries)]
        result: list[list[Candidate]] = [[] for _ in found]
        open_queries = list(range(queries))
        for stop in range(block, most + block, block):
            fresh = [
                np.array(sorted({c.ordinal for of in found[q::queries] for c in of[:stop]} - known[q].keys()), np.int64)
                for q in range(queries)
            ]
            asked = [fresh[q] if q in open_queries else fresh[q][:0] for q in range(queries)]
            if any(len(of) for of in asked):
                for already, ordinals, influence in zip(known, asked, rerank(asked), strict=True):
                    already.update(zip(ordinals.tolist(), influence.tolist(), strict=True))
            for query in open_queries:
                for position in range(query, len(found), queries):
                    done = [c for c in found[position] if c.ordinal in known[query]]
                    result[position] = [self._weighted(run, position, c, known[query][c.ordinal]) for c in done]
            open_queries = [
                query
                for query in open_queries
                if sum(self._misses(run, p, found, result) for p in range(query, len(found), queries))
                > (options.stop_early or 0.0)
            ]
            if not open_queries:
                break
        run.reranked[:] = [len(of) for of in known]
        return [ordered(of) for of in result]

    def _weighted(self, run: "_Run", position: int, candidate: Candidate, influence: float) -> Candidate:
        weights = run.selection.weights
        factor = 1.0 if weights is None else float(weights[candidate.ordinal])
        return replace(candidate, influence=influence, merit=run.signs[position] * factor * influence)

    def _misses(self, run: "_Run", position: int, found: list[list[Candidate]], result: list[list[Candidate]]) -> float:
        """Return how many of the k best are expected among the candidates without an influence yet."""
        score = {c.ordinal: c.merit for c in found[position]}
        done = {c.ordinal: c.merit for c in result[position]}
        left = [ordinal for ordinal in score if ordinal not in done]
        if run.options.stop_early is None or not left:
            return float(len(left))

        def sizes(ordinals: list[int]) -> npt.NDArray[np.float64]:
            squared = self._reader.self_influence(np.array(ordinals, np.int64)).astype(np.float64)
            weights = run.selection.weights
            factors = 1.0 if weights is None else weights[ordinals].astype(np.float64)
            return np.maximum(np.sqrt(squared) * factors, 1e-30)

        known = list(done)
        return expected_misses(
            np.array(list(done.values())), np.array([score[n] for n in known]), sizes(known),
            np.array([score[n] for n in left]), sizes(left), run.options.k,
        )  # fmt: skip

    def _finished(self, run: "_Run", position: int, candidates: list[Candidate]) -> list[Candidate]:
        """Return the best k after fusion, grouping and folding."""
        options = run.options
        document_of: dict[int, int] = {}
        if options.words in ("filter", "rank") or options.group_by == "document":
            ordinals = np.array([c.ordinal for c in candidates], np.int64)
            document_of = dict(zip(ordinals.tolist(), documents_of(self._table, ordinals).tolist(), strict=True))
        if options.group_by == "document":
            candidates = grouped(candidates, document_of, options.group_score)
        if options.words == "rank":
            candidates = fused(candidates, document_of, run.lexical[position])
        elif options.words == "filter":
            lexical = dict(run.lexical[position])
            candidates = [replace(c, lexical=lexical[document_of[c.ordinal]]) for c in candidates]
        if options.dedupe is not None:
            return deduplicated(candidates, options.k, options.dedupe, self._reader.decoded)
        return candidates[: options.k]

    def _hits(self, run: "_Run", found: list[list[Candidate]]) -> list[tuple[Hit, ...]]:
        """Return the hits of each query; what they say of their documents is looked up once for all of them."""
        asked = sorted({n for of in found for c in of for n in (c.ordinal, *c.duplicates)})
        parts = dict(zip(asked, self._table.parts(asked), strict=True))
        return [
            tuple(self._hit(run, position, rank, candidate, parts) for rank, candidate in enumerate(of, start=1))
            for position, of in enumerate(found)
        ]

    def _hit(self, run: "_Run", position: int, rank: int, candidate: Candidate, parts: Mapping[int, PartRecord]) -> Hit:
        part, folded = parts[candidate.ordinal], (parts[n].document_id for n in candidate.duplicates)
        return Hit(
            rank=rank,
            document_id=part.document_id,
            part=part.part,
            score=candidate.score,
            influence=candidate.influence,
            text=part.text,
            metadata=dict(part.metadata),
            parts=None if candidate.members is None else len(candidate.members),
            lexical=candidate.lexical,
            duplicates=None if run.options.dedupe is None else tuple(folded),
            layers=self._layers(run, position, candidate) if run.options.layers else None,
        )

    def _layers(self, run: "_Run", position: int, candidate: Candidate) -> dict[str, float]:
        """Return the score of each layer group, as reported: signed and weighted."""
        ordinals = np.array(candidate.members or (candidate.ordinal,), np.int64)
        query, weights = ready_for(self._reader, run.vectors_QD[position : position + 1]), run.selection.weights
        scores_SN = run.signs[position] * part_slice_scores(self._reader, ordinals, query)[:, 0]
        if weights is not None:
            scores_SN = scores_SN * torch.from_numpy(weights[ordinals])
        scores_S = scores_SN.sum(1) * run.scale(position)
        return dict(zip(self._groups, scores_S.tolist(), strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Run:
    """One search: prepared query vectors, one for each query and sign, and what belongs to each."""

    vectors_QD: Tensor
    signs: list[float]
    asked: Callable[[Tensor], Tensor]
    lexical: list[Lexical]
    selection: Selection
    options: SearchOptions
    reranked: list[int]

    @cached_property
    def _norms(self) -> list[float]:
        norms: list[float] = self.asked(self.vectors_QD).norm(dim=1).tolist()
        return norms

    def scale(self, position: int) -> float:
        """What the scores of a query are multiplied by, beside the weights of the parts."""
        if self.options.normalise != "unit":
            return 1.0
        return 1.0 / max(self._norms[position], 1e-30)


def _takes_both(options: SearchOptions) -> bool:
    """Say whether candidates for the exact re-rank are taken by score and by the query's words."""
    return options.exact and options.words == "candidates"


def _signed(queries_QD: Tensor, signs: Sequence[float]) -> Tensor:
    """Return the queries once for each sign; as they are, uncopied, where that is plus alone."""
    return queries_QD if list(signs) == [1.0] else torch.cat([sign * queries_QD for sign in signs])
