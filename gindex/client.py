"""A client of `gindex serve`, for programs: the same results and errors as `GradientIndex`, over HTTP.

    >>> with Client("http://127.0.0.1:8080/jargon") as client:
    ...     client.search("A race condition is", completion=" a bug", k=3).hits

Neither torch nor FAISS is loaded.
"""

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from gindex.distribution import install_hint
from gindex.errors import MissingDependencyError
from gindex.exact.explanation import Explanation
from gindex.http.answers import LineReader
from gindex.http.endpoint import Exchange, IndexEndpoint, Request, in_lines, texts_in_blocks, vectors_in_blocks
from gindex.keywords import SearchKeywords
from gindex.options import changed
from gindex.progress import Progress, Silent
from gindex.queries.query import Query, query_of
from gindex.search.result import Outcome, SearchResult, answered
from gindex.search_options import SearchOptions

try:
    import httpx2 as httpx
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        field="gindex.client", expected="httpx2", found="none", remedy=install_hint("client")
    ) from error

Result = TypeVar("Result")


DEFAULT_OPTIONS = SearchOptions()
TIMEOUT = 120.0
RETRIES = 4


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
            timeout: Longest wait for an answer, in seconds.
            retries: How often a request is sent again after status 429 or 503, or where nothing listens.

        Raises:
            ConfigError: The address is not of that form.
        """
        self._endpoint = IndexEndpoint(url, index, api_key, retries)
        self._http = httpx.Client(
            headers=self._endpoint.headers, timeout=timeout, trust_env=self._endpoint.through_proxies
        )

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
        self,
        query: str | Query,
        completion: str | None = None,
        options: SearchOptions = DEFAULT_OPTIONS,
        **settings: Unpack[SearchKeywords],
    ) -> SearchResult:
        """Documents with the most influence on one query; see `GradientIndex.search`."""
        return self.search_many([query_of(query, completion)], options, **settings)[0]

    def search_many(
        self,
        queries: Sequence[Query],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        progress: Progress | None = None,
        **settings: Unpack[SearchKeywords],
    ) -> list[SearchResult]:
        """Answer many queries; see `GradientIndex.search_many`. An exact search reports its wait too."""
        return answered(self.search_each(queries, options, progress=progress, **settings))

    def search_each(
        self,
        queries: Sequence[Query],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        progress: Progress | None = None,
        **settings: Unpack[SearchKeywords],
    ) -> list[Outcome]:
        """Answer many queries; one that has no answer gets its failure instead. See `GradientIndex.search_each`."""
        options = changed(options, settings)
        return [
            outcome
            for some in texts_in_blocks(queries)
            for outcome in self._run(self._endpoint.search(some, options), progress)
        ]

    def search_vectors(
        self, vectors: Any, options: SearchOptions = DEFAULT_OPTIONS, **settings: Unpack[SearchKeywords]
    ) -> list[SearchResult]:
        """Answer queries given as vectors [Q, D]; see `GradientIndex.search_vectors`."""
        options = changed(options, settings)
        calls = (self._endpoint.search(some, options) for some in vectors_in_blocks(vectors))
        return answered([outcome for call in calls for outcome in self._run(call)])

    def explain(
        self,
        document_id: str,
        query: str | Query,
        completion: str | None = None,
        *,
        long_queries: str = DEFAULT_OPTIONS.long_queries,
        progress: Progress | None = None,
    ) -> Explanation:
        """Exact influence of one document, by token and by layer; see `GradientIndex.explain`."""
        return self._run(self._endpoint.explain(document_id, query_of(query, completion), long_queries), progress)

    def document(self, document_id: str) -> dict[str, Any]:
        """A document: `document_id`, `text`, `metadata`, and the `version` that holds it."""
        return self._run(self._endpoint.document(document_id))

    def info(self) -> dict[str, Any]:
        """Description of the index: its version, size, recall and fidelity."""
        return self._run(self._endpoint.info())

    def add(self, documents: Sequence[dict[str, Any]], *, replace: bool = False) -> int:
        """Add documents (`id`, `text` and metadata) and return the version that holds them."""
        return self._run(self._endpoint.add(documents, replace))

    def delete(self, document_id: str) -> int:
        """Delete a document and return the version without it."""
        return self._run(self._endpoint.delete(document_id))

    def _run(self, call: "Exchange[Result]", progress: Progress | None = None) -> Result:
        try:
            request = next(call)
            while True:
                request = call.send(self._send(request, progress or Silent()))
        except StopIteration as end:
            result: Result = end.value
            return result

    def _send(self, request: Request, progress: Progress) -> Any:
        attempt, sent = 0, self._endpoint.sent(request)
        while True:
            response = None
            try:
                with self._http.stream(**sent) as response, LineReader(progress, self._endpoint.base) as reader:
                    if not in_lines(response):
                        response.read()
                    else:
                        for line in response.iter_lines():
                            reader.take(line)
                        return reader.answer
            except httpx.TransportError as error:
                pause = self._endpoint.wait(attempt, None) if isinstance(error, httpx.ConnectError) else None
                if pause is None:
                    raise self._endpoint.unreachable(error) from error
            else:
                pause = self._endpoint.wait(attempt, response)
                if pause is None or response.is_success:
                    return self._endpoint.read(response)
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
        self._endpoint = IndexEndpoint(url, index, api_key, retries)
        self._http = httpx.AsyncClient(
            headers=self._endpoint.headers, timeout=timeout, trust_env=self._endpoint.through_proxies
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
        self,
        query: str | Query,
        completion: str | None = None,
        options: SearchOptions = DEFAULT_OPTIONS,
        **settings: Unpack[SearchKeywords],
    ) -> SearchResult:
        """See `Client.search`."""
        return (await self.search_many([query_of(query, completion)], options, **settings))[0]

    async def search_many(
        self,
        queries: Sequence[Query],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        progress: Progress | None = None,
        **settings: Unpack[SearchKeywords],
    ) -> list[SearchResult]:
        """See `Client.search_many`."""
        return answered(await self.search_each(queries, options, progress=progress, **settings))

    async def search_each(
        self,
        queries: Sequence[Query],
        options: SearchOptions = DEFAULT_OPTIONS,
        *,
        progress: Progress | None = None,
        **settings: Unpack[SearchKeywords],
    ) -> list[Outcome]:
        """See `Client.search_each`."""
        options = changed(options, settings)
        calls = (self._endpoint.search(some, options) for some in texts_in_blocks(queries))
        return [outcome for call in calls for outcome in await self._run(call, progress)]

    async def search_vectors(
        self, vectors: Any, options: SearchOptions = DEFAULT_OPTIONS, **settings: Unpack[SearchKeywords]
    ) -> list[SearchResult]:
        """See `Client.search_vectors`."""
        options = changed(options, settings)
        calls = (self._endpoint.search(some, options) for some in vectors_in_blocks(vectors))
        return answered([outcome for call in calls for outcome in await self._run(call)])

    async def explain(
        self,
        document_id: str,
        query: str | Query,
        completion: str | None = None,
        *,
        long_queries: str = DEFAULT_OPTIONS.long_queries,
        progress: Progress | None = None,
    ) -> Explanation:
        """See `Client.explain`."""
        return await self._run(self._endpoint.explain(document_id, query_of(query, completion), long_queries), progress)

    async def document(self, document_id: str) -> dict[str, Any]:
        """See `Client.document`."""
        return await self._run(self._endpoint.document(document_id))

    async def info(self) -> dict[str, Any]:
        """See `Client.info`."""
        return await self._run(self._endpoint.info())

    async def add(self, documents: Sequence[dict[str, Any]], *, replace: bool = False) -> int:
        """See `Client.add`."""
        return await self._run(self._endpoint.add(documents, replace))

    async def delete(self, document_id: str) -> int:
        """See `Client.delete`."""
        return await self._run(self._endpoint.delete(document_id))

    async def _run(self, call: "Exchange[Result]", progress: Progress | None = None) -> Result:
        try:
            request = next(call)
            while True:
                request = call.send(await self._send(request, progress or Silent()))
        except StopIteration as end:
            result: Result = end.value
            return result

    async def _send(self, request: Request, progress: Progress) -> Any:
        attempt, sent = 0, self._endpoint.sent(request)
        while True:
            try:
                async with self._http.stream(**sent) as response:
                    if not in_lines(response):
                        await response.aread()
                    else:
                        with LineReader(progress, self._endpoint.base) as reader:
                            async for line in response.aiter_lines():
                                reader.take(line)
                            return reader.answer
            except httpx.TransportError as error:
                pause = self._endpoint.wait(attempt, None) if isinstance(error, httpx.ConnectError) else None
                if pause is None:
                    raise self._endpoint.unreachable(error) from error
            else:
                pause = self._endpoint.wait(attempt, response)
                if pause is None or response.is_success:
                    return self._endpoint.read(response)
            await asyncio.sleep(pause)
            attempt += 1
