"""What a re-rank is said to cost, against the operations that torch counts while it runs."""

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from gindex.corpus.objectives import Objective
from gindex.exact.cost import curvature_cost, expected_seconds, influence_cost
from gindex.progress import Silent
from gindex.queries.tokens import QueryTokens

NEAR = 1.6
"""Factor that a cost may be off by: it leaves attention out, and counts embeddings that nothing is multiplied with."""


@pytest.fixture(scope="module")
def reranker(index):
    return index.reranker


def queries(count):
    numbers = np.random.default_rng(0)
    return [QueryTokens(Objective.counting(numbers.integers(5, 60, 20))) for _ in range(count)]


def operations(act):
    with FlopCounterMode(display=False) as counter:
        result = act()
    return counter.get_total_flops(), result


@pytest.mark.parametrize("count", [1, 6])
def test_the_cost_is_near_the_operations_that_are_counted(index, reranker, count):
    model, parts = index.model.tracked, index.snapshot.usable_parts[:30]
    asked = queries(count)
    curvature, held = operations(lambda: reranker.precondition(asked, Silent()))
    said = curvature_cost(model, count, 20 * count)
    assert curvature / NEAR < said.total < curvature * NEAR
    objectives = index.snapshot.documents.objectives(parts)
    with Silent().phase("exact influence", len(parts), "parts") as phase:
        found, _ = operations(
            lambda: reranker.influence_of(held, objectives, np.ones((count, len(parts)), np.bool_), phase)
        )
    said = influence_cost(model, count, len(parts), sum(map(len, objectives)))
    assert found / NEAR < said.total < found * NEAR


def test_more_work_takes_longer(index):
    model = index.model.tracked
    few, many = influence_cost(model, 1, 10, 400), influence_cost(model, 8, 300, 12000)
    assert 0 < expected_seconds(model, few) < expected_seconds(model, many)
    both = few + many
    assert both.total == pytest.approx(few.total + many.total)
    assert expected_seconds(model, both) == pytest.approx(expected_seconds(model, few) + expected_seconds(model, many))
