"""Weighted sums of the losses of texts: what contrasts and sets of queries are."""

from collections.abc import Sequence
from math import fsum

import numpy as np

from gindex.corpus.contents import Content
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.errors import QueryError

ROUNDING = 1e-6
"""Sums of weights that are smaller than this share of their terms are zero: weights are float32."""

Term = tuple[float, WeightedTokens]
"""What the losses of a text are multiplied by, and the text."""


def weighted_sum(terms: Sequence[Term], name: str) -> Objective:
    """The sum of the losses of texts, each times its weight; equal texts are one, with the sum of their weights.

    Args:
        terms: At least one text with its weight.
        name: What messages of errors call the query.

    Raises:
        QueryError: All losses cancel out.
    """
    equal: dict[tuple[bytes, bytes, int, Content | None], list[Term]] = {}
    for weight, text in terms:
        equal.setdefault(text.question, []).append((weight, text))
    texts = [_sum_of_equal(of_text) for of_text in equal.values()]
    remaining = tuple(text for text in texts if text.counted.any())
    if not remaining:
        raise QueryError(
            field=name,
            expected="losses that do not cancel out",
            found="a sum of zero, on which no document has influence",
            remedy="change the weights, or leave out queries that are taken from one another",
        )
    return Objective(remaining)


def difference(said: WeightedTokens, contrast: WeightedTokens, name: str) -> list[Term]:
    """The loss of what was said less that of a contrast, as terms of a sum.

    Raises:
        QueryError: Both are the same.
    """
    same = said.question == contrast.question and np.array_equal(said.weights, contrast.weights)
    if same:
        raise QueryError(
            field=f"{name}, contrast",
            expected="another text than what was said",
            found="the same tokens: no document has influence on their difference, which is zero",
            remedy="give another, or leave it out",
        )
    return [(1.0, said), (-1.0, contrast)]


def shares(weights: Sequence[float], mean: bool, name: str) -> list[float]:
    """What each query of a set is multiplied by: its weight, divided by the sum of all for the mean.

    Raises:
        QueryError: The weights of a mean add up to zero.
    """
    if not mean:
        return list(weights)
    total = fsum(weights)
    if abs(total) <= ROUNDING * fsum(map(abs, weights)):
        raise QueryError(
            field=name,
            expected="weights that do not add up to zero, for their mean",
            found=f"{total:g}",
            remedy="use `aggregate` sum",
        )
    return [weight / total for weight in weights]


def _sum_of_equal(terms: Sequence[Term]) -> WeightedTokens:
    weighted = [weight * text.weights.astype(np.float64) for weight, text in terms]
    total, most = sum(weighted), sum(map(np.abs, weighted))
    return terms[0][1].weighted(np.where(np.abs(total) <= ROUNDING * most, 0, total).astype(np.float32))
