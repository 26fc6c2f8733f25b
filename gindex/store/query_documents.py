"""What reads queries of an index: its model, and its documents, which may be asked as queries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gindex.corpus.objectives import WeightedTokens
from gindex.documents.selection import parts_of_id
from gindex.documents.table import DocumentTable
from gindex.errors import QueryError, UnknownDocumentError
from gindex.model.load import LoadedModel
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.query import Query


@dataclass(frozen=True, kw_only=True, eq=False)
class IndexReader:
    """A `QueryReader` of an index."""

    model: LoadedModel
    documents: DocumentTable

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.model.tokenizer

    @property
    def max_tokens(self) -> int:
        """Most tokens that the model takes."""
        return self.model.max_tokens

    @property
    def vocabulary(self) -> int:
        """How many tokens the model has."""
        return self.model.vocabulary

    @property
    def query_forms(self) -> Sequence[str]:
        """Forms of queries that the task takes."""
        return self.model.query_forms

    def query_texts(self, query: Query, form: str, limit: TokenLimit) -> Sequence[CountedText]:
        """Texts of a query; see `QueryReader.query_texts`."""
        return self.model.query_texts(query, form, limit)

    def stored(self, document_id: str) -> Sequence[WeightedTokens]:
        """Texts of a document.

        Raises:
            QueryError: There is no such document, or it is a preference.
        """
        try:
            parts = [objective for _, objective in parts_of_id(self.documents, document_id)]
        except UnknownDocumentError as error:
            raise QueryError(**error.parts()) from error
        if any(part.preference is not None for part in parts):
            raise QueryError(
                field="document",
                expected="a document of texts",
                found="a preference",
                remedy="ask with `chosen` and `rejected`",
            )
        return [text for part in parts for text in part.texts]
