"""An index at a service, as both clients see it: the requests to it and the reading of answers, without a connection.

Neither torch nor FAISS is loaded.
"""

import base64
import json
import random
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

from gindex.errors import ConfigError, MismatchError, ServiceError, UnavailableError
from gindex.exact.explanation import Explanation
from gindex.http.answers import NDJSON, error_of, explanation_of, outcome_of
from gindex.http.loopback import is_loopback
from gindex.queries.query import Query, asked_record
from gindex.search.result import Outcome
from gindex.search_options import SearchOptions

Result = TypeVar("Result")


class Response(Protocol):
    """An answer as the HTTP library gives it."""

    @property
    def status_code(self) -> int:
        """The status."""
        ...

    @property
    def is_success(self) -> bool:
        """Whether the status is one of success."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""
        ...

    def json(self) -> Any:
        """The body, which has been read."""
        ...


@dataclass(frozen=True)
class Request:
    """A request; with `lines`, slow work may be answered in lines."""

    method: str
    url: str
    body: Any = None
    lines: bool = False


Exchange = Generator[Request, Any, Result]

DEFAULT_OPTIONS = SearchOptions()
BATCH_QUERIES = 32
"""Most queries that are sent in one request."""

_AGAIN = (429, 503)
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 10.0


class IndexEndpoint:
    """The requests to an index at a service, for both clients.

    Each method is a generator that yields a request and is sent its answer, so that it is written once for both.
    """

    def __init__(self, url: str, index: str | None, api_key: str | None, retries: int) -> None:
        """Take the address of an index; see `gindex.client.Client`.

        Raises:
            ConfigError: It is not one.
        """
        parts = urlsplit(url)
        *_, last = parts.path.rstrip("/").split("/")
        if parts.scheme not in ("http", "https") or not parts.hostname or not (index or last):
            raise ConfigError(
                field=url, expected="http://host:port/name of an index", remedy="see /v1/indexes of the service"
            )
        prefix = parts.path.rstrip("/") if index else parts.path.rstrip("/").removesuffix(last)
        self.base = f"{parts.scheme}://{parts.netloc}{prefix.rstrip('/')}"
        self.index = index or last
        self.headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self.through_proxies = not is_loopback(parts.hostname)
        self.retries = retries

    def path(self, rest: str = "") -> str:
        """Address below that of the index."""
        return f"{self.base}/v1/indexes/{quote(self.index, safe='')}{rest}"

    def search(self, queries: Sequence[dict[str, Any]], options: SearchOptions) -> "Exchange[list[Outcome]]":
        """Search for many queries; a slow search is answered in lines."""
        changed = {name: value for name, value in asdict(options).items() if value != getattr(DEFAULT_OPTIONS, name)}
        content = yield Request("POST", self.path("/search/batch"), {"queries": queries, **changed}, options.slow)
        return [outcome_of(record, content["version"], self.base) for record in content["results"]]

    def explain(self, document_id: str, query: Query, long_queries: str) -> "Exchange[Explanation]":
        """Ask for an explanation, in lines."""
        body = {"document_id": document_id} | asked_record(query)
        if long_queries != DEFAULT_OPTIONS.long_queries:
            body["long_queries"] = long_queries
        content = yield Request("POST", self.path("/explain"), body, lines=True)
        return explanation_of(content, self.base)

    def info(self) -> "Exchange[dict[str, Any]]":
        """Ask for the description of the index."""
        content: dict[str, Any] = yield Request("GET", self.path())
        return content

    def document(self, document_id: str) -> "Exchange[dict[str, Any]]":
        """Ask for a document. Its id goes in the body: an address has a limit, and loses `..` on the way."""
        content: dict[str, Any] = yield Request("POST", self.path("/document"), {"document_id": document_id})
        return content

    def add(self, documents: Sequence[dict[str, Any]], replace: bool) -> "Exchange[int]":
        """Add documents; returns the version that holds them."""
        body = {"documents": list(documents), "replace": replace}
        content = yield Request("POST", self.path("/documents"), body)
        return int(content["version"])

    def delete(self, document_id: str) -> "Exchange[int]":
        """Delete a document; returns the version without it."""
        content = yield Request("POST", self.path("/document/delete"), {"document_id": document_id})
        return int(content["version"])

    def sent(self, request: Request) -> dict[str, Any]:
        """Request as the HTTP library takes it.

        Raises:
            ConfigError: It holds half a surrogate pair, NaN or infinity.
        """
        headers = {"Accept": NDJSON} if request.lines else {}
        if request.body is None:
            return {"method": request.method, "url": request.url, "headers": headers}
        try:
            content = json.dumps(request.body, ensure_ascii=False, allow_nan=False).encode()
        except ValueError as error:  # half a surrogate pair is one too
            raise ConfigError(
                field="request", expected="Unicode text and finite numbers", found=f"that {error}"
            ) from error
        headers["Content-Type"] = "application/json"
        return {"method": request.method, "url": request.url, "content": content, "headers": headers}

    def wait(self, attempt: int, response: "Response | None") -> float | None:
        """Seconds to wait before the next attempt; None where there is no use in one."""
        if attempt >= self.retries or (response is not None and response.status_code not in _AGAIN):
            return None
        asked = "" if response is None else str(response.headers.get("retry-after", ""))
        backoff = _FIRST_WAIT * 2.0**attempt * random.uniform(0.5, 1.0)
        return min(max(backoff, float(asked) if asked.isdecimal() else 0.0), _LONGEST_WAIT)

    def read(self, response: "Response") -> Any:
        """Content of an answer.

        Raises:
            GindexError: It is an error.
            ServiceError: It is no answer of a service.
        """
        try:
            content = response.json()
        except ValueError as error:
            raise ServiceError(field=self.base, expected="JSON", found=f"{response.status_code} without it") from error
        if response.is_success:
            return content
        raise error_of(content, self.base, f"an answer, found {response.status_code}")

    def unreachable(self, error: Exception) -> UnavailableError:
        """Error of a request that nobody answered."""
        found = str(error) or type(error).__name__
        return UnavailableError(
            field=self.base, expected="a service", found=found, remedy="check the address and that it runs"
        )


def texts_in_blocks(queries: Sequence[Query]) -> Iterator[list[dict[str, Any]]]:
    """Yield queries in the form of a request, at most `BATCH_QUERIES` at a time."""
    for start in range(0, len(queries), BATCH_QUERIES):
        yield [asked_record(query) for query in queries[start : start + BATCH_QUERIES]]


def vectors_in_blocks(vectors: Any) -> Iterator[list[dict[str, Any]]]:
    """Yield query vectors [Q, D] in the form of a request, at most `BATCH_QUERIES` at a time.

    Raises:
        MismatchError: They have another shape.
    """
    import numpy as np

    vectors_QD = np.ascontiguousarray(vectors, "<f4")
    if vectors_QD.ndim != 2:
        raise MismatchError(field="query vectors", expected="shape [queries, dimension]", found=vectors_QD.shape)
    for start in range(0, len(vectors_QD), BATCH_QUERIES):
        block = enumerate(vectors_QD[start : start + BATCH_QUERIES], start)
        yield [{"id": str(n), "vector": base64.b64encode(v.tobytes()).decode()} for n, v in block]


def in_lines(response: Response) -> bool:
    """Whether an answer comes in lines."""
    return str(response.headers.get("content-type", "")).startswith(NDJSON)
