"""The order by exact influence: computed once for both ends of a query, and stopped early."""

import numpy as np
import pytest
import torch

from gindex.errors import ConfigError
from gindex.search.ask import Ask, Search
from gindex.search.candidates import Candidate
from gindex.search.exact_order import ExactOrder
from gindex.search.selection import EVERYTHING
from gindex.search_options import SearchOptions

PROMPT, COMPLETION = "the compiler race", " bug the stack"


@pytest.mark.parametrize("settings", [{}, {"both": True}, {"negative": True}, {"normalise": "relatif"}])
def test_stopped_search_re_ranks_less_and_keeps_what_it_knows(index, settings):
    whole = index.search(PROMPT, COMPLETION, k=3, exact=True, candidates=120, **settings)
    early = index.search(PROMPT, COMPLETION, k=3, exact=True, candidates=120, stop_early=1000.0, **settings)
    never = index.search(PROMPT, COMPLETION, k=3, exact=True, candidates=120, stop_early=1e-9, **settings)
    ends = 2 if settings.get("both") else 1
    assert 16 <= early.reranked <= 16 * ends and whole.reranked == never.reranked >= 120
    for got, expected in zip(never.hits, whole.hits, strict=True):
        assert (got.document_id, got.part) == (expected.document_id, expected.part)
        # Batches of another make-up round otherwise.
        assert got.influence == pytest.approx(expected.influence, rel=1e-3)
    assert len(early.hits) == 3 and all(hit.influence is not None for hit in early.hits)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "`exact` beside it, found none"),
        ({"exact": True, "words": "rank"}, "hits that are single parts, by influence alone"),
        ({"exact": True, "hits": "document"}, "hits that are single parts, by influence alone"),
        ({"exact": True, "dedupe": 0.9}, "hits that are single parts, by influence alone"),
    ],
)
def test_stop_early_needs_an_exact_ranking_of_parts(index, settings, expected):
    with pytest.raises(ConfigError, match=f"stop_early: expected {expected}"):
        index.search(PROMPT, stop_early=0.5, **settings)
    with pytest.raises(ConfigError, match="stop_early: expected a positive finite number"):
        index.search(PROMPT, exact=True, stop_early=float("nan"))


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
    order = ExactOrder(search, influence, None)
    return order, [[c.ordinal for c in of] for of in order.order(found)], influence.asked


def test_the_ends_of_a_query_share_influence_that_is_computed_once():
    ends = [(0, 1.0, [3, 1, 2]), (1, 1.0, [5, 7]), (0, -1.0, [2, 4]), (1, -1.0, [7, 6])]
    order, ordered, asked = order_of(SearchOptions(exact=True, both=True), ends)
    assert asked == [[[1, 2, 3, 4], [5, 6, 7]]] and order.reranked == [4, 3]
    assert ordered == [[3, 2, 1], [7, 5], [2, 4], [6, 7]]


def test_where_nothing_is_found_nothing_is_re_ranked():
    for options in (SearchOptions(exact=True), SearchOptions(exact=True, stop_early=0.5)):
        order, ordered, asked = order_of(options, [(0, 1.0, [])])
        assert ordered == [[]] and asked == [] and order.reranked == [0]
