"""The application: routes, errors, headers, metrics of requests, and the OpenAPI document."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gindex.distribution import VERSION
from gindex.errors import GindexError
from gindex.serve.document_routes import document_routes
from gindex.serve.hosts import Hosts
from gindex.serve.http_protocol import TARGET
from gindex.serve.jobs import AbandonedError
from gindex.serve.metrics import Metrics
from gindex.serve.operation_routes import docs_routes, operation_routes, page_routes
from gindex.serve.problems import MEDIA_TYPE, RefusedError, on_error, on_http_error, problem_of
from gindex.serve.schema import AddBody, BatchBody, DocumentBody, ExplainBody, Line, Problem, SearchBody
from gindex.serve.search_routes import search_routes
from gindex.serve.service import Service

CLIENT_GONE = 499
_DESCRIPTION = """Which training documents made a language model say this?

Every answer names the version of the index that it came from. Errors are `application/problem+json` whose `type` ends
with the name of the error in `gindex.errors`; 429 and 503 say in `Retry-After` when to try again.
"""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_DOCS_POLICY = _POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
]


def make_app(
    service: Service, *, hosts: Hosts | None = None, cors_origins: Sequence[str] = (), page: bool = True
) -> FastAPI:
    """Return the application of a service, which it starts and closes.

    Args:
        service: The service.
        hosts: The names that it answers to; None takes those of the address in the settings.
        cors_origins: Web sites whose scripts may call it; none by default.
        page: Whether the page is there.
    """

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = FastAPI(title="gindex", version=VERSION, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.include_router(search_routes(service))
    app.include_router(document_routes(service))
    app.include_router(operation_routes(service))
    app.include_router(docs_routes())
    if page:
        app.include_router(page_routes())
    for kind in (GindexError, OSError, Exception):
        app.add_exception_handler(kind, on_error)
    app.add_exception_handler(AbandonedError, _on_abandoned)
    app.add_exception_handler(HTTPException, on_http_error)
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "X-Api-Key", "Content-Type"],
            expose_headers=["Gindex-Version", "Retry-After"],
        )
    app.add_middleware(_Frame, metrics=service.metrics, hosts=hosts or Hosts(service.config.host))
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


class _Frame:
    """Middleware around every request: the check of its host, security headers, and its count and time."""

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: Hosts) -> None:
        self._app, self._metrics, self._hosts = app, metrics, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        policy = _DOCS_POLICY if scope["path"] == "/docs" else _POLICY

        async def framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"], *_HEADERS, (b"content-security-policy", policy.encode())
                ]  # fmt: skip
            await send(message)

        # HEAD is answered as GET is; the server leaves the body out.
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            try:
                self._hosts.check(scope["headers"], scope.get(TARGET, b""))
            except RefusedError as error:
                await problem_of(error)(asked, receive, framed)
            else:
                await self._app(asked, receive, framed)
        finally:
            route = getattr(asked.get("route"), "path", "unknown")
            method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "OPTIONS", "HEAD") else "other"
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.seconds.labels("request").observe(time.perf_counter() - start)


async def _on_abandoned(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)  # nobody reads it


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Describe the application, with the bodies that routes read themselves and the form of every error."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=_DESCRIPTION)
        bodies: list[Any] = [
            (kind, "validation") for kind in (SearchBody, BatchBody, ExplainBody, AddBody, DocumentBody, Line, Problem)
        ]
        _, schemas = models_json_schema(bodies, ref_template="#/components/schemas/{model}")
        document.setdefault("components", {}).setdefault("schemas", {}).update(schemas["$defs"])
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        told = {"content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
        for path, methods in document["paths"].items():
            for operation in methods.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = {"description": "A problem (RFC 9457)", **told}
                if path.startswith("/v1") or path == "/metrics":
                    operation["security"] = [{}, {"key": []}]
        app.openapi_schema = document
    return app.openapi_schema
