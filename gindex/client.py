"""A client of `gindex serve`, for programs: the same results and errors as `GradientIndex`, over HTTP.

    >>> with Client("http://127.0.0.1:8080/jargon") as client:
    ...     client.search("A race condition is", completion=" a bug", k=3).hits

Neither torch nor FAISS is loaded.
"""

import asyncio
import base64
import json
import random
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

from gindex.answers import NDJSON, Listener, error_of, explanation_of, outcome_of
from gindex.config import SearchOptions
from gindex.errors import ConfigError, MismatchError, MissingDependencyError, ServiceError, UnavailableError
from gindex.loopback import is_loopback
from gindex.progress import Progress, Silent
from gindex.search.explanation import Explanation
from gindex.search.hit import Outcome, Query, SearchResult, answered

try:
    import httpx2 as httpx
except ModuleNotFoundError as error:
    raise MissingDependencyError("gindex.client: expected httpx2, found none; install gindex[client]") from error

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Request:
    """What is sent; slow work is answered in lines."""

    method: str
    url: str
    body: Any = None
    lines: bool = False


_Call = Generator[_Request, Any, Result]

DEFAULT_OPTIONS = SearchOptions()
TIMEOUT = 120.0
RETRIES = 4
BATCH = 32
"""Queries that are sent in one request."""

_AGAIN = (429, 503)
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0


class _Calls:
    """What to send and how to read the answer, for both clients.

    Each call is a generator that yields one request and is sent its answer, so that it is written once.
    """

    def __init__(self, url: str, index: str | None, api_key: str | None, retries: int) -> None:
        parts = urlsplit(url)
        *_, last = parts.path.rstrip("/").split("/")
        if parts.scheme not in ("http", "https") or not parts.hostname or not (index or last):
            raise ConfigError(f"{url}: expected http://host:port/name of an index; see /v1/indexes of the service")
        prefix = parts.path.rstrip("/") if index else parts.path.rstrip("/").removesuffix(last)
        self.base = f"{parts.scheme}://{parts.netloc}{prefix.rstrip('/')}"
        self.index = index or last
        self.headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self.through_proxies = not is_loopback(parts.hostname)
        self.retries = retries

    def path(self, rest: str = "") -> str:
        return f"{self.base}/v1/indexes/{quote(self.index, safe='')}{rest}"

    def search(self, queries: Sequence[dict[str, Any]], options: SearchOptions) -> "_Call[list[Outcome]]":
        changed = {name: value for name, value in asdict(options).items() if value != getattr(DEFAULT_OPTIONS, name)}
        content = yield _Request("POST", self.path("/search/batch"), {"queries": queries, **changed}, options.exact)
        return [outcome_of(record, content["version"], self.base) for record in content["results"]]

    def explain(self, document_id: str, prompt: str, completion: str | None, long_queries: str) -> "_Call[Explanation]":
        body = {"document_id": document_id, "prompt": prompt, "completion": completion}
        if long_queries != DEFAULT_OPTIONS.long_queries:
            body["long_queries"] = long_queries
        content = yield _Request("POST", self.path("/explain"), body, lines=True)
        return explanation_of(content)

    def info(self) -> "_Call[dict[str, Any]]":
        content: dict[str, Any] = yield _Request("GET", self.path())
        return content

    # Ids are in the body: an address has a limit, and of `..` in it something else is made on the way.
    def document(self, document_id: str) -> "_Call[dict[str, Any]]":
        content: dict[str, Any] = yield _Request("POST", self.path("/document"), {"document_id": document_id})
        return content

    def add(self, documents: Sequence[dict[str, Any]], replace: bool) -> "_Call[int]":
        body = {"documents": list(documents), "replace": replace}
        content = yield _Request("POST", self.path("/documents"), body)
        return int(content["version"])

    def delete(self, document_id: str) -> "_Call[int]":
        content = yield _Request("POST", self.path("/document/delete"), {"document_id": document_id})
        return int(content["version"])

    def sent(self, request: _Request) -> dict[str, Any]:
        """Return a request as the HTTP library takes it.

        Raises:
            ConfigError: It holds half a surrogate pair, NaN or infinity.
        """
        headers = {"Accept": NDJSON} if request.lines else {}
        if request.body is None:
            return {"method": request.method, "url": request.url, "headers": headers}
        try:
            content = json.dumps(request.body, ensure_ascii=False, allow_nan=False).encode()
        except ValueError as error:  # half a surrogate pair is one too
            raise ConfigError(f"request: expected Unicode text and finite numbers, found that {error}") from error
        headers["Content-Type"] = "application/json"
        return {"method": request.method, "url": request.url, "content": content, "headers": headers}

    def wait(self, attempt: int, response: "httpx.Response | None") -> float | None:
        """Return the seconds to wait before the next attempt; None where there is no use in one."""
        if attempt >= self.retries or (response is not None and response.status_code not in _AGAIN):
            return None
        asked = "" if response is None else str(response.headers.get("retry-after", ""))
        backoff = _FIRST_WAIT * 2.0**attempt * random.uniform(0.5, 1.0)
        return min(max(backoff, float(asked) if asked.isdecimal() else 0.0), _LONGEST_WAIT)

    def read(self, response: "httpx.Response") -> Any:
        try:
            content = response.json()
        except ValueError as error:
            raise ServiceError(f"{self.base}: expected JSON, found {response.status_code} without it") from error
        if response.is_success:
            return content
        raise error_of(content, self.base, f"an answer, found {response.status_code}")

    def unreachable(self, error: Exception) -> UnavailableError:
        found = str(error) or type(error).__name__
        return UnavailableError(f"{self.base}: expected a service, found {found}; check the address and that it runs")


