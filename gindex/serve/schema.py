"""What requests and answers hold, as the OpenAPI document describes it."""

from dataclasses import fields
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from gindex.config import (
    CANDIDATE_RANKS,
    GROUP_SCORES,
    GROUPINGS,
    LONG_QUERIES,
    NORMALISATIONS,
    REFINEMENTS,
    SearchOptions,
    default_of,
    help_of,
)

LONGEST_TEXT = 200_000
"""Most characters of a prompt, filter or id; the limits of tokens and of the body are below it in all but odd cases."""

NOTES = (
    "What is to be told of how the query became tokens: a prompt that was cut, a token that holds the end of the "
    "prompt and the beginning of the completion."
)


def _choice(values: tuple[str, ...]) -> dict[str, Any]:
    return {"enum": list(values)}


def _option(name: str) -> Any:
    return Field(default=default_of(SearchOptions, name), description=help_of(SearchOptions, name))


Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
Count = Annotated[int, Field(ge=1)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Options(_Request):
    """How to search; the fields of `SearchOptions` with its defaults."""

    k: Annotated[Count, _option("k")]
    negative: Annotated[bool, _option("negative")]
    both: Annotated[bool, _option("both")]
    shortlist: Annotated[int, Field(ge=0), _option("shortlist")]
    scan: Annotated[bool, _option("scan")]
    exact: Annotated[bool, _option("exact")]
    candidates: Annotated[Count, _option("candidates")]
    candidates_by: Annotated[str, Field(json_schema_extra=_choice(CANDIDATE_RANKS)), _option("candidates_by")]
    refine: Annotated[str | None, Field(json_schema_extra=_choice(REFINEMENTS)), _option("refine")]
    refine_parts: Annotated[int, Field(ge=0), _option("refine_parts")]
    refine_iterations: Annotated[int, Field(ge=0), _option("refine_iterations")]
    refine_tolerance: Annotated[float, Field(gt=0), _option("refine_tolerance")]
    refine_scale: Annotated[float, Field(ge=0), _option("refine_scale")]
    stop_early: Annotated[float | None, _option("stop_early")]
    where: Annotated[Text | None, _option("where")]
    bm25: Annotated[Text | None, _option("bm25")]
    bm25_candidates: Annotated[Count, _option("bm25_candidates")]
    hybrid: Annotated[bool, _option("hybrid")]
    normalise: Annotated[str, Field(json_schema_extra=_choice(NORMALISATIONS)), _option("normalise")]
    group_by: Annotated[str, Field(json_schema_extra=_choice(GROUPINGS)), _option("group_by")]
    group_score: Annotated[str, Field(json_schema_extra=_choice(GROUP_SCORES)), _option("group_score")]
    dedupe: Annotated[float | None, Field(gt=0, le=1), _option("dedupe")]
    layers: Annotated[bool, _option("layers")]
    long_queries: Annotated[str, Field(json_schema_extra=_choice(LONG_QUERIES)), _option("long_queries")]
    histogram: Annotated[bool, Field(description="Give the spread of the scores of all parts.")] = False

    def search_options(self) -> SearchOptions:
        """Return them as the library takes them.

        Raises:
            ConfigError: One is out of range, or excludes another.
        """
        return SearchOptions(**{each.name: getattr(self, each.name) for each in fields(SearchOptions)})


class QueryBody(_Request):
    """A query of text, or a ready vector."""

    prompt: Annotated[Text | None, Field(description="Text before the completion; alone, all of it counts.")] = None
    completion: Annotated[Text | None, Field(description="Text whose tokens count in the query's loss.")] = None
    id: Annotated[Text | None, Field(description="Given back with the answer.")] = None
    vector: Annotated[
        str | None, Field(description="In the place of a prompt: base64 of little-endian float32 [dimension].")
    ] = None


class SearchBody(QueryBody, Options):
    """One query and how to search."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"prompt": "A race condition is", "completion": " a bug", "k": 5, "where": "part_of = 'n.'"}
        }
    )


class BatchBody(Options):
    """Many queries and how to search for all of them."""

    queries: Annotated[list[QueryBody], Field(min_length=1)]
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"queries": [{"id": "1", "prompt": "A race condition is", "completion": " a bug"}], "k": 5}
        }
    )


class ExplainBody(_Request):
    """A query, and the document whose influence on it is to be told apart."""

    document_id: str
    prompt: Text
    completion: Text | None = None
    long_queries: Annotated[str, Field(json_schema_extra=_choice(LONG_QUERIES)), _option("long_queries")]
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"document_id": "race condition", "prompt": "A race condition is", "completion": " a bug"}
        }
    )


class DocumentBody(_Request):
    """The id of a document."""

    document_id: Annotated[str, Field(description="Of any text; the body's limit is its own.")]
    model_config = ConfigDict(json_schema_extra={"example": {"document_id": "race condition"}})


class NewDocument(BaseModel):
    """A document to add; further fields are its metadata."""

    id: Annotated[str, Field(min_length=1)]
    text: Annotated[str, Field(min_length=1)]
    model_config = ConfigDict(extra="allow", strict=True)


class AddBody(_Request):
    """Documents to add."""

    documents: Annotated[list[NewDocument], Field(min_length=1)]
    replace: Annotated[bool, Field(description="Replace documents of the index that have the same ids.")] = False
    model_config = ConfigDict(
        json_schema_extra={"example": {"documents": [{"id": "new-1", "text": "A heisenbug vanishes when watched."}]}}
    )


class HitBody(BaseModel):
    """One part of a document that was found."""

    rank: int
    document_id: str
    part: int
    score: Annotated[float, Field(description="Positive: training on it raises the query's log-likelihood.")]
    influence: Annotated[float | None, Field(description="Exact EK-FAC influence, where it was asked for.")]
    text: str
    metadata: dict[str, Any]
    parts: int | None = None
    lexical: float | None = None
    duplicates: list[str] | None = None
    layers: dict[str, float] | None = None


class AnsweredQuery(BaseModel):
    """The query as it was read."""

    id: str | None
    prompt: str
    completion: str | None
    tokens: int


class TimingBody(BaseModel):
    """Milliseconds spent; of queries that ran in one batch, each is told the time of the batch."""

    load: float
    gradient: float
    search: float
    rerank: float
    total: float


class RefinementBody(BaseModel):
    """How a query was refined."""

    method: str
    parts: int
    iterations: int
    residual: Annotated[float, Field(description="What the solver left of the query's gradient, relative.")]
    converged: bool
    seconds: float


class HistogramBody(BaseModel):
    """The spread of the scores of all parts; tails are pairs of rank and size."""

    parts: int
    sampled: bool
    edges: list[float]
    counts: list[int]
    positive: list[tuple[int, float]]
    negative: list[tuple[int, float]]


class UntrackedBody(BaseModel):
    """Weights that are not tracked for one reason."""

    weights: Annotated[str, Field(description="Their names, `*` for the number of a block.")]
    count: int
    parameters: int
    share: Annotated[float | None, Field(description="Share of the body; null outside it.")]
    reason: str


class CoverageBody(BaseModel):
    """How much of the model is tracked: influence through the rest is not seen."""

    share: float
    of: Annotated[str, Field(description="What it is a share of: body, all but embeddings and head; or model.")]
    untracked: list[UntrackedBody]
    warning: Annotated[str | None, Field(description="Said where less than half is tracked.")] = None


class ResultBody(BaseModel):
    """The answer to one query."""

    query: AnsweredQuery
    hits: list[HitBody]
    negative_hits: list[HitBody] | None = None
    reranked: int | None = None
    refinement: RefinementBody | None = None
    coverage: CoverageBody | None = None
    notes: Annotated[list[str] | None, Field(description=NOTES)] = None
    timing_ms: TimingBody
    histogram: HistogramBody | None = None


class AskedQuery(BaseModel):
    """A query that has no answer, as it came."""

    id: str | None
    prompt: str
    completion: str | None


class _Parts(BaseModel):
    field: Annotated[str | None, Field(description="Where: a setting of the request, a document, a query.")] = None
    expected: Annotated[str | None, Field(description="What was expected there.")] = None
    found: Annotated[str | None, Field(description="What was found instead.")] = None
    remedy: Annotated[str | None, Field(description="What to do about it.")] = None


class ErrorBody(_Parts):
    """Why a query has no answer: the whole message, and its parts where it has any."""

    type: str
    detail: str


class FailureBody(BaseModel):
    """What stands in the place of the result of a query that has none; the others are answered."""

    query: AskedQuery
    error: ErrorBody


class SearchAnswer(ResultBody):
    """The answer of a search, with the version of the index that it came from."""

    index: str
    version: int


class BatchAnswer(BaseModel):
    """The answers to many queries, in their order."""

    index: str
    version: int
    results: list[ResultBody | FailureBody]


class TokenBody(BaseModel):
    """One token and its share of the influence."""

    text: str
    influence: float
    context: bool


class PartBody(BaseModel):
    """One part of the document."""

    part: int
    influence: float
    tokens: list[TokenBody]


class ExplainAnswer(BaseModel):
    """Exact influence of a document on a query, told apart."""

    index: str
    version: int
    document_id: str
    query: dict[str, str | None]
    influence: float
    parts: list[PartBody]
    layers: dict[str, float]
    groups: dict[str, float]
    notes: Annotated[list[str], Field(description=NOTES)] = []


class DocumentAnswer(BaseModel):
    """A document."""

    index: str
    version: int
    document_id: str
    text: str
    metadata: dict[str, Any]


class ChangeAnswer(BaseModel):
    """What a change to an index did."""

    index: str
    version: int
    added: int = 0
    replaced: int = 0
    deleted: int = 0


class IndexAnswer(BaseModel):
    """What an index is."""

    name: str
    ready: bool
    reason: Annotated[str | None, Field(description="Why it is not ready.")] = None
    version: int | None = None
    created: str | None = None
    documents: int | None = None
    parts: int | None = None
    dimension: int | None = None
    projection: Annotated[str | None, Field(description="Fingerprint; vectors must be made with it.")] = None
    prompts: Annotated[bool, Field(description="Whether prompts are answered, or vectors alone.")] = True
    writable: bool = False
    search_index: str | None = None
    lossless: Annotated[bool | None, Field(description="Whether a search finds what a full scan would.")] = None
    recall: dict[str, float] | None = None
    fidelity: dict[str, Any] | None = None
    layer_groups: list[str] | None = None
    coverage: CoverageBody | None = None


class IndexesAnswer(BaseModel):
    """All indexes."""

    indexes: list[IndexAnswer]


class Line(BaseModel):
    """One line of an answer in lines: what was asked for is in the last one."""

    state: Annotated[str, Field(json_schema_extra=_choice(("waiting", "running", "done", "failed")))]
    place: Annotated[int | None, Field(description="Place in the queue, 1 for the next, while it waits.")] = None
    phase: Annotated[str | None, Field(description="What is done now.")] = None
    done: Annotated[int | None, Field(description="Units of the phase that are done.")] = None
    total: Annotated[int | None, Field(description="All units of the phase, where that is known.")] = None
    unit: Annotated[str | None, Field(description="What the units are: parts, layers.")] = None
    result: Annotated[dict[str, Any] | None, Field(description="The answer, as without lines.")] = None
    problem: Annotated[dict[str, Any] | None, Field(description="What went wrong, as a Problem.")] = None


class Problem(_Parts):
    """What went wrong (RFC 9457): the whole message, and its parts where it has any."""

    type: str
    title: str
    status: int
    detail: str
