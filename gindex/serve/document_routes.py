"""The routes of indexes and their documents: listing, reading, adding, deleting."""

import asyncio
import json
import re
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from gindex.ann.spec import spec_of
from gindex.config import TENSORS
from gindex.corpus.pictures import TYPES
from gindex.errors import BusyError, ConfigError, CorpusError, CorruptStoreError, ServiceError, UnknownDocumentError
from gindex.serve.document_ids import check_unicode, document_id_of
from gindex.serve.indexes import ServedIndex
from gindex.serve.merger import Merger
from gindex.serve.problems import dump
from gindex.serve.requests import JSON, read_json
from gindex.serve.schema import (
    AddBody,
    ChangeAnswer,
    DocumentAnswer,
    DocumentBody,
    IndexAnswer,
    IndexesAnswer,
    PictureBody,
)
from gindex.serve.search_routes import body_of
from gindex.serve.service import Service
from gindex.store.values import values_of

_SHOWN = 500
"""Most characters of an error about documents that are passed on to the client."""


_INERT = {"Content-Security-Policy": "sandbox; default-src 'none'"}
"""Headers with which a browser takes a file for a picture and for nothing else."""


class PictureResponse(Response):
    """A picture's file; its media type is given with it."""

    media_type = "image/png"


class _DocumentsError(CorpusError, ServiceError):
    """Documents of a request that are refused, in words of the request alone."""


def document_routes(service: Service) -> APIRouter:
    """Return the routes that describe indexes, and read and change their documents."""
    router = APIRouter(prefix="/v1/indexes", tags=["indexes"])
    changing, merger = threading.Lock(), Merger()

    @router.get("", response_model=IndexesAnswer)
    async def indexes(request: Request) -> Response:
        """List the indexes."""
        service.reader(request)
        return _json({"indexes": [describe(service, served) for served in service.indexes]})

    @router.get("/{name}", response_model=IndexAnswer)
    async def index(request: Request, name: str) -> Response:
        """Describe an index, with its recall and fidelity as measured at its build."""
        service.reader(request)
        return _json(describe(service, service.indexes[name]))

    @router.get("/{name}/documents/{document_id:any}", response_model=DocumentAnswer)
    async def document(request: Request, name: str, document_id: str) -> Response:
        """Return a document by its id, percent-encoded as UTF-8: a slash in it as %2F, or as it is."""
        service.reader(request)
        return await read(name, document_id_of(request, name))

    @router.post("/{name}/document", response_model=DocumentAnswer, openapi_extra=body_of(DocumentBody))
    async def document_by_body(request: Request, name: str) -> Response:
        """Return a document by its id, in the body: for ids that are too long for an address, or `.` and `..`."""
        service.reader(request)
        return await read(name, (await read_json(request, service.config, DocumentBody)).document_id)

    @router.post(
        "/{name}/document/picture",
        response_class=PictureResponse,
        openapi_extra=body_of(PictureBody),
        responses={200: {"description": "The picture's file.", "content": {of: {} for of in TYPES.values()}}},
    )
    async def picture_by_body(request: Request, name: str) -> Response:
        """Return the picture that a document is, or one of those beside its text, in its own encoding."""
        service.reader(request)
        served = service.indexes[name]
        body = await read_json(request, service.config, PictureBody)
        pictures = await asyncio.to_thread(served.current.pictures, body.document_id)
        content = pictures[body.number] if body.number < len(pictures) else None
        if content is None or content.type not in TYPES.values():
            found = f"{len(pictures)} pictures of {body.document_id!r}"
            raise UnknownDocumentError(field=name, expected=f"a document with a picture {body.number}", found=found)
        return PictureResponse(content.data, media_type=content.type, headers=_INERT)

    @router.post("/{name}/document/delete", response_model=ChangeAnswer, openapi_extra=body_of(DocumentBody))
    async def delete_by_body(request: Request, name: str) -> Response:
        """Delete a document by its id, in the body. Needs `writable`."""
        service.writer(request)
        served = service.indexes[name]
        return await remove(served, (await read_json(request, service.config, DocumentBody)).document_id)

    async def read(name: str, document_id: str) -> Response:
        served = service.indexes[name]
        current = served.current
        try:
            record = await asyncio.to_thread(current.document, document_id)
        except CorruptStoreError as error:
            served.suspect(error)
            raise
        version = current.manifest.version
        return _json({"index": name, "version": version, "document_id": record.document_id, "text": record.text,
                      "metadata": record.metadata, "form": record.form, "content": record.content})  # fmt: skip

    @router.post("/{name}/documents", response_model=ChangeAnswer, status_code=201, openapi_extra=body_of(AddBody))
    async def add(request: Request, name: str) -> Response:
        """Add documents; the answer comes when the version that holds them is served. Needs `writable`."""
        service.writer(request)
        served = service.indexes[name]
        body = await read_json(request, service.config, AddBody)
        if len(body.documents) > service.config.max_documents:
            raise ConfigError(field="documents", expected=f"at most {service.config.max_documents}", found="more")
        corpus = served.current.manifest.settings.corpus
        if corpus.reads_pictures or corpus.form == TENSORS:  # whose fields may name files here
            raise ConfigError(
                field=name, expected="an index of texts", found="one of others", remedy="add to it with `gindex add`"
            )
        records = [
            {**(document.model_extra or {}), **_named(served, document.id, document.text)}
            for document in body.documents
        ]
        return _json(await asyncio.to_thread(change, served, _adding(served, records, body.replace)), 201)

    @router.delete("/{name}/documents/{document_id:any}", response_model=ChangeAnswer)
    async def delete(request: Request, name: str, document_id: str) -> Response:
        """Delete a document; no search returns it any more. Needs `writable`."""
        service.writer(request)
        return await remove(service.indexes[name], document_id_of(request, name))

    async def remove(served: ServedIndex, document_id: str) -> Response:
        def work() -> dict[str, Any]:
            served.current.delete([document_id])
            return {"deleted": 1}

        return _json(await asyncio.to_thread(change, served, work))

    def change(served: ServedIndex, work: Any) -> dict[str, Any]:
        if not changing.acquire(blocking=False):
            raise BusyError(field=served.name, expected="no other change", found="one under way", remedy="try again")
        try:
            done: dict[str, Any] = work()
            served.refresh()
            merger.look(served)
            return {"index": served.name, "version": served.current.manifest.version, "added": 0, "replaced": 0,
                    "deleted": 0} | done  # fmt: skip
        finally:
            changing.release()

    return router


