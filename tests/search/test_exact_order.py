"""The order by exact influence: computed once for both ends of a query, certified, and ended when it is certain."""

import numpy as np
import pytest
import torch

from gindex.errors import ConfigError
from gindex.exact.certificate import Certificate
from gindex.exact.certification import Known, Outside, certify
from gindex.progress import Silent
from gindex.queries.query import Query
from gindex.search.ask import Ask, Search
from gindex.search.candidates import Candidate
from gindex.search.exact_order import ExactOrder
from gindex.search.selection import EVERYTHING
from gindex.search_options import SearchOptions

PROMPT, COMPLETION = "the compiler race", " bug the stack"


@pytest.mark.parametrize("settings", [{}, {"both": True}, {"negative": True}, {"normalise": "relatif"}])
def test_a_search_that_is_certain_re_ranks_less_and_keeps_what_it_knows(index, settings):
    whole = index.search(PROMPT, COMPLETION, k=3, exact=True, candidates=120, **settings)
    early = index.search(PROMPT, COMPLETION, k=3, exact=True, candidates=120, certainty=1e-9, **settings)
    never = index.search(PROMPT, COMPLETION, k=3, exact=True, candidates=120, certainty=0.999, **settings)
    ends = 2 if settings.get("both") else 1
    assert 16 <= early.reranked <= 40 * ends < never.reranked <= whole.reranked
    assert early.certificate.probability >= 1e-9 and whole.reranked >= 120
    for got, expected in zip(never.hits, whole.hits, strict=True):
        assert (got.document_id, got.part) == (expected.document_id, expected.part)
        # Batches of another make-up round otherwise.
        assert got.influence == pytest.approx(expected.influence, rel=1e-3)
    assert len(early.hits) == 3 and all(hit.influence is not None for hit in early.hits)


@pytest.mark.parametrize("settings", [{}, {"negative": True}, {"normalise": "relatif"}, {"where": "number < 120"}])
def test_the_certificate_is_that_of_what_was_re_ranked_and_what_was_not(index, settings):
    found = index.search(PROMPT, COMPLETION, k=4, exact=True, candidates=40, words="off", **settings)
    parts, documents = index.snapshot.usable_parts, index.snapshot.documents
    if "where" in settings:
        parts = np.array([n for n in parts if documents.parts([n])[0].metadata["number"] < 120])
    sign = -1.0 if settings.get("negative") else 1.0
    (query,) = index.encode([Query(prompt=PROMPT, completion=COMPLETION)])
    scores = sign * index.searcher.scores(query.vector_D[None], parts)[0].astype(np.float64)
    (influence,) = index.reranker.influence([query.tokens], [parts], Silent())
    influence, sizes = sign * influence, np.sqrt(index.snapshot.vectors.self_influence(parts).astype(np.float64))
    if settings.get("normalise") == "relatif":
        scores, influence, sizes = scores / sizes, influence / sizes, np.ones(len(sizes))
    order = np.argsort(-scores)
    first, rest = order[:40], order[40:]
    expected = certify(
        Known(influence_M=influence[first], scores_M=scores[first], sizes_M=sizes[first]),
        Outside(scores_R=scores[rest], sizes_R=sizes[rest], counts_R=np.ones(len(rest))),
        float(np.sort(influence[first])[-4]),
        4,
    )
    # Influence is rounded otherwise in another batch, and its errors are what is fitted.
    assert found.certificate.probability == pytest.approx(expected.probability, rel=0.01)
    assert found.certificate.outside == expected.outside == len(parts) - 40 and found.reranked == 40


def test_what_is_sampled_of_many_parts_counts_for_all(index, monkeypatch):
    settings = {"k": 3, "exact": True, "candidates": 60}
    whole = index.search(PROMPT, COMPLETION, **settings).certificate
    monkeypatch.setattr("gindex.search.population.SAMPLED", 100)
    monkeypatch.setattr("gindex.search.population.NEXT", 30)
    sampled = index.search(PROMPT, COMPLETION, **settings).certificate
    assert sampled.outside == whole.outside and 0.01 < whole.probability < 0.99
    # Most of the risk is in the best by score, which are taken one by one.
    assert -np.log(sampled.probability) == pytest.approx(-np.log(whole.probability), rel=0.1)


