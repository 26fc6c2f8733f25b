"""Queries that have become vectors: what stands between the gradient pass and the search."""

from dataclasses import dataclass

from torch import Tensor

from gindex.search.hit import Query
from gindex.search.queries import QueryTokens


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
    def words(self) -> str | None:
        """The query's text, whose words `hybrid` looks for; None where a vector was given."""
        return None if self.tokens is None else f"{self.query.prompt} {self.query.completion or ''}"
