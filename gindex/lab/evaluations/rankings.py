"""Rankings of an index's documents for queries, by the methods that are compared.

    index     scores of the stored vectors
    funnel    the candidates of `exact`, re-ranked by exact influence; the others after them by score
    exact     exact influence of every document
    bm25      BM25 score of the query's words
    random    a random order

Axes: Q queries, N documents.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.errors import ConfigError
from gindex.index import GradientIndex
from gindex.lab.evaluations.config import BM25, EXACT, INDEX, METHODS, RANDOM, RankingsConfig
from gindex.progress import Progress
from gindex.queries.query import Query
from gindex.queries.tokens import log_notes
from gindex.search.result import SearchResult
from gindex.search_options import REFUSE

Ranking = list[tuple[str, float]]
"""Document ids with their values, best first."""


def rank(
    index: GradientIndex,
    queries: Sequence[Query],
    method: str,
    depth: int,
    config: RankingsConfig,
    progress: Progress,
) -> list[Ranking]:
    """Rank the documents of an index for each query; a document of several parts has the sum of their values.

    Args:
        index: The index.
        queries: Q queries.
        method: One of `METHODS`.
        depth: Documents of each ranking, fewer where there are fewer or BM25 finds no word of the query in more.
        config: How many candidates the funnel re-ranks, and the seed of the random order.
        progress: Where the work is reported.

    Raises:
        ConfigError: The method is unknown.
        GindexError: A query cannot be searched for.
    """
    if method == BM25:
        return [index.lexical(query.text, depth) for query in queries]
    if method == RANDOM:
        return [_shuffled(index.ids(), depth, config.seed, number) for number in range(len(queries))]
    if method not in METHODS:
        raise ConfigError(field="method", expected=f"one of {', '.join(METHODS)}", found=repr(method))
    common: dict[str, Any] = {
        "hits": "document", "document_score": "sum", "long_queries": REFUSE, "progress": progress
    }  # fmt: skip
    parts = index.manifest.stored_parts
    if method == EXACT:
        found = index.search_many(queries, k=depth, scan=True, exact=True, candidates=parts, **common)
        log_notes([result.notes for result in found])
        return [_ranking(result) for result in found]
    scored = index.search_many(queries, k=depth, scan=True, **common)
    log_notes([result.notes for result in scored])
    by_score = [_ranking(result) for result in scored]
    if method == INDEX:
        return by_score
    found = index.search_many(queries, k=config.candidates, exact=True, candidates=config.candidates, **common)
    return [_continued(_ranking(result), rest)[:depth] for result, rest in zip(found, by_score, strict=True)]


def scores_of(rankings: Sequence[Ranking], ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """The values [Q, N] of documents in the order of their ids; 0 where a ranking lacks one."""
    values = [dict(ranking) for ranking in rankings]
    return np.array([[of.get(document_id, 0.0) for document_id in ids] for of in values])


def _ranking(result: SearchResult) -> Ranking:
    return [(hit.document_id, hit.score if hit.influence is None else hit.influence) for hit in result.hits]


def _continued(first: Ranking, rest: Ranking) -> Ranking:
    placed = {document_id for document_id, _ in first}
    return first + [(document_id, value) for document_id, value in rest if document_id not in placed]


def _shuffled(ids: Sequence[str], depth: int, seed: int, number: int) -> Ranking:
    order = np.random.default_rng((seed, number)).permutation(len(ids))[:depth]
    return [(ids[n], 0.0) for n in order]
