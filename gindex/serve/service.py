"""A service as its routes see it: settings, keys, indexes, metrics, and how work is waited for."""

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.requests import Request

from gindex.config import SearchOptions
from gindex.errors import ConfigError, CorruptStoreError, UnavailableError
from gindex.options import default_of
from gindex.serve.config import ServeConfig
from gindex.serve.engine import Engine
from gindex.serve.jobs import Job
from gindex.serve.keys import Caller, Keys, RateLimit
from gindex.serve.metrics import Metrics
from gindex.serve.problems import RefusedError
from gindex.serve.reading import identify, left
from gindex.serve.served import Place, Served, ServedIndex


class Service:
    """Everything of one service but its routes and its socket."""

    def __init__(
        self,
        places: Iterable[Place],
        config: ServeConfig,
        *,
        keys: Keys | None = None,
        writable: bool = False,
        prompts: bool = True,
    ) -> None:
        """Prepare a service; `start` loads its indexes.

        Args:
            places: The indexes.
            config: The settings.
            keys: API keys; None answers everyone.
            writable: Whether documents may be added and deleted.
            prompts: Whether prompts are answered, for which the model is loaded.
        """
        self.config, self.keys, self.writable, self.prompts = config, keys, writable, prompts
        self.metrics = Metrics()
        self.limit = RateLimit(config.rate)
        self.engine = Engine(config, self.metrics)
        self.indexes = Served(
            [
                ServedIndex(
                    place,
                    self.engine,
                    self.metrics,
                    config.permissions,
                    device=config.device,
                    model=prompts,
                    most_seconds=config.search_seconds,
                )
                for place in places
            ],
            config.reload_seconds,
        )
        self.draining = False

    @property
    def ready(self) -> bool:
        """Whether every index was tried, at least one answers, and the service isn't closing."""
        return self.indexes.loaded.is_set() and not self.draining and any(index.ready for index in self.indexes)

    def start(self) -> None:
        """Start the engine and load the indexes in the background."""
        self.engine.start()
        self.indexes.start()

    def close(self) -> None:
        """Answer what waits, then stop."""
        self.draining = True
        self.indexes.close()
        self.engine.close()

    def reader(self, request: Request) -> Caller:
        """Let a caller read; see `identify`."""
        return identify(request, self.keys, self.limit, "read")

    def writer(self, request: Request) -> Caller:
        """Let a caller write; see `identify`.

        Raises:
            RefusedError: The service is read-only (403).
        """
        caller = identify(request, self.keys, self.limit, "write")
        if not self.writable:
            raise RefusedError(403, expected="a service that takes changes", found="a read-only one")
        return caller

    def check(self, options: SearchOptions, queries: int) -> None:
        """Hold a request to the limits.

        Raises:
            ConfigError: It asks for too much.
        """
        most = self.config.max_k
        for name in ("k", "candidates", "shortlist", "words_documents", "refine_parts"):
            asked = getattr(options, name)
            if asked is not None and asked > most and asked != default_of(SearchOptions, name):
                raise ConfigError(field=name, expected=f"at most {most}", found="more")
        if options.refine is not None and options.refine_parts is None:
            raise ConfigError(field="refine_parts", expected=f"from 1 to {most} over HTTP", found="null, all of them")
        if queries > self.config.max_queries:
            raise ConfigError(field="queries", expected=f"at most {self.config.max_queries}", found=queries)

    async def answered(self, request: Request, served: ServedIndex, job: Job) -> Any:
        """Queue a job and wait for its result, until the client goes away.

        Raises:
            GindexError: It failed; where that is for the index's files, the index is given up until they are whole.
        """
        gone = asyncio.ensure_future(left(request))
        try:
            self.engine.submit(job)
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
