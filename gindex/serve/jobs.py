"""Jobs of requests: searches and explanations, with a time limit on every stage."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from gindex.errors import TimeLimitError
from gindex.index import GradientIndex
from gindex.progress import Phase
from gindex.queries.query import FailedQuery, Query
from gindex.search.query_vectors import EncodedQuery
from gindex.search_options import SearchOptions
from gindex.serve.turnstile import Turnstile


class AbandonedError(Exception):
    """Nobody waits for the work any more."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """The state of slow work: its phase, and how many units are done of how many; None where the total is unknown."""

    phase: str
    done: int
    total: int | None
    unit: str


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Slow work that was announced before it started, and about how many seconds it takes."""

    work: str
    expected_s: float


class Job:
    """A request's work, from the event loop to the worker and back.

    The worker says which stage it is in; the request that waits watches the stage's deadline. The request abandons the
    job when the client has gone or the deadline has passed, and the worker drops it at its next look.
    """

    def __init__(self, index: GradientIndex, limit: float) -> None:
        """Make a job that may wait for a number of seconds; call it in the event loop."""
        self.index = index
        self.loop = asyncio.get_running_loop()
        self.done: asyncio.Future[Any] = self.loop.create_future()
        self.abandoned = False
        self.stage, self.entered, self.limit = "queue", time.monotonic(), limit
        self.seconds: dict[str, float] = {}
        self.step: Step | None = None
        self.expected: Expectation | None = None
        self.progress: JobProgress | None = None
        self._still_since: float | None = None

    @property
    def slow(self) -> bool:
        """Whether it takes passes over documents, and so goes into the slow queue."""
        return True

    @property
    def size(self) -> int:
        """The number of queries that it counts as."""
        return 1

    @property
    def left(self) -> float:
        """Seconds that its stage has left; they do not run while the job pauses."""
        return self.entered + self.limit - (self._still_since or time.monotonic())

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Leave the time that the block takes out of the stage's time."""
        self._still_since = began = time.monotonic()
        try:
            yield
        finally:
            self.limit, self._still_since = self.limit + time.monotonic() - began, None

    def enter(self, stage: str, limit: float) -> None:
        """Go on to a stage, with its time limit in seconds."""
        now = time.monotonic()
        self.seconds[self.stage] = self.seconds.get(self.stage, 0.0) + now - self.entered
        self.stage, self.entered, self.limit = stage, now, limit

    def finish(self, outcome: Any) -> None:
        """Hand a result or an error to the request that waits; call it in the event loop."""
        if not self.done.done():
            if isinstance(outcome, Exception):
                self.done.set_exception(outcome)
            else:
                self.done.set_result(outcome)

    def too_late(self) -> TimeLimitError:
        """Return the error of a stage that took too long."""
        return TimeLimitError(expected=f"the stage {self.stage} to end within {self.limit:g} s", found="it longer")

    async def outcome(self, gone: "asyncio.Future[Any]") -> Any:
        """Wait for the result.

        Args:
            gone: Done when the client has gone.

        Raises:
            AbandonedError: The client has gone.
            TimeLimitError: A stage took too long.
            GindexError: The work failed.
        """
        gone.add_done_callback(lambda _gone: self._abandon(AbandonedError()))
        self._look()
        try:
            return await self.done
        finally:
            self._timer.cancel()

    def _look(self) -> None:
        """Give up if the stage's time is over; otherwise look again when it would be."""
        if self.left <= 0:
            self._abandon(self.too_late())
        self._timer = self.loop.call_later(max(0.001, self.left), self._look)

    def _abandon(self, error: Exception) -> None:
        if not self.done.done():
            self.abandoned = True
            self.finish(error)


class SearchJob(Job):
    """The queries of one request, with the options that they share."""

    def __init__(
        self,
        index: GradientIndex,
        limit: float,
        queries: Sequence[Query | EncodedQuery],
        options: SearchOptions,
        histogram: bool,
    ) -> None:
        """Take queries: texts, or vectors, which have no gradient stage."""
        super().__init__(index, limit)
        self.queries, self.options, self.histogram = list(queries), options, histogram
        self.encoded: list[EncodedQuery | FailedQuery] = []

    @property
    def slow(self) -> bool:
        """Whether its candidates are re-ranked exactly, or all documents scored."""
        return self.options.slow

    @property
    def size(self) -> int:
        """Number of texts of its queries: a set counts as its queries do."""
        return sum(query.text_count if isinstance(query, Query) else 1 for query in self.queries)

    @property
    def texts(self) -> list[Query]:
        """Those of its queries that need a gradient."""
        return [query for query in self.queries if isinstance(query, Query)]

    def take(self, encoded: Iterator[EncodedQuery | FailedQuery]) -> None:
        """Take the encoded texts, and put them in their places among the vectors."""
        self.encoded = [next(encoded) if isinstance(query, Query) else query for query in self.queries]


class ExplainJob(Job):
    """The explanation of one document for one query."""

    def __init__(self, index: GradientIndex, limit: float, document_id: str, query: Query, long_queries: str) -> None:
        """Take the document's id, the query, and what to do if it is too long."""
        super().__init__(index, limit)
        self.document_id, self.query, self.long_queries = document_id, query, long_queries


class JobProgress:
    """The progress of slow work: keeps its state, pauses it for batches, and ends it when nobody waits any more."""

    def __init__(self, job: Job, turnstile: Turnstile) -> None:
        """Take a job that has its turn."""
        self._job, self._turnstile = job, turnstile

    def pause(self) -> None:
        """Let a waiting batch go first.

        Raises:
            AbandonedError: Nobody waits for the job any more.
        """
        if self._job.abandoned:
            raise AbandonedError
        if self._turnstile.wanted:
            with self._job.standing_still():
                self._turnstile.give_way()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep batches from running during the block."""
        with ExitStack() as stack:
            with self._job.standing_still():
                stack.enter_context(self._turnstile.alone())
            yield

    def expect(self, name: str, seconds: float) -> None:
        """Keep what the work will take."""
        self._job.expected = Expectation(work=name, expected_s=round(seconds, 1))

    @contextmanager
    def phase(self, name: str, total: int | None, unit: str) -> Iterator[Phase]:
        """Open a phase."""
        self._job.step = Step(phase=name, done=0, total=total, unit=unit)
        self.pause()
        yield self

    def advance(self, steps: int = 1) -> None:
        """Count units of the phase; see `pause`."""
        step = self._job.step
        if step is not None:
            self._job.step = replace(step, done=step.done + steps)
        self.pause()
