"""What is asked and what is answered."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Query:
    """A prompt and, where given, the completion whose tokens alone count in the loss."""

    prompt: str
    completion: str | None = None
    id: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One part of a document that was found.

    Attributes:
        rank: 1 for the first.
        document_id: The document's id in the corpus.
        part: Which part of the document, from 0.
        score: Inner product of the query's and the part's vectors; positive = training on it raises the query's
            log-likelihood. Not divided by the number of documents.
        influence: Exact EK-FAC influence, recomputed without projection; None where it wasn't asked for.
        text: The part's text.
        metadata: The other fields of the document's record.
    """

    rank: int
    document_id: str
    part: int
    score: float
    influence: float | None
    text: str
    metadata: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Milliseconds spent. Of a batch of queries, each is told the time of the whole batch."""

    load: float
    gradient: float
    search: float
    rerank: float
    total: float


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The answer to one query: the query, its number of tokens, the hits, best first, and the time taken."""

    query: Query
    tokens: int
    hits: tuple[Hit, ...]
    timing_ms: Timing
