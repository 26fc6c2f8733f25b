"""A client of `gindex serve`, for programs: the same results and errors as `GradientIndex`, over HTTP.

    >>> with Client("http://127.0.0.1:8080/jargon") as client:
    ...     client.search("A race condition is", completion=" a bug", k=3).hits

Neither torch nor FAISS is loaded.
"""

import asyncio
import base64
import random
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

from gindex import errors
from gindex.config import SearchOptions
from gindex.errors import ConfigError, GindexError, MissingDependencyError, ServiceError, UnavailableError
from gindex.search.explanation import Explanation, PartExplanation, TokenInfluence
from gindex.search.hit import Hit, Query, Refinement, SearchResult, Timing
from gindex.store.coverage import Coverage

try:
    import httpx2 as httpx
except ModuleNotFoundError as error:
    raise MissingDependencyError("gindex.client: expected httpx2, found none; install gindex[client]") from error

Result = TypeVar("Result")
_Call = Generator[tuple[str, str, Any], Any, Result]

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
        self.retries = retries

    def path(self, rest: str = "") -> str:
        return f"{self.base}/v1/indexes/{quote(self.index, safe='')}{rest}"

    def search(self, queries: Sequence[dict[str, Any]], options: SearchOptions) -> "_Call[list[SearchResult]]":
        changed = {name: value for name, value in asdict(options).items() if value != getattr(DEFAULT_OPTIONS, name)}
        content = yield "POST", self.path("/search/batch"), {"queries": queries, **changed}
        return [result_of(record, content["version"]) for record in content["results"]]

    def explain(self, document_id: str, prompt: str, completion: str | None) -> "_Call[Explanation]":
        body = {"document_id": document_id, "prompt": prompt, "completion": completion}
        content = yield "POST", self.path("/explain"), body
        return explanation_of(content)

    def get(self, rest: str = "") -> "_Call[dict[str, Any]]":
        content: dict[str, Any] = yield "GET", self.path(rest), None
        return content

    def document(self, document_id: str) -> "_Call[dict[str, Any]]":
        return self.get(f"/documents/{quote(document_id, safe='')}")

    def add(self, documents: Sequence[dict[str, Any]], replace: bool) -> "_Call[int]":
        content = yield "POST", self.path("/documents"), {"documents": list(documents), "replace": replace}
        return int(content["version"])

    def delete(self, document_id: str) -> "_Call[int]":
        content = yield "DELETE", self.path(f"/documents/{quote(document_id, safe='')}"), None
        return int(content["version"])

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
        raise _error_of(content, response.status_code, self.base)

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
        self._http = httpx.Client(headers=self._calls.headers, timeout=timeout)

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
        self, queries: Sequence[Query], options: SearchOptions = DEFAULT_OPTIONS, **settings: Any
    ) -> list[SearchResult]:
        """Answer many queries; see `GradientIndex.search_many`."""
        options = replace(options, **settings)
        return [result for some in _texts(queries) for result in self._run(self._calls.search(some, options))]

    def search_vectors(
        self, vectors: Any, options: SearchOptions = DEFAULT_OPTIONS, **settings: Any
    ) -> list[SearchResult]:
        """Answer queries whose vectors [Q, D] are at hand; see `GradientIndex.search_vectors`."""
        options = replace(options, **settings)
        return [result for some in _vectors(vectors) for result in self._run(self._calls.search(some, options))]

    def explain(self, document_id: str, prompt: str, completion: str | None = None) -> Explanation:
        """Return the exact influence of one document, told apart; see `GradientIndex.explain`."""
        return self._run(self._calls.explain(document_id, prompt, completion))

    def document(self, document_id: str) -> dict[str, Any]:
        """Return a document: `document_id`, `text`, `metadata`, and the `version` that holds it."""
        return self._run(self._calls.document(document_id))

    def info(self) -> dict[str, Any]:
        """Return what the index is: its version, size, recall and fidelity."""
        return self._run(self._calls.get())

    def add(self, documents: Sequence[dict[str, Any]], *, replace: bool = False) -> int:
        """Add documents (`id`, `text` and metadata) and return the version that holds them."""
        return self._run(self._calls.add(documents, replace))

    def delete(self, document_id: str) -> int:
        """Delete a document and return the version without it."""
        return self._run(self._calls.delete(document_id))

    def _run(self, call: "_Call[Result]") -> Result:
        try:
            request = next(call)
            while True:
                request = call.send(self._send(*request))
        except StopIteration as end:
            found: Result = end.value
            return found

    def _send(self, method: str, url: str, body: Any) -> Any:
        attempt = 0
        while True:
            response = None
            try:
                response = self._http.request(method, url, json=body)
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
        self._http = httpx.AsyncClient(headers=self._calls.headers, timeout=timeout)

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
        self, queries: Sequence[Query], options: SearchOptions = DEFAULT_OPTIONS, **settings: Any
    ) -> list[SearchResult]:
        """See `Client.search_many`."""
        options = replace(options, **settings)
        return [r for some in _texts(queries) for r in await self._run(self._calls.search(some, options))]

    async def search_vectors(
        self, vectors: Any, options: SearchOptions = DEFAULT_OPTIONS, **settings: Any
    ) -> list[SearchResult]:
        """See `Client.search_vectors`."""
        options = replace(options, **settings)
        return [r for some in _vectors(vectors) for r in await self._run(self._calls.search(some, options))]

    async def explain(self, document_id: str, prompt: str, completion: str | None = None) -> Explanation:
        """See `Client.explain`."""
        return await self._run(self._calls.explain(document_id, prompt, completion))

    async def document(self, document_id: str) -> dict[str, Any]:
        """See `Client.document`."""
        return await self._run(self._calls.document(document_id))

    async def info(self) -> dict[str, Any]:
        """See `Client.info`."""
        return await self._run(self._calls.get())

    async def add(self, documents: Sequence[dict[str, Any]], *, replace: bool = False) -> int:
        """See `Client.add`."""
        return await self._run(self._calls.add(documents, replace))

    async def delete(self, document_id: str) -> int:
        """See `Client.delete`."""
        return await self._run(self._calls.delete(document_id))

    async def _run(self, call: "_Call[Result]") -> Result:
        try:
            request = next(call)
            while True:
                request = call.send(await self._send(*request))
        except StopIteration as end:
            found: Result = end.value
            return found

    async def _send(self, method: str, url: str, body: Any) -> Any:
        attempt = 0
        while True:
            try:
                response = await self._http.request(method, url, json=body)
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


