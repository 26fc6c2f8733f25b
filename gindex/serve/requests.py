"""Requests: their bodies, bounded in size and time, their callers, and whether the client is still there."""

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from gindex.corpus.json_values import EqualKeysError, parse_json
from gindex.errors import ConfigError
from gindex.options import renamed, today_text
from gindex.search_options import SearchOptions
from gindex.serve.config import ServeConfig
from gindex.serve.jobs import AbandonedError
from gindex.serve.keys import Caller, Keys, RateLimit, bearer
from gindex.serve.problems import ForbiddenError, RefusedError

JSON, NPY = "application/json", "application/x-npy"

Body = TypeVar("Body", bound=BaseModel)


async def read_body(request: Request, config: ServeConfig) -> bytearray:
    """Return the body of a request; a `bytearray`, so that vectors in it can be used in place.

    Raises:
        RefusedError: It is too long (413), or took too long to arrive (408).
        AbandonedError: The client went away before its end.
    """
    too_long = RefusedError(413, expected=f"a body of at most {config.max_body} bytes", found="a longer one")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) > len(str(config.max_body)):
        raise too_long
    if declared.isdecimal() and int(declared) > config.max_body:
        raise too_long
    blocks, length = [], 0
    try:
        async with asyncio.timeout(config.body_seconds):
            async for block in request.stream():
                blocks.append(block)
                length += len(block)
                if length > config.max_body:
                    raise too_long
    except TimeoutError:
        raise RefusedError(408, expected=f"the body within {config.body_seconds:g} s", found="it unfinished") from None
    except ClientDisconnect:
        raise AbandonedError from None
    return bytearray().join(blocks)


def media_type(request: Request) -> str:
    """Return the media type of a request's body.

    Raises:
        RefusedError: It is neither JSON nor NumPy's format (415).
    """
    declared = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if declared not in (JSON, NPY):
        raise RefusedError(415, expected=f"a body of {JSON} or {NPY}", found="another media type")
    return declared


async def read_json(request: Request, config: ServeConfig, kind: type[Body]) -> Body:
    """Return a request's JSON body, checked.

    Args:
        request: The request.
        config: Its limits.
        kind: The model of the body.

    Raises:
        RefusedError: It is no JSON (400, 415), or too long or slow.
        ConfigError: It does not fit the model, or an object in it has equal keys; says where.
    """
    if media_type(request) != JSON:
        raise RefusedError(415, expected=f"a body of {JSON}")
    return parse(kind, await read_body(request, config))


def parse(kind: type[Body], content: bytearray) -> Body:
    """Return the content of JSON text, checked; see `read_json`."""
    _check_keys(content)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise _explained(error) from None


def validated(kind: type[Body], values: Sequence[tuple[str, str]]) -> Body:
    """Return query parameters, checked; their values come as text.

    Raises:
        ConfigError: One is unknown, not of its type, or there twice.
    """
    names = [name for name, _ in values]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(field=twice[:50], expected="it once among the query parameters", found="it more often")
    try:
        return kind.model_validate_strings(dict(values), strict=False)
    except ValidationError as error:
        raise _explained(error) from None


def _check_keys(content: bytearray) -> None:
    try:
        parse_json(content)
    except EqualKeysError as error:
        raise ConfigError(
            field="body", expected="keys that differ in every object", found=f"{error.key[:50]!r} twice in one"
        ) from None
    except (ValueError, RecursionError):
        pass  # `parse` says what is wrong


def _explained(error: ValidationError) -> Exception:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return RefusedError(400, expected="a body of JSON", found=f"something else ({first['msg']})")
    where = ".".join(str(step)[:50] for step in first["loc"]) or "body"
    if first["type"] == "extra_forbidden" and where in (today := renamed(SearchOptions)):
        return ConfigError(field=where, expected="a setting", found="an old name", remedy=today_text(today[where]))
    return ConfigError(first["msg"], field=where)


def identify(request: Request, keys: Keys | None, limit: RateLimit, scope: str) -> Caller:
    """Return the caller of a request, and count it.

    Raises:
        AccessError: No key, an unknown one, or one without the scope.
        OverloadedError: Too many requests came from the caller.
    """
    if keys is None:
        address = request.client.host if request.client else "local"
        caller = Caller(name=address, scopes=frozenset({"read", "write"}))
    else:
        caller = keys.caller(request.headers.get("x-api-key") or bearer(request.headers.get("authorization")))
    limit.take(caller.name)
    if scope not in caller.scopes:
        raise ForbiddenError(expected=f"a key with the scope {scope}", found="one without", remedy="ask for another")
    return caller


async def left(request: Request) -> None:
    """Return when the client goes away; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
