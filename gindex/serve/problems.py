"""Errors as HTTP answers: `application/problem+json` (RFC 9457) that reveals nothing of the service's machine."""

import json
import logging
from http import HTTPStatus
from typing import Any

from pydantic_core import PydanticSerializationError, to_json
from starlette.requests import Request
from starlette.responses import Response

from gindex.errors import (
    AccessError,
    BusyError,
    ConfigError,
    CorpusError,
    CorruptStoreError,
    FormatVersionError,
    GindexError,
    MismatchError,
    MissingDependencyError,
    ModelError,
    NonFiniteError,
    NotAnIndexError,
    OverloadedError,
    QueryError,
    RequestError,
    ResourceError,
    ServiceError,
    ShapeError,
    StoreError,
    TimeLimitError,
    UnavailableError,
    UnknownDocumentError,
    UnknownIndexError,
)
from gindex.queries.query import FailedQuery
from gindex.search.result import failure_record

logger = logging.getLogger("gindex.serve")

RETRY_SECONDS = 1
MEDIA_TYPE = "application/problem+json"

_STATUS: list[tuple[type[GindexError], int]] = [
    (AccessError, 401),
    (UnknownIndexError, 404),
    (RequestError, 400),
    (OverloadedError, 429),
    (TimeLimitError, 504),
    (UnavailableError, 503),
    (ConfigError, 422),
    (QueryError, 422),
    (NonFiniteError, 422),
    (ShapeError, 422),
    (MismatchError, 422),
    (CorpusError, 422),
    (UnknownDocumentError, 404),
    (BusyError, 409),
    (ResourceError, 503),
    (StoreError, 503),
]
_TOLD = (ServiceError, ConfigError, QueryError, NonFiniteError)
"""Errors whose messages are about the request alone; those of others may name files, models or devices."""

_SAFE_WORDS = [
    MismatchError(expected="vectors that were made with this index", found="others", remedy="encode them with it"),
    CorpusError(
        expected="documents with text and ids that the index does not have",
        remedy="correct them, or set `replace`",
    ),
    UnknownDocumentError(expected="the id of a document", found="none of that name", remedy="check the id"),
    ResourceError(expected="open files and memory for an answer", found="too few or too little", remedy="try again"),
    BusyError(expected="no other writer", found="one", remedy="try again"),
]
"""What is told in the place of errors of their kinds."""

_REASONS: list[tuple[type[GindexError], str]] = [
    (MismatchError, "its model is not the one that it was built with; start the service with `model`"),
    (ModelError, "its model was not found or cannot be loaded; the log says why, and `model` names another place"),
    (NotAnIndexError, "its folder holds no finished index"),
    (FormatVersionError, "a newer gindex made it"),
    (CorruptStoreError, "files of it are missing or damaged; gindex verify lists them"),
    (MissingDependencyError, "a package that it needs is not installed; the log names it"),
]


class RefusedError(RequestError):
    """A request that is refused with a status of its own."""

    def __init__(self, status: int, message: str = "", **parts: object) -> None:
        """Set the status, and what the error says, as `GindexError` takes it."""
        super().__init__(message, **parts)
        self.status = status


class ForbiddenError(AccessError):
    """The key is known and lacks the scope."""

    status = 403


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error."""
    if isinstance(error, RefusedError | ForbiddenError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def content_of(error: Exception) -> dict[str, Any]:
    """Return the content of the answer to a request that failed with an error."""
    status = status_of(error)
    name = "InternalError" if status == 500 else _public_name(error)
    return _content(status, name, _told(error, status))


def problem_of(error: Exception) -> Response:
    """Return the answer to a request that failed with an error."""
    status = status_of(error)
    headers = {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(dump(content_of(error)), status, headers, MEDIA_TYPE)


def reason_of(error: Exception) -> str:
    """Return the reason why an index is not ready, without names of files; the log has the whole message."""
    return next((words for kind, words in _REASONS if isinstance(error, kind)), "it cannot be opened; the log says why")


def failure_of(failed: FailedQuery) -> dict[str, Any]:
    """Return the entry of a batch's answer for a query that failed, with the detail that its problem would have."""
    status = status_of(failed.error)
    name = "InternalError" if status == 500 else _public_name(failed.error)
    told = _told(failed.error, status)
    return failure_record(failed) | {"error": {"type": f"urn:gindex:{name}", "detail": str(told)} | told.parts()}


def problem(status: int, name: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer of media type `application/problem+json`.

    Args:
        status: HTTP status.
        name: Name of the error, by which `gindex.client` raises it again.
        detail: What to tell the caller.
        headers: Further headers.
    """
    return Response(dump(_content(status, name, ServiceError(detail))), status, headers, MEDIA_TYPE)


def _content(status: int, name: str, told: GindexError) -> dict[str, Any]:
    content = {"type": f"urn:gindex:{name}", "title": HTTPStatus(status).phrase, "status": status, "detail": str(told)}
    return content | told.parts()


def dump(content: Any) -> bytes:
    """Write an answer as JSON; half a surrogate pair becomes a question mark."""
    try:
        return to_json(content)
    except (UnicodeEncodeError, PydanticSerializationError):
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _public_name(error: Exception) -> str:
    """Return the class of `gindex.errors` that an error is of."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == GindexError.__module__)


def _told(error: Exception, status: int) -> GindexError:
    """The error itself, or one in its place that tells nothing of the machine."""
    if isinstance(error, _TOLD):
        return error
    for words in _SAFE_WORDS:
        if isinstance(error, type(words)):
            return words
    return ServiceError(
        "the index cannot be used at the moment" if status == 503 else "something went wrong within the service"
    )


def log(request: Request, error: Exception) -> None:
    """Write to the log what a caller isn't told."""
    if status_of(error) >= 500 and not isinstance(error, ServiceError):
        logger.error("%s %s", request.method, request.url.path, exc_info=error)


async def on_error(request: Request, error: Exception) -> Response:
    """Answer a request that failed; what the caller isn't told goes to the log."""
    log(request, error)
    return problem_of(error)


async def on_http_error(_request: Request, error: Exception) -> Response:
    """Answer what the router refuses: an unknown path or method."""
    status = int(getattr(error, "status_code", 500))
    headers = dict(getattr(error, "headers", None) or {})
    return problem(status, "RequestError", HTTPStatus(status).description or HTTPStatus(status).phrase, headers)
