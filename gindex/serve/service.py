"""The service behind the routes: its settings, keys, indexes, metrics, and the waiting for results."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from starlette.requests import Request

from gindex.errors import ConfigError, CorruptStoreError, UnavailableError
from gindex.options import default_of
from gindex.queries.query import Query
from gindex.search.query_vectors import EncodedQuery
from gindex.search_options import SearchOptions
from gindex.serve.batcher import Batcher
from gindex.serve.config import ServeConfig
from gindex.serve.indexes import IndexLocation, ServedIndex, ServedIndexes
from gindex.serve.jobs import Job
from gindex.serve.keys import Caller, Keys, RateLimit
from gindex.serve.metrics import Metrics
from gindex.serve.problems import RefusedError
from gindex.serve.requests import identify, left


class Service:
    """One service without its routes and its socket."""

    def __init__(
        self,
        locations: Iterable[IndexLocation],
        config: ServeConfig,
        *,
        keys: Keys | None = None,
        writable: bool = False,
        prompts: bool = True,
    ) -> None:
        """Prepare a service; `start` loads its indexes.

        Args:
            locations: The indexes.
            config: The settings.
            keys: API keys; None answers everyone.
            writable: Whether documents may be added and deleted.
            prompts: Whether prompts are answered, for which the model is loaded.
        """
        self.config, self.keys, self.writable, self.prompts = config, keys, writable, prompts
        self.metrics = Metrics()
        self.limit = RateLimit(config.rate)
        self.batcher = Batcher(config, self.metrics)
        self.indexes = ServedIndexes(
            [
                ServedIndex(
                    location,
                    self.batcher,
                    self.metrics,
                    config.permissions,
                    device=config.device,
                    model=prompts,
                    most_seconds=config.search_seconds,
                )
                for location in locations
            ],
            config.reload_seconds,
        )
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether every index has been tried, at least one answers, and the service is not closing."""
        return self.indexes.loaded.is_set() and not self.draining and any(index.ready for index in self.indexes)

    def start(self) -> None:
        """Start the batcher and load the indexes in the background."""
        self.batcher.start()
        self.indexes.start()

    def close(self) -> None:
        """Answer what waits, then stop."""
        self.draining = True
        self.indexes.close()
        self.batcher.close()

    def reader(self, request: Request) -> Caller:
        """Return the caller of a request that reads; see `identify`."""
        return identify(request, self.keys, self.limit, "read")

    def writer(self, request: Request) -> Caller:
        """Return the caller of a request that writes; see `identify`.

        Raises:
            RefusedError: The service is read-only (403).
        """
        caller = identify(request, self.keys, self.limit, "write")
        if not self.writable:
            raise RefusedError(403, expected="a service that takes changes", found="a read-only one")
        return caller

    def check(self, options: SearchOptions) -> None:
        """Check a request against the limits.

        Raises:
            ConfigError: It asks for too much.
        """
        most = self.config.max_k
        for name in ("k", "candidates", "shortlist", "words_documents", "refine_parts", "groups"):
            asked = getattr(options, name)
            if asked is not None and asked > most and asked != default_of(SearchOptions, name):
                raise ConfigError(field=name, expected=f"at most {most}", found="more")
        if options.refine is not None and options.refine_parts is None:
            raise ConfigError(field="refine_parts", expected=f"from 1 to {most} over HTTP", found="null, all of them")

    def check_texts(self, queries: Sequence[Query | EncodedQuery]) -> None:
        """Check the number of texts of a request's queries against the limit; a vector counts as one.

        Raises:
            ConfigError: There are more.
        """
        count = sum(query.text_count if isinstance(query, Query) else 1 for query in queries)
        if count > self.config.max_queries:
            raise ConfigError(field="queries", expected=f"at most {self.config.max_queries}", found=count)

    async def answered(self, request: Request, served: ServedIndex, job: Job) -> Any:
        """Queue a job and wait for its result, until the client goes away.

        Raises:
            GindexError: It failed. If files of the index are damaged, the index is given up until they are whole.
        """
        gone = asyncio.ensure_future(left(request))
        try:
            self.batcher.submit(job)
            return await self.outcome(served, job, gone)
        finally:
            gone.cancel()

    async def outcome(self, served: ServedIndex, job: Job, gone: "asyncio.Future[Any]") -> Any:
        """Wait for the result of a queued job, until `gone` is done; raises as `answered` does."""
        try:
            return await job.outcome(gone)
        except (CorruptStoreError, OSError) as error:
            served.suspect(error)
            if isinstance(error, CorruptStoreError):
                raise
            raise UnavailableError(expected="the index to be readable", found="that it is not") from error
