"""Queries that have become vectors: what stands between the gradient pass and the search.

Axes: Q queries, D dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from gindex.documents.words import words_of
from gindex.errors import NonFiniteError, QueryError
from gindex.model.number_formats import wider
from gindex.queries.counted_text import quoted
from gindex.queries.forms import name_of
from gindex.queries.query import FailedQuery, Query
from gindex.queries.tokens import QueryTokens
from gindex.search.lexical import words_order
from gindex.search_options import SearchOptions
from gindex.vectors.encoder import Encoder


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedQuery:
    """One query vector.

    Attributes:
        query: The query; its prompt is empty where a vector was given.
        vector_D: Its vector.
        tokens: Its tokens, which exact re-ranking needs; None where a vector was given.
    """

    query: Query
    vector_D: Tensor
    tokens: QueryTokens | None = None

    @property
    def length(self) -> int:
        """Number of its tokens; 0 where a vector was given."""
        return 0 if self.tokens is None else len(self.tokens.objective)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be told of how it became tokens."""
        return () if self.tokens is None else self.tokens.notes

    @property
    def words(self) -> str | None:
        """The text whose words are looked for; None where a vector was given."""
        return None if self.tokens is None else self.tokens.words


def encode_queries(
    encoder: Encoder, queries: Sequence[Query], tokens: Sequence[QueryTokens | FailedQuery]
) -> list[EncodedQuery | FailedQuery]:
    """Turn queries into vectors in one gradient pass; a query that failed, or fails here, stays in its place.

    Args:
        encoder: The model, and the path from its passes to vectors.
        queries: Q queries.
        tokens: The tokens of each.
    """
    usable = [found for found in tokens if isinstance(found, QueryTokens)]
    if not usable:
        return [found for found in tokens if isinstance(found, FailedQuery)]
    batch = encoder.encode_queries([found.objective for found in usable])
    encoded = zip(batch.vectors, batch.finite.tolist(), strict=True)
    results: list[EncodedQuery | FailedQuery] = []
    for query, found in zip(queries, tokens, strict=True):
        if isinstance(found, FailedQuery):
            results.append(found)
            continue
        vector_D, finite = next(encoded)
        if finite:
            results.append(EncodedQuery(query=query, vector_D=vector_D, tokens=found))
        else:
            results.append(_not_finite(query, encoder.model.dtype_name))
    return results


def searchable(encoded: EncodedQuery | FailedQuery, options: SearchOptions) -> EncodedQuery | FailedQuery:
    """The query as it is, or a failure where the options ask for words that it does not have."""
    wanted = words_order(options) and options.words_text is None
    if not wanted or isinstance(encoded, FailedQuery) or encoded.words is None or words_of(encoded.words):
        return encoded
    error = QueryError(
        field=name_of(encoded.query),
        expected="at least one word for `words` rank to look for",
        found="none",
        remedy="give `words_text`",
    )
    return FailedQuery(query=encoded.query, error=error)


def _not_finite(query: Query, dtype: str) -> FailedQuery:
    error = NonFiniteError(
        field=f"query {query.id or quoted(query.text)}",
        expected="a finite loss and gradient",
        found=f"NaN or infinity in {dtype}",
        remedy=f"rephrase it, or build with `dtype` {wider(dtype)}",
    )
    return FailedQuery(query=query, error=error)
