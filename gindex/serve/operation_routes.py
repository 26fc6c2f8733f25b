"""The routes of operation (health, metrics, version), and of the page."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from gindex.distribution import VERSION
from gindex.errors import UnknownIndexError
from gindex.serve.problems import dump
from gindex.serve.requests import JSON
from gindex.serve.service import Service

_KINDS = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
PAGE = (
    "index.html", "page.css", "chat.css", "sources.css", "page.js", "address.js", "chat.js", "conversation.js",
    "dom.js", "hits.js", "plots.js", "service.js", "sources.js", "text.js", "trust.js", "turns.js",
)  # fmt: skip
_DOCS = ("docs.html", "docs.js")
_SWAGGER = ("swagger-ui.css", "swagger-ui-bundle.js")


def operation_routes(service: Service) -> APIRouter:
    """Return the routes of operation."""
    router = APIRouter(tags=["operation"])

    @router.get("/livez")
    async def livez() -> Response:
        """Say that the process runs."""
        return Response(dump({"status": "alive"}), media_type=JSON)

    @router.get("/readyz", responses={503: {"description": "Loading, closing, or without any index"}})
    async def readyz() -> Response:
        """Say whether requests will be answered."""
        content: dict[str, Any] = {
            "status": "ready" if service.ready else "draining" if service.draining else "not ready",
            "indexes": {index.name: index.ready for index in service.indexes},
        }
        reasons = {index.name: index.reason for index in service.indexes if not index.ready}
        if reasons:
            content["reasons"] = reasons
        return Response(dump(content), 200 if service.ready else 503, media_type=JSON)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Return the metrics, for Prometheus."""
        service.reader(request)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @router.get("/version")
    async def version_of_gindex() -> Response:
        """Name the version of gindex."""
        return Response(dump({"gindex": VERSION}), media_type=JSON)

    return router


def page_routes() -> APIRouter:
    """Return the routes of the page."""
    return _file_routes("/", "/page", {name: _own(name) for name in PAGE})


def docs_routes() -> APIRouter:
    """Return the routes of the API's documentation; Swagger UI comes from a package, not from the network."""
    swagger = files("fastapi_offline") / "static"
    return _file_routes(
        "/docs", "/docs", {name: _own(name) for name in _DOCS} | {name: swagger / name for name in _SWAGGER}
    )


def _own(name: str) -> Traversable:
    return files("gindex.serve") / "page" / name


def _file_routes(start: str, folder: str, files_by_name: dict[str, Traversable]) -> APIRouter:
    """Return routes of files, which are read here, once; the first one is at `start` too."""
    router = APIRouter(include_in_schema=False)
    contents = {name: path.read_bytes() for name, path in files_by_name.items()}
    first = next(iter(contents))

    @router.get(start)
    @router.get(folder + "/{file}")
    async def page(file: str = first) -> Response:
        if file not in contents:
            raise UnknownIndexError(expected="a file of the page", found="no such file")
        kind = _KINDS[file.rpartition(".")[2]]
        return Response(contents[file], headers={"Cache-Control": "no-cache"}, media_type=kind)

    return router
