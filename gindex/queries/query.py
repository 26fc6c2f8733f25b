"""A query, and one that has no answer."""

from dataclasses import dataclass

from gindex.errors import GindexError


@dataclass(frozen=True, kw_only=True)
class Query:
    """A prompt and, where given, the completion whose tokens alone count in the loss."""

    prompt: str
    completion: str | None = None
    id: str | None = None

    @property
    def text(self) -> str:
        """What the model reads: the completion goes on where the prompt ends."""
        return self.prompt + (self.completion or "")


@dataclass(frozen=True, kw_only=True)
class FailedQuery:
    """One of many queries that has no answer, in the place of its result: the query, and the error that it would raise.

    The other queries are answered.
    """

    query: Query
    error: GindexError
