"""What reads queries: a loaded model, as far as queries need it."""

from collections.abc import Sequence
from typing import Any, Protocol

from gindex.corpus.objectives import WeightedTokens
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.query import Query


class QueryReader(Protocol):
    """A tokenizer and its limits, and how a model's task makes texts of queries."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        ...

    @property
    def max_tokens(self) -> int:
        """Most tokens that the model takes."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many tokens the model has."""
        ...

    @property
    def query_forms(self) -> Sequence[str]:
        """Forms of queries that the task takes; sets of these always."""
        ...

    def stored(self, document_id: str) -> Sequence[WeightedTokens]:
        """Texts of a document that is asked as a query.

        Raises:
            QueryError: There is no such document, or it is a preference.
        """
        ...

    def query_texts(self, query: Query, form: str, limit: TokenLimit) -> Sequence[CountedText]:
        """Texts of a query of any form but a set or a preference: what was said and, where there is one, the contrast.

        Raises:
            QueryError: The query is none for the model's task, or has nothing to predict, or too many tokens.
        """
        ...