def describe(service: Service, served: ServedIndex) -> dict[str, Any]:
    """Return the description of an index, the content of `IndexAnswer`."""
    description: dict[str, Any] = {
        "name": served.name,
        "ready": served.ready,
        "prompts": service.prompts,
        "writable": service.writable,
    }
    if not served.ready:
        return description | {"reason": served.reason}
    manifest = served.current.manifest
    specs = [spec_of(file) for file in manifest.search.faiss]
    recall = manifest.search.recall
    return description | {
        "version": manifest.version,
        "created": manifest.created,
        "task": manifest.task,
        "documents": manifest.documents["documents"],
        "parts": manifest.documents["parts"],
        "dimension": manifest.projection.dimension,
        "projection": manifest.projection.fingerprint,
        "search_index": manifest.search.main.kind,
        "lossless": all(spec.lossless for spec in specs),
        "recall": recall and {"at_10": recall.at_10, "at_100": recall.at_100},
        "fidelity": values_of(manifest.fidelity),
        "layer_groups": list(manifest.projection.slices),
        "coverage": manifest.coverage.record(),
    }


def _named(served: ServedIndex, document_id: str, text: str) -> dict[str, str]:
    fields = served.current.manifest.settings.corpus
    return {fields.id_field: document_id, fields.text_field: check_unicode(text)}


def _adding(served: ServedIndex, records: list[dict[str, Any]], replace: bool) -> Any:
    def work() -> dict[str, Any]:
        with TemporaryDirectory(prefix="gindex-") as folder:
            path = Path(folder, "documents.jsonl")
            path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
            try:
                done = served.current.add([str(path)], replace=replace)
            except CorpusError as error:
                raise _of_request(error, path) from error
        return {"added": done.documents, "replaced": done.replaced}

    return work


def _of_request(error: CorpusError, path: Path) -> _DocumentsError:
    """Return an error about documents in words of the request: their places in it, and a remedy there."""

    def placed(part: str) -> str:
        lines = re.sub(re.escape(str(path)) + r":(\d+)", lambda line: f"documents.{int(line[1]) - 1}", part)
        return lines.replace(str(path), "documents")[:_SHOWN]

    return _DocumentsError(
        field=placed(error.field),
        expected=placed(error.expected),
        found=placed(error.found),
        remedy="nothing is added: correct the documents, or set `replace` for ids that the index has",
    )


def _json(content: dict[str, Any], status: int = 200) -> Response:
    headers = {"Gindex-Version": str(content["version"])} if content.get("version") else {}
    return Response(dump(content), status, headers, JSON)