def result_of(record: dict[str, Any], version: int) -> SearchResult:
    """Return the result in a record that `result_record` made."""
    ends = [None if record.get(end) is None else _hits_of(record[end]) for end in ("hits", "negative_hits")]
    query = record["query"]
    return SearchResult(
        query=Query(prompt=query["prompt"], completion=query["completion"], id=query["id"]),
        tokens=query["tokens"],
        hits=ends[0] or (),
        timing_ms=Timing(**record["timing_ms"]),
        negative_hits=ends[1],
        reranked=record.get("reranked"),
        refinement=None if record.get("refinement") is None else Refinement(**record["refinement"]),
        version=version,
        coverage=None if record.get("coverage") is None else Coverage.of_record(record["coverage"]),
    )


def explanation_of(content: dict[str, Any]) -> Explanation:
    """Return the explanation in a record that `explanation_record` made."""
    parts = tuple(
        PartExplanation(
            part=part["part"],
            influence=part["influence"],
            tokens=tuple(TokenInfluence(**token) for token in part["tokens"]),
        )
        for part in content["parts"]
    )
    fields = {name: content[name] for name in ("document_id", "influence", "layers", "groups")}
    return Explanation(query=Query(**content["query"]), parts=parts, **fields)


def _hits_of(records: Sequence[dict[str, Any]]) -> tuple[Hit, ...]:
    folded = ({"duplicates": tuple(hit["duplicates"])} if hit.get("duplicates") is not None else {} for hit in records)
    return tuple(Hit(**(hit | more)) for hit, more in zip(records, folded, strict=True))


def _texts(queries: Sequence[Query]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(queries), BATCH):
        yield [asdict(query) for query in queries[start : start + BATCH]]


def _vectors(vectors: Any) -> Iterator[list[dict[str, Any]]]:
    import numpy as np

    vectors_QD = np.ascontiguousarray(vectors, "<f4")
    if vectors_QD.ndim != 2:
        raise errors.MismatchError(f"query vectors: expected shape [queries, dimension], found {vectors_QD.shape}")
    for start in range(0, len(vectors_QD), BATCH):
        block = enumerate(vectors_QD[start : start + BATCH], start)
        yield [{"id": str(n), "vector": base64.b64encode(v.tobytes()).decode()} for n, v in block]


def _error_of(content: Any, status: int, where: str) -> GindexError:
    """Return the error in an answer: the class that the service raised, where it is one of gindex's."""
    problem = content if isinstance(content, dict) else {}
    kind = getattr(errors, str(problem.get("type", "")).rpartition(":")[2], None)
    if not (isinstance(kind, type) and issubclass(kind, GindexError)):
        kind = ServiceError
    found: GindexError = kind(f"{where}: {problem.get('detail', f'expected an answer, found {status}')}")
    return found
