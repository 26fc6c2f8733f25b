"""The routes of search and explanation."""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch
from fastapi import APIRouter, Request
from starlette.responses import Response

from gindex.errors import ConfigError
from gindex.exact.explain import explanation_record
from gindex.http.answers import NDJSON
from gindex.index import GradientIndex
from gindex.queries.query import FailedQuery, Query
from gindex.queries.records import FIELDS
from gindex.search.query_vectors import EncodedQuery
from gindex.search.result import result_record
from gindex.serve.indexes import ServedIndex
from gindex.serve.job_runner import Answer
from gindex.serve.jobs import ExplainJob, Job, SearchJob
from gindex.serve.problems import RefusedError, dump, failure_of
from gindex.serve.progress_lines import answer_lines, wants_lines
from gindex.serve.requests import JSON, NPY, media_type, parse, read_body, read_json, validated
from gindex.serve.schema import (
    AllOptions,
    BatchAnswer,
    BatchBody,
    ExplainAnswer,
    ExplainBody,
    Options,
    QueryBody,
    SearchAnswer,
    SearchBody,
)
from gindex.serve.service import Service
from gindex.serve.vector_formats import decode_base64, decode_npy

LONGEST_IN_URL = 8000
"""Most characters of a text among the query parameters; the server takes no longer address than 64 KiB."""


def body_of(kind: type[Any], *, npy: bool = False) -> dict[str, Any]:
    """Describe a request's body for the OpenAPI document."""
    content: dict[str, Any] = {JSON: {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}}
    body = {"requestBody": {"required": True, "content": content}}
    if not npy:
        return body
    content[NPY] = {"schema": {"type": "string", "format": "binary"}}
    return body | {"parameters": list(_query_parameters())}


LINES: dict[int | str, dict[str, Any]] = {200: {"content": {NDJSON: {"schema": {"$ref": "#/components/schemas/Line"}}}}}
"""Answers in lines, as the OpenAPI document describes them."""


def _query_parameters() -> Iterator[dict[str, Any]]:
    """Describe the options as they stand beside a vector in NumPy's format."""
    for name, option in AllOptions.model_json_schema()["properties"].items():
        schema = next((kind for kind in option.get("anyOf", []) if kind["type"] != "null"), option)
        if schema["type"] == "object":
            continue  # settings of an exact re-rank, which a vector alone has not
        if "maxLength" in schema:
            schema = schema | {"maxLength": LONGEST_IN_URL}
        words = f"Beside {NPY} alone. {option.get('description', '')}"
        yield {"name": name, "in": "query", "schema": schema, "description": words}


def search_routes(service: Service) -> APIRouter:
    """Return the routes of searches and explanations."""
    router = APIRouter(prefix="/v1/indexes/{name}", tags=["search"])

    async def search(request: Request, name: str, *, batch: bool) -> Response:
        served = service.indexes[name]
        asked, options = await _read(request, batch=batch)
        index = served.current
        queries = [_query(index, query, prompts=service.prompts) for query in asked] if isinstance(asked, list) else []
        if isinstance(asked, bytearray):
            vectors = torch.from_numpy(decode_npy(asked, index.manifest.projection.dimension))
            queries = [EncodedQuery(query=Query(prompt="", id=str(n)), vector_D=v) for n, v in enumerate(vectors)]
        if not queries or (len(queries) > 1 and not batch):
            raise ConfigError(field="queries", expected="at least one" if batch else "one", found=len(queries))
        search_options = options.search_options()
        service.check(search_options)
        service.check_texts(queries)
        job = SearchJob(index, service.config.queue_seconds, queries, search_options, options.histogram)

        def content(result: Answer) -> dict[str, Any]:
            results, shapes = result
            if not batch and isinstance(results[0], FailedQuery):
                raise results[0].error
            records = [failure_of(r) if isinstance(r, FailedQuery) else result_record(r) for r in results]
            for record, shape in zip(records, shapes or [], strict=False):
                if shape is not None:
                    record["histogram"] = asdict(shape)
            answer = {"index": name, "version": index.manifest.version}
            return answer | ({"results": records} if batch else records[0])

        return await answered(request, served, job, content)

    async def answered(
        request: Request, served: ServedIndex, job: Job, content: Callable[[Any], dict[str, Any]]
    ) -> Response:
        if wants_lines(request):
            return answer_lines(service, served, job, request, content)
        return _answer(content(await service.answered(request, served, job)))

    async def _read(request: Request, *, batch: bool) -> tuple[list[QueryBody] | bytearray, Options]:
        kind = media_type(request)
        content = await read_body(request, service.config)
        if kind == NPY:
            return content, validated(AllOptions, request.query_params.multi_items())
        if batch:
            many = parse(BatchBody, content)
            return list(many.queries), many
        one = parse(SearchBody, content)
        return [one], one

    @router.post("/search", response_model=SearchAnswer, responses=LINES, openapi_extra=body_of(SearchBody, npy=True))
    async def search_one(request: Request, name: str) -> Response:
        """Return the documents with the most influence on a query.

        The query is a prompt with, perhaps, a completion; a conversation; tokens; a preference; a set of such queries;
        or a ready vector: base64 in JSON, or a body in NumPy's format, whose options are query parameters.
        """
        service.reader(request)
        return await search(request, name, batch=False)

    @router.post(
        "/search/batch", response_model=BatchAnswer, responses=LINES, openapi_extra=body_of(BatchBody, npy=True)
    )
    async def search_batch(request: Request, name: str) -> Response:
        """Answer many queries with the same options; in NumPy's format, an array [queries, dimension].

        A query that has no answer has an `error` in the place of its hits; the others are answered.
        """
        service.reader(request)
        return await search(request, name, batch=True)

    @router.post("/explain", response_model=ExplainAnswer, responses=LINES, openapi_extra=body_of(ExplainBody))
    async def explain(request: Request, name: str) -> Response:
        """Return the exact influence of a document on a query, by token and by layer."""
        service.reader(request)
        served = service.indexes[name]
        body = await read_json(request, service.config, ExplainBody)
        _need_prompts(prompts=service.prompts)
        index = served.current
        query = body.query()
        service.check_texts([query])
        job = ExplainJob(index, service.config.queue_seconds, body.document_id, query, body.long_queries)
        own = {"index": name, "version": index.manifest.version}
        return await answered(request, served, job, lambda result: own | explanation_record(result))

    return router


def _query(index: GradientIndex, body: QueryBody, *, prompts: bool) -> Query | EncodedQuery:
    given = body.model_fields_set & set(FIELDS) - {"id"}
    if bool(given) == (body.vector is not None):
        raise ConfigError(
            field="query",
            expected="either a prompt or a vector, or another form of query",
            found="none" if body.vector is None else f"{', '.join(sorted(given))} and a vector",
        )
    if body.vector is None:
        _need_prompts(prompts=prompts)
        return body.query()
    vector = decode_base64(body.vector, index.manifest.projection.dimension)
    return EncodedQuery(query=Query(prompt="", id=body.id), vector_D=torch.from_numpy(vector.copy()))


def _need_prompts(*, prompts: bool) -> None:
    if not prompts:
        raise RefusedError(
            422, expected="a ready vector: this service has no model", remedy="send one, or ask another service"
        )


def _answer(content: dict[str, Any]) -> Response:
    headers = {"Gindex-Version": str(content["version"])}
    return Response(dump(content), headers=headers, media_type=JSON)
