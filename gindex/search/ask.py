"""Asks: each is one end of one query, and has one result.

A query whose positive and negative influence are both looked for is two asks, which differ in the sign.

Axes: A asks, Q queries, D dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gindex.search.funnel import Funnel
from gindex.search.lexical import LexicalRanks
from gindex.search.selection import Selection
from gindex.search_options import SearchOptions


@dataclass(frozen=True, kw_only=True, eq=False)
class Ask:
    """One end of one query.

    Attributes:
        query: Which of the queries that are answered together; two asks of one query are its two ends.
        sign: 1 for the positive end, -1 for the negative one.
        vector_1D: What the stored vectors are scored with: the query's vector times the sign.
        scale: What scores are multiplied by, beside the weights of the parts.
        ranks: The documents with the best BM25 scores for the query's words, where words are looked for.
    """

    query: int
    sign: float
    vector_1D: Tensor
    scale: float
    ranks: LexicalRanks


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """What is looked for at once, and how.

    Attributes:
        asks: The asks.
        vectors_AD: Their vectors.
        selection: What may be found.
        options: The rest.
    """

    asks: list[Ask]
    vectors_AD: Tensor
    selection: Selection
    options: SearchOptions


def query_scales(funnel: Funnel, scoring_QD: Tensor, normalise: str) -> list[float]:
    """What the scores of each query are multiplied by [Q], beside the weights of the parts."""
    if normalise != "unit":
        return [1.0] * len(scoring_QD)
    return [1.0 / max(norm, 1e-30) for norm in funnel.index_queries(scoring_QD).norm(dim=1).tolist()]


def make_search(
    funnel: Funnel, queries_QD: Tensor, options: SearchOptions, ranks: Sequence[LexicalRanks], selection: Selection
) -> Search:
    """Ask for each end of each query.

    Args:
        funnel: Where it will be asked.
        queries_QD: Queries, as `Funnel.scoring_queries` gives them.
        options: What is looked for, and how.
        ranks: The documents with the best BM25 scores for each query's words.
        selection: What may be found.
    """
    signs = [1.0, -1.0] if options.both else [-1.0 if options.negative else 1.0]
    # One sign, plus, takes the queries as they are, without a copy.
    vectors_AD = queries_QD if signs == [1.0] else torch.cat([sign * queries_QD for sign in signs])
    scales = query_scales(funnel, vectors_AD, options.normalise)
    ends = [(query, sign) for sign in signs for query in range(len(queries_QD))]
    asks = [
        Ask(query=query, sign=sign, vector_1D=vector_1D, scale=scale, ranks=ranks[query])
        for (query, sign), vector_1D, scale in zip(ends, vectors_AD.split(1), scales, strict=True)
    ]
    return Search(asks=asks, vectors_AD=vectors_AD, selection=selection, options=options)
