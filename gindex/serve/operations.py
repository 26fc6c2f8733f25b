"""The routes of operation, and the page."""

from importlib.metadata import version
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse, Response

from gindex.errors import UnknownIndexError
from gindex.serve.problems import dump
from gindex.serve.reading import JSON
from gindex.serve.service import Service

_PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "plots.js": ("plots.js", "text/javascript; charset=utf-8"),
}


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
        content = {
            "status": "ready" if service.ready else "draining" if service.draining else "not ready",
            "indexes": {index.name: index.ready for index in service.indexes},
        }
        return Response(dump(content), 200 if service.ready else 503, media_type=JSON)

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Count what happened, for Prometheus."""
        service.reader(request)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    @router.get("/version")
    async def version_of_gindex() -> Response:
        """Name the version of gindex."""
        return Response(dump({"gindex": version("gindex")}), media_type=JSON)

    return router


def page_routes() -> APIRouter:
    """Return the routes of the page: three kinds of files from the package, and no others."""
    router = APIRouter(include_in_schema=False)
    folder = files("gindex.serve") / "page"
    contents = {name: ((folder / file).read_bytes(), kind) for name, (file, kind) in _PAGE.items()}

    @router.get("/")
    @router.get("/page/{file}")
    async def page(file: str = "") -> Response:
        if file not in contents:
            raise UnknownIndexError("expected a file of the page, found no such file")
        content, kind = contents[file]
        return Response(content, headers={"Cache-Control": "no-cache"}, media_type=kind)

    return router
