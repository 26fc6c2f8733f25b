"""Searches whose exact re-rank stops early."""

import pytest

from gindex.errors import ConfigError

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
        ({"exact": True, "group_by": "document"}, "hits that are single parts, by influence alone"),
        ({"exact": True, "dedupe": 0.9}, "hits that are single parts, by influence alone"),
    ],
)
def test_stop_early_needs_an_exact_ranking_of_parts(index, settings, expected):
    with pytest.raises(ConfigError, match=f"stop_early: expected {expected}"):
        index.search(PROMPT, stop_early=0.5, **settings)
    with pytest.raises(ConfigError, match="stop_early: expected a positive finite number"):
        index.search(PROMPT, exact=True, stop_early=float("nan"))
