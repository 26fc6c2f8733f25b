"""What requests and answers hold, as the OpenAPI document describes it.

Settings of a search come from `SearchOptions`, and results from the dataclasses of `gindex.search` and `gindex.exact`:
only what HTTP adds is written here.
"""

import json
from dataclasses import fields
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from gindex.config import LOSSES
from gindex.exact.explanation import Explanation
from gindex.queries.query import Query
from gindex.queries.records import FIELDS, read_query
from gindex.search.result import SearchResult
from gindex.search_options import AGGREGATES, SearchOptions
from gindex.serve.histogram import Histogram
from gindex.serve.models import (
    LONGEST_TEXT,
    MOST_TURNS,
    attribute_help,
    described,
    model_of,
    setting_field,
    setting_fields,
)
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


def _check_length(value: Any) -> Any:
    if len(json.dumps(value)) > LONGEST_TEXT:
        raise ValueError(f"at most {LONGEST_TEXT} characters of JSON in all")
    return value


_Bounded = AfterValidator(_check_length)
Messages = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_TURNS), _Bounded]
Tools = Annotated[list[dict[str, Any]], Field(max_length=MOST_TURNS), _Bounded]
Integers = Annotated[list[int], Field(max_length=LONGEST_TEXT)]
Numbers = Annotated[list[float], Field(max_length=LONGEST_TEXT)]
Label = Text | float | Annotated[list[Text | float], Field(max_length=LONGEST_TEXT), _Bounded]
Pair = Annotated[list[int], Field(min_length=2, max_length=2)]


_HELP = attribute_help(Query)


def _of_query(name: str, **more: Any) -> Any:
    """What a request says of a field of a query: the words of `Query`."""
    return Field(description=_HELP[name], **more)


class TextsBody(_Request):
    """A query in one of its forms: a prompt, messages, input_ids, or chosen and rejected; with its other fields."""

    prompt: Annotated[Text | None, _of_query("prompt")] = None
    completion: Annotated[Text | None, _of_query("completion")] = None
    messages: Annotated[Messages | None, _of_query("messages")] = None
    tools: Annotated[Tools | None, _of_query("tools")] = None
    loss: Annotated[str | None, _of_query("loss", json_schema_extra={"enum": list(LOSSES)})] = None
    turn: Annotated[int | None, _of_query("turn")] = None
    input_ids: Annotated[Integers | None, _of_query("input_ids")] = None
    labels: Annotated[Integers | None, _of_query("labels")] = None
    loss_mask: Annotated[Integers | None, _of_query("loss_mask")] = None
    loss_weights: Annotated[Numbers | None, _of_query("loss_weights")] = None
    chosen: Annotated[Text | Messages | None, _of_query("chosen")] = None
    rejected: Annotated[Text | Messages | None, _of_query("rejected")] = None
    ref_chosen_logp: Annotated[float | None, _of_query("ref_chosen_logp")] = None
    ref_rejected_logp: Annotated[float | None, _of_query("ref_rejected_logp")] = None
    beta: Annotated[float | None, _of_query("beta")] = None
    label: Annotated[Label | None, _of_query("label")] = None
    pair: Annotated[Text | None, _of_query("pair")] = None
    image: Annotated[Text | None, _of_query("image")] = None
    tensors: Annotated[dict[str, Any] | None, _Bounded, _of_query("tensors")] = None
    document: Annotated[Text | None, _of_query("document")] = None
    contrast: Annotated[Text | Messages | None, _of_query("contrast")] = None
    span: Annotated[Pair | None, _of_query("span")] = None
    weight: Annotated[float | None, _of_query("weight")] = None
    id: Annotated[Text | None, _of_query("id")] = None


class AskedBody(TextsBody):
    """A query in one of its forms, or a set of queries."""

    queries: Annotated[list[TextsBody] | None, _of_query("queries", min_length=1)] = None
    aggregate: Annotated[str | None, _of_query("aggregate", json_schema_extra={"enum": list(AGGREGATES)})] = None

    def query(self) -> Query:
        """The query as the library takes it.

        Raises:
            QueryError: It is of no form.
        """
        return read_query(self.model_dump(exclude_none=True, include=set(FIELDS)), "query")


class QueryBody(AskedBody):
    """A query in one of its forms, a set of queries, or a ready vector."""

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


class ExplainBody(AskedBody):
    """A query, and the document whose influence on it is to be told apart."""

    document_id: str
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


class PictureBody(DocumentBody):
    """The id of a document, and which of its pictures is asked for."""

    number: Annotated[int, Field(ge=0, description="Of the pictures beside a text, from 0.")] = 0


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


_MEMBER = model_of(Query, "QueryOfSet", leave_out=("queries", "aggregate"))


def _asked_model(name: str, **more: Any) -> type[BaseModel]:
    """Model of a query in an answer."""
    members = described(list[_MEMBER] | None, _HELP["queries"], None)  # type: ignore[valid-type]
    return model_of(Query, name, leave_out=("queries",), queries=members, **more)


_COVERAGE = model_of(Coverage, warning=described(str | None, "Said where less than half is tracked.", None))
_ASKED = _asked_model("Query")
_RESULT: dict[str, Any] = {
    "query": (_asked_model("AnsweredQuery", tokens=described(int, "Tokens that it was read as.")), ...),
    "coverage": described(_COVERAGE | None, "How much of the model is tracked.", None),
    "histogram": described(model_of(Histogram) | None, "The spread of the scores of all parts.", None),
}
_OF_INDEX: dict[str, Any] = {
    "index": described(str, "Name of the index."),
    "version": described(int, "Version of the index that answered."),
}

ResultBody = model_of(SearchResult, "Result", leave_out=("tokens", "version"), **_RESULT)
SearchAnswer = model_of(SearchResult, "SearchAnswer", leave_out=("tokens",), **_RESULT | _OF_INDEX)
ExplainAnswer = model_of(Explanation, "ExplainAnswer", query=(_ASKED, ...), **_OF_INDEX)


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
    text: Annotated[str, Field(description="The text; of other forms, the content as the model reads it.")]
    metadata: dict[str, Any]
    form: Annotated[
        str,
        Field(
            description="What it was made of: text, completion, messages, tokens, preference, label, words or masked."
        ),
    ]
    content: Annotated[dict[str, Any], Field(description="The fields of another form than text, as they were given.")]


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
    task: Annotated[str | None, Field(description="What its model was trained to do.")] = None
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
    work: Annotated[str | None, Field(description="What takes long, of an exact search.")] = None
    expected_s: Annotated[float | None, Field(description="Seconds that it takes about.")] = None
    result: Annotated[dict[str, Any] | None, Field(description="The answer, as without lines.")] = None
    problem: Annotated[dict[str, Any] | None, Field(description="What went wrong, as a Problem.")] = None


class Problem(_Parts):
    """What went wrong (RFC 9457): the whole message, and its parts where it has any."""

    type: str
    title: str
    status: int
    detail: str