class Client:
    """Asks one index of a service.

    Example:
        >>> client = Client("http://127.0.0.1:8080/jargon", api_key="...")
        >>> client.search("A race condition is", completion=" a bug", k=3, where="letter = 'R'").hits

    Every method raises the errors of `gindex.errors` that the library would, AccessError and OverloadedError where the
    service refuses, TimeLimitError and UnavailableError where it does not answer.
    """

    def __init__(
        self,
        url: str,
        *,
        index: str | None = None,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            url: `http://host:port/name`, or the service's address where `index` names the index.
            index: Name of the index.
            api_key: Key, where the service asks for one.
            timeout: Seconds that an answer may take.
            retries: How often a request is sent again after 429, 503, or where nothing listens.

        Raises:
            ConfigError: The address is not of that form.
        """
        self._calls = _Calls(url, index, api_key, retries)
        self._http = httpx.Client(headers=self._calls.headers, timeout=timeout, trust_env=self._calls.through_proxies)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def search(
        self, prompt: str, completion: str | None = None, options: SearchOptions = DEFAULT_OPTIONS, **settings: Any
    ) -> SearchResult:
        """Return the documents with the most influence on one query; see `GradientIndex.search`."""
        return self.search_many([Query(prompt=prompt, completion=completion)], options, **settings)[0]

    def search_many(
        self,
        queries: Sequence[Query],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        progress: Progress | None = None,
        **settings: Any,
    ) -> list[SearchResult]:
        """Answer many queries; see `GradientIndex.search_many`. An exact search tells its place in the queue too."""
        return answered(self.search_each(queries, options, progress=progress, **settings))

    def search_each(
        self,
        queries: Sequence[Query],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        progress: Progress | None = None,
        **settings: Any,
    ) -> list[Outcome]:
        """Answer many queries, and say in its place which has no answer; see `GradientIndex.search_each`."""
        options = replace(options, **settings)
        return [found for some in _texts(queries) for found in self._run(self._calls.search(some, options), progress)]

    def search_vectors(
        self, vectors: Any, options: SearchOptions = DEFAULT_OPTIONS, **settings: Any
    ) -> list[SearchResult]:
        """Answer queries whose vectors [Q, D] are at hand; see `GradientIndex.search_vectors`."""
        options = replace(options, **settings)
        calls = (self._calls.search(some, options) for some in _vectors(vectors))
        return answered([found for call in calls for found in self._run(call)])

    def explain(
        self,
        document_id: str,
        prompt: str,
        completion: str | None = None,
        *,
        long_queries: str = DEFAULT_OPTIONS.long_queries,
        progress: Progress | None = None,
    ) -> Explanation:
        """Return the exact influence of one document, told apart; see `GradientIndex.explain`."""
        return self._run(self._calls.explain(document_id, prompt, completion, long_queries), progress)

    def document(self, document_id: str) -> dict[str, Any]:
        """Return a document: `document_id`, `text`, `metadata`, and the `version` that holds it."""
        return self._run(self._calls.document(document_id))

    def info(self) -> dict[str, Any]:
        """Return what the index is: its version, size, recall and fidelity."""
        return self._run(self._calls.info())

    def add(self, documents: Sequence[dict[str, Any]], *, replace: bool = False) -> int:
        """Add documents (`id`, `text` and metadata) and return the version that holds them."""
        return self._run(self._calls.add(documents, replace))

    def delete(self, document_id: str) -> int:
        """Delete a document and return the version without it."""
        return self._run(self._calls.delete(document_id))

    def _run(self, call: "_Call[Result]", progress: Progress | None = None) -> Result:
        try:
            request = next(call)
            while True:
                request = call.send(self._send(request, progress or Silent()))
        except StopIteration as end:
            found: Result = end.value
            return found

    def _send(self, request: _Request, progress: Progress) -> Any:
        attempt, sent = 0, self._calls.sent(request)
        while True:
            response = None
            try:
                with self._http.stream(**sent) as response, Listener(progress, self._calls.base) as listener:
                    if not _in_lines(response):
                        response.read()
                    else:
                        for line in response.iter_lines():
                            listener.hear(line)
                        return listener.answer
            except httpx.TransportError as error:
                pause = self._calls.wait(attempt, None) if isinstance(error, httpx.ConnectError) else None
                if pause is None:
                    raise self._calls.unreachable(error) from error
            else:
                pause = self._calls.wait(attempt, response)
                if pause is None or response.is_success:
                    return self._calls.read(response)
            time.sleep(pause)
            attempt += 1


class AsyncClient:
    """The same as `Client`, for asyncio."""

    def __init__(
        self,
        url: str,
        *,
        index: str | None = None,
        api_key: str | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
    ) -> None:
        """See `Client`."""
        self._calls = _Calls(url, index, api_key, retries)
        self._http = httpx.AsyncClient(
            headers=self._calls.headers, timeout=timeout, trust_env=self._calls.through_proxies
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def search(
        self, prompt: str, completion: str | None = None, options: SearchOptions = DEFAULT_OPTIONS, **settings: Any
    ) -> SearchResult:
        """See `Client.search`."""
        return (await self.search_many([Query(prompt=prompt, completion=completion)], options, **settings))[0]

    async def search_many(
        self,
        queries: Sequence[Query],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        progress: Progress | None = None,
        **settings: Any,
    ) -> list[SearchResult]:
        """See `Client.search_many`."""
        return answered(await self.search_each(queries, options, progress=progress, **settings))

    async def search_each(
        self,
        queries: Sequence[Query],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        progress: Progress | None = None,
        **settings: Any,
    ) -> list[Outcome]:
        """See `Client.search_each`."""
        options = replace(options, **settings)
        calls = (self._calls.search(some, options) for some in _texts(queries))
        return [found for call in calls for found in await self._run(call, progress)]

    async def search_vectors(
        self, vectors: Any, options: SearchOptions = DEFAULT_OPTIONS, **settings: Any
    ) -> list[SearchResult]:
        """See `Client.search_vectors`."""
        options = replace(options, **settings)
        calls = (self._calls.search(some, options) for some in _vectors(vectors))
        return answered([found for call in calls for found in await self._run(call)])

    async def explain(
        self,
        document_id: str,
        prompt: str,
        completion: str | None = None,
        *,
        long_queries: str = DEFAULT_OPTIONS.long_queries,
        progress: Progress | None = None,
    ) -> Explanation:
        """See `Client.explain`."""
        return await self._run(self._calls.explain(document_id, prompt, completion, long_queries), progress)

    async def document(self, document_id: str) -> dict[str, Any]:
        """See `Client.document`."""
        return await self._run(self._calls.document(document_id))

    async def info(self) -> dict[str, Any]:
        """See `Client.info`."""
        return await self._run(self._calls.info())

    async def add(self, documents: Sequence[dict[str, Any]], *, replace: bool = False) -> int:
        """See `Client.add`."""
        return await self._run(self._calls.add(documents, replace))

    async def delete(self, document_id: str) -> int:
        """See `Client.delete`."""
        return await self._run(self._calls.delete(document_id))

    async def _run(self, call: "_Call[Result]", progress: Progress | None = None) -> Result:
        try:
            request = next(call)
            while True:
                request = call.send(await self._send(request, progress or Silent()))
        except StopIteration as end:
            found: Result = end.value
            return found

    async def _send(self, request: _Request, progress: Progress) -> Any:
        attempt, sent = 0, self._calls.sent(request)
        while True:
            try:
                async with self._http.stream(**sent) as response:
                    if not _in_lines(response):
                        await response.aread()
                    else:
                        with Listener(progress, self._calls.base) as listener:
                            async for line in response.aiter_lines():
                                listener.hear(line)
                            return listener.answer
            except httpx.TransportError as error:
                pause = self._calls.wait(attempt, None) if isinstance(error, httpx.ConnectError) else None
                if pause is None:
                    raise self._calls.unreachable(error) from error
            else:
                pause = self._calls.wait(attempt, response)
                if pause is None or response.is_success:
                    return self._calls.read(response)
            await asyncio.sleep(pause)
            attempt += 1


def _texts(queries: Sequence[Query]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(queries), BATCH):
        yield [asdict(query) for query in queries[start : start + BATCH]]


def _vectors(vectors: Any) -> Iterator[list[dict[str, Any]]]:
    import numpy as np

    vectors_QD = np.ascontiguousarray(vectors, "<f4")
    if vectors_QD.ndim != 2:
        raise MismatchError(f"query vectors: expected shape [queries, dimension], found {vectors_QD.shape}")
    for start in range(0, len(vectors_QD), BATCH):
        block = enumerate(vectors_QD[start : start + BATCH], start)
        yield [{"id": str(n), "vector": base64.b64encode(v.tobytes()).decode()} for n, v in block]


def _in_lines(response: "httpx.Response") -> bool:
    return str(response.headers.get("content-type", "")).startswith(NDJSON)
