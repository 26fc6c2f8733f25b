"""Results of searches: hits, the time taken, and both as plain values."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from gindex.exact.certificate import Certificate
from gindex.exact.refinement import Refinement
from gindex.queries.query import FailedQuery, Query, query_record
from gindex.search.groups import Groups
from gindex.store.coverage import Coverage


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
        parts: How many parts of the document the score and the influence are put together from; None for one part.
        lexical: BM25 score of the document; None where it wasn't asked for or has none of the words.
        duplicates: Document ids of the hits that were folded into this one; None where it wasn't asked for.
        layers: The score of each layer group; None where it wasn't asked for.
        form: What the document was made of, as `messages`; None for plain text.
        pictures: How many pictures the document has beside its text; None without any.
    """

    rank: int
    document_id: str
    part: int
    score: float
    influence: float | None
    text: str
    metadata: dict[str, Any]
    parts: int | None = None
    lexical: float | None = None
    duplicates: tuple[str, ...] | None = None
    layers: dict[str, float] | None = None
    form: str | None = None
    pictures: int | None = None


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
    """The answer to one query.

    Attributes:
        query: The query; empty where a vector was given.
        tokens: Number of tokens of all its texts.
        hits: Best first; the most negative first where those were asked for.
        timing_ms: The time taken.
        negative_hits: The most negative first, where both ends were asked for.
        reranked: How many parts the exact influence was computed of; None where it wasn't asked for.
        certificate: How likely it is that none of the true best was missed; None where exact influence wasn't asked
            for, or does not order the hits: with words ranked, or summed over documents.
        refinement: How the query was refined; None where it wasn't asked for.
        groups: The scores of all documents by the value of a field; None where it wasn't asked for.
        notes: What is to be told of how the query became tokens: a prompt or a conversation that was cut, a token that
            holds the end of the prompt and the beginning of the completion.
        version: Version of the index that answered.
        coverage: How much of the model is tracked, and what is not.
    """

    query: Query
    tokens: int
    hits: tuple[Hit, ...]
    timing_ms: Timing
    negative_hits: tuple[Hit, ...] | None = None
    reranked: int | None = None
    certificate: Certificate | None = None
    refinement: Refinement | None = None
    groups: Groups | None = None
    notes: tuple[str, ...] = ()
    version: int | None = field(default=None, compare=False)
    coverage: Coverage | None = field(default=None, compare=False)


Outcome = SearchResult | FailedQuery
Usable = TypeVar("Usable")


def answered(outcomes: Sequence[Outcome]) -> list[SearchResult]:
    """Results of queries that all have one.

    Raises:
        GindexError: The error of the first that has none.
    """
    return usable(outcomes)


def usable(outcomes: Sequence[Usable | FailedQuery]) -> list[Usable]:
    """What has become of queries of which none may fail.

    Raises:
        GindexError: The error of the first that failed.
    """
    found: list[Usable] = []
    for outcome in outcomes:
        if isinstance(outcome, FailedQuery):
            raise outcome.error
        found.append(outcome)
    return found


@dataclass
class Clock:
    """Milliseconds of the stages of a search."""

    start: float = field(default_factory=time.perf_counter)
    laps: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("load", "gradient", "search", "rerank"), 0.0))

    def lap(self, name: str) -> None:
        """Count the time since the last lap as spent on `name`."""
        self.laps[name] += self._elapsed() - sum(self.laps.values())

    def timing(self) -> Timing:
        """The time spent so far."""
        return Timing(**self.laps, total=self._elapsed())

    def _elapsed(self) -> float:
        return (time.perf_counter() - self.start) * 1000


def result_record(result: SearchResult) -> dict[str, Any]:
    """A result as the plain values that `gindex search` prints as JSON; what wasn't asked for is left out."""
    record: dict[str, Any] = {
        "query": query_record(result.query) | {"tokens": result.tokens},
        "hits": [_hit_record(hit) for hit in result.hits],
    }
    if result.negative_hits is not None:
        record["negative_hits"] = [_hit_record(hit) for hit in result.negative_hits]
    if result.reranked is not None:
        record["reranked"] = result.reranked
    if result.certificate is not None:
        record["certificate"] = asdict(result.certificate)
    if result.refinement is not None:
        record["refinement"] = asdict(result.refinement)
    if result.groups is not None:
        record["groups"] = asdict(result.groups)
    if result.coverage is not None:
        record["coverage"] = result.coverage.record()
    if result.notes:
        record["notes"] = list(result.notes)
    return record | {"timing_ms": asdict(result.timing_ms)}


def failure_record(failed: FailedQuery) -> dict[str, Any]:
    """A query that has no answer as the plain values that `gindex search` prints as JSON in its place."""
    error = {"type": type(failed.error).__name__, "detail": str(failed.error)} | failed.error.parts()
    return {"query": query_record(failed.query), "error": error}


def _hit_record(hit: Hit) -> dict[str, Any]:
    optional = ("parts", "lexical", "duplicates", "layers", "form", "pictures")
    return {name: value for name, value in vars(hit).items() if value is not None or name not in optional}
