"""What requests and answers hold, as the OpenAPI document describes it.

Settings of a search come from `SearchOptions`, and results from the dataclasses of `gindex.search` and `gindex.exact`:
only what HTTP adds is written here.
"""

from dataclasses import fields
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from gindex.config import SearchOptions
from gindex.exact.explanation import Explanation
from gindex.queries.query import Query
from gindex.search.result import SearchResult
from gindex.serve.histogram import Histogram
from gindex.serve.models import LONGEST_TEXT, described, model_of, setting_field, setting_fields
from gindex.store.coverage import Coverage

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Options(_Request):
    """How to search; beside its own field, those of `SearchOptions` with their defaults."""

    histogram: Annotated[bool, Field(description="Give the spread of the scores of all parts.")] = False

    def search_options(self) -> SearchOptions:
        """The options as the library takes them.

        Raises:
            ConfigError: One is out of range, needs another, or excludes it.
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


class OneQuery(QueryBody, Options):
    """One query and how to search."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"prompt": "A race condition is", "completion": " a bug", "k": 5, "where": "part_of = 'n.'"}
        }
    )


class ManyQueries(Options):
    """Many queries and how to search for all of them."""

    queries: Annotated[list[QueryBody], Field(min_length=1)]
    model_config = ConfigDict(
        json_schema_extra={
            "example": {"queries": [{"id": "1", "prompt": "A race condition is", "completion": " a bug"}], "k": 5}
        }
    )


def _with_settings(base: type[BaseModel], name: str) -> Any:
    """A request that takes the settings of a search beside what another takes."""
    return create_model(name, __base__=base, __doc__=base.__doc__, **setting_fields(SearchOptions))


AllOptions: type[Options] = _with_settings(Options, "Options")
SearchBody: type[OneQuery] = _with_settings(OneQuery, "SearchBody")
BatchBody: type[ManyQueries] = _with_settings(ManyQueries, "BatchBody")


class ExplainBody(_Request):
    """A query, and the document whose influence on it is to be told apart."""

    document_id: str
    prompt: Text
    completion: Text | None = None
    long_queries: Annotated[str, setting_field(SearchOptions, "long_queries")]
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


_COVERAGE = model_of(Coverage, warning=described(str | None, "Said where less than half is tracked.", None))
_ASKED = model_of(Query)
_RESULT: dict[str, Any] = {
    "query": (model_of(Query, "AnsweredQuery", tokens=described(int, "Tokens that it was read as.")), ...),
    "coverage": described(_COVERAGE | None, "How much of the model is tracked.", None),
    "histogram": described(model_of(Histogram) | None, "The spread of the scores of all parts.", None),
}
_OF_INDEX: dict[str, Any] = {
    "index": described(str, "Name of the index."),
    "version": described(int, "Version of the index that answered."),
}

ResultBody = model_of(SearchResult, "Result", leave_out=("tokens", "version"), **_RESULT)
SearchAnswer = model_of(SearchResult, "SearchAnswer", leave_out=("tokens",), **_RESULT | _OF_INDEX)
ExplainAnswer = model_of(Explanation, "ExplainAnswer", **_OF_INDEX)


class _Parts(BaseModel):
    field: Annotated[str | None, Field(description="Where: a setting of the request, a document, a query.")] = None
    expected: Annotated[str | None, Field(description="What was expected there.")] = None
    found: Annotated[str | None, Field(description="What was found instead.")] = None
    remedy: Annotated[str | None, Field(description="What to do about it.")] = None


class ErrorBody(_Parts):
    """Why a query has no answer: the whole message, and its parts where it has any."""

    type: str
    detail: str


FailureBody = create_model(
    "Failure",
    __doc__="What stands in the place of the result of a query that has none; the others are answered.",
    query=(_ASKED, ...),
    error=(ErrorBody, ...),
)
BatchAnswer = create_model(
    "BatchAnswer",
    __doc__="The answers to many queries, in their order.",
    results=(list[ResultBody | FailureBody], ...),  # type: ignore[valid-type]
    **_OF_INDEX,
)


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


class OneIndex(BaseModel):
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


IndexAnswer = create_model("IndexAnswer", __base__=OneIndex, __doc__=OneIndex.__doc__, coverage=_RESULT["coverage"])
IndexesAnswer = create_model("IndexesAnswer", __doc__="All indexes.", indexes=(list[IndexAnswer], ...))  # type: ignore[valid-type]


class Line(BaseModel):
    """One line of an answer in lines: what was asked for is in the last one."""

    state: Annotated[str, Field(json_schema_extra={"enum": ["waiting", "running", "done", "failed"]})]
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
