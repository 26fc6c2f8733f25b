"""Settings as keywords, for type checkers: those of `SearchOptions` and `ScoreOptions`, which a test holds them to."""

from collections.abc import Mapping
from typing import Any, TypedDict


class SearchKeywords(TypedDict, total=False):
    """What `search(prompt, k=5)` may be given; see `SearchOptions`."""

    k: int
    negative: bool
    both: bool
    normalise: str
    hits: str
    document_score: str
    dedupe: float | None
    long_queries: str
    where: str | None
    words: str
    words_text: str | None
    words_documents: int
    group_by: str | None
    groups: int
    exact: bool
    candidates: int
    certainty: float | None
    layers: bool
    shortlist: int | None
    scan: bool
    refine: str | None
    refine_parts: int | None
    refine_settings: Mapping[str, Any] | None


class ScoreKeywords(TypedDict, total=False):
    """What `sweep(queries, exact=True)` may be given; see `ScoreOptions`."""

    hits: str
    normalise: str
    long_queries: str
    where: str | None
    exact: bool
