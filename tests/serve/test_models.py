"""Models made of dataclasses, and the dataclasses that a client makes of answers again."""

from dataclasses import asdict, fields, replace

import pytest

from gindex.errors import ServiceError
from gindex.exact.certificate import Certificate
from gindex.exact.explanation import Explanation, PartExplanation, TokenInfluence
from gindex.http.answers import explanation_of, result_of
from gindex.options import options_of
from gindex.queries.query import Query
from gindex.search.result import Hit, SearchResult, Timing, result_record
from gindex.search_options import SearchOptions
from gindex.serve.models import model_of
from gindex.serve.schema import AllOptions, ExplainAnswer, SearchAnswer, SearchBody

HIT = Hit(
    rank=1, document_id="d", part=0, score=2.0, influence=None, text="a", metadata={"n": [1, None]}, parts=2,
    duplicates=("e", "f"), layers={"block": 2.0},
)  # fmt: skip
RESULT = SearchResult(
    query=Query(prompt="a", completion="b", id="q"),
    tokens=2,
    hits=(HIT, replace(HIT, rank=2, duplicates=None, parts=None, layers=None, influence=-1.0, lexical=0.5)),
    timing_ms=Timing(load=0.0, gradient=1.0, search=2.0, rerank=3.0, total=6.0),
    negative_hits=(),
    reranked=3,
    certificate=Certificate(probability=0.5, outside=7, candidates=20),
    notes=("cut",),
    version=4,
)
EXPLANATION = Explanation(
    document_id="d",
    query=Query(prompt="a"),
    influence=1.0,
    parts=(PartExplanation(part=0, influence=1.0, tokens=(TokenInfluence(text="a", influence=1.0, context=False),)),),
    layers={"x": 1.0},
    groups={"y": 1.0},
    notes=("cut",),
)


def test_a_client_makes_of_an_answer_what_the_service_had():
    assert result_of(result_record(RESULT) | {"version": 4, "index": "i", "histogram": {}}, 4, "http://h") == RESULT
    assert explanation_of(asdict(EXPLANATION) | {"version": 4, "index": "i"}, "http://h") == EXPLANATION


def test_an_answer_of_another_form_is_an_error_of_the_service():
    record = result_record(RESULT)
    with pytest.raises(
        ServiceError, match=r"http://h: expected a SearchResult that this gindex can read, found another .*int"
    ):
        result_of(record | {"reranked": "three"}, 4, "http://h")
    with pytest.raises(ServiceError, match="missing required field `groups`"):
        explanation_of({name: value for name, value in asdict(EXPLANATION).items() if name != "groups"}, "http://h")


def test_answers_are_described_by_the_docstrings():
    schemas = SearchAnswer.model_json_schema()["$defs"]
    assert schemas["Hit"]["properties"].keys() == {each.name for each in fields(Hit)}
    assert all(each["description"] for each in schemas["Hit"]["properties"].values())
    assert schemas["Hit"]["properties"]["part"]["description"] == "Which part of the document, from 0."
    assert schemas["Hit"]["description"] == "One part of a document that was found."
    assert "tokens" in schemas["AnsweredQuery"]["properties"] and "version" in SearchAnswer.model_fields
    nested = {"PartExplanation", "Query", "QueryOfSet", "TokenInfluence"}
    assert ExplainAnswer.model_json_schema()["$defs"].keys() == nested


def test_answers_pass_their_models():
    SearchAnswer.model_validate(result_record(RESULT) | {"version": 4, "index": "i"}, strict=False)
    ExplainAnswer.model_validate(asdict(EXPLANATION) | {"version": 4, "index": "i"}, strict=False)


def test_requests_take_the_settings_with_help_and_ranges():
    described = AllOptions.model_json_schema()["properties"]
    assert described.keys() == {*options_of(SearchOptions), "histogram"}
    assert described["k"] == {
        "default": 10, "description": "Hits to return.", "minimum": 1, "title": "K", "type": "integer",
    }  # fmt: skip
    assert described["words"]["enum"] == ["candidates", "filter", "rank", "off"]
    assert described["dedupe"]["anyOf"][0] == {"exclusiveMinimum": 0, "maximum": 1, "type": "number"}
    assert described["where"]["anyOf"][0]["maxLength"] == 200_000
    schema = SearchBody.model_json_schema()
    assert schema["additionalProperties"] is False and schema["example"]["k"] == 5
    assert SearchBody.model_validate_json('{"prompt": "a", "k": 3}').search_options() == SearchOptions(k=3)


def test_attributes_can_be_left_out_and_added():
    model = model_of(Hit, "Short", leave_out=("metadata",), more=(int, 3))
    assert (
        model.__name__ == "Short" and "metadata" not in model.model_fields and model.model_fields["more"].default == 3
    )