def test_what_is_recomputed_in_full_is_certain(index):
    everything = Certificate(probability=1.0, outside=0)
    assert index.search(PROMPT, COMPLETION, exact=True, candidates=1000, words="off").certificate == everything
    few = index.search(PROMPT, COMPLETION, exact=True, where="number < 3")
    assert few.certificate == everything and 3 <= len(few.hits) < 10
    both = index.search(PROMPT, COMPLETION, exact=True, both=True, hits="document", dedupe=0.9, candidates=1000)
    assert both.certificate == everything


def test_where_hits_are_not_single_parts_by_influence_no_certificate_is_given(index):
    for settings in ({"words": "rank"}, {"hits": "document", "document_score": "sum"}):
        assert index.search(PROMPT, exact=True, candidates=20, **settings).certificate is None
    assert index.search(PROMPT).certificate is None
    assert index.search(PROMPT, exact=True, where="number > 1000").certificate is None  # nothing may be found
    documents = index.search(PROMPT, COMPLETION, exact=True, candidates=40, k=3, hits="document").certificate
    assert 0 < documents.probability < 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "`exact` beside it, found none"),
        ({"exact": True, "words": "rank"}, "hits that are single parts, by influence alone"),
        ({"exact": True, "hits": "document"}, "hits that are single parts, by influence alone"),
        ({"exact": True, "dedupe": 0.9}, "hits that are single parts, by influence alone"),
    ],
)
def test_certainty_needs_an_exact_ranking_of_parts(index, settings, expected):
    with pytest.raises(ConfigError, match=f"certainty: expected {expected}"):
        index.search(PROMPT, certainty=0.5, **settings)
    for value in (float("nan"), 1.0, 0.0):
        with pytest.raises(ConfigError, match=r"certainty: expected a number in \(0, 0.999\]"):
            index.search(PROMPT, exact=True, certainty=value)
    with pytest.raises(ConfigError, match=r"stop_early.*certainty"):
        index.search(PROMPT, exact=True, stop_early=0.5)


class CountedInfluence:
    """Influence of a part is its ordinal; keeps what was asked."""

    def __init__(self) -> None:
        self.asked: list[list[list[int]]] = []

    def of(self, parts):
        self.asked.append([of_query.tolist() for of_query in parts])
        return [of_query.astype(np.float32) for of_query in parts]


def order_of(options: SearchOptions, ends: list[tuple[int, float, list[int]]]) -> tuple[ExactOrder, list, list]:
    """Order candidates, best by score first, of ends of queries: query, sign, and parts."""
    asks = [Ask(query=query, sign=sign, vector_1D=torch.zeros(1, 8), scale=1.0, ranks=[]) for query, sign, _ in ends]
    search = Search(asks=asks, vectors_AD=torch.zeros(len(asks), 8), selection=EVERYTHING, options=options)
    found = [[Candidate(ordinal=n, score=1.0, merit=1.0) for n in parts] for _, _, parts in ends]
    influence = CountedInfluence()
    order = ExactOrder(search, influence, None, None)
    return order, [[c.ordinal for c in of] for of in order.order(found)], influence.asked


def test_the_ends_of_a_query_share_influence_that_is_computed_once():
    ends = [(0, 1.0, [3, 1, 2]), (1, 1.0, [5, 7]), (0, -1.0, [2, 4]), (1, -1.0, [7, 6])]
    order, ordered, asked = order_of(SearchOptions(exact=True, both=True, words="rank"), ends)
    assert asked == [[[1, 2, 3, 4], [5, 6, 7]]] and order.reranked == [4, 3]
    assert ordered == [[3, 2, 1], [7, 5], [2, 4], [6, 7]]


def test_where_nothing_is_found_nothing_is_re_ranked():
    order, ordered, asked = order_of(SearchOptions(exact=True, words="rank"), [(0, 1.0, [])])
    assert ordered == [[]] and asked == [] and order.reranked == [0] and order.certificates([[]]) == [None]
