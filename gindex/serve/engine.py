"""The engine of a device: a bounded queue, and one thread that answers what waits in it in batches.

One thread runs everything that touches the model, so that no two passes meet. Whatever waits when it is free goes into
one gradient pass, and searches with the same options into one search. A batch waits for more only where the one before
was shared: a lone client is never kept waiting for others. Where batches take long, the next may wait a little longer
for them to be answered and ask again, for a larger batch costs less a query.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from itertools import groupby
from typing import Any, TypeVar

from gindex.config import LONG_QUERIES
from gindex.errors import GindexError, OverloadedError, TimeLimitError, UnavailableError
from gindex.index import GradientIndex
from gindex.search.encoded import EncodedQuery
from gindex.search.hit import FailedQuery, Outcome, Query, answered
from gindex.serve.config import ServeConfig
from gindex.serve.histogram import Histogram, histogram_of
from gindex.serve.jobs import AbandonedError, ExplainJob, Job, SearchJob, Watch
from gindex.serve.metrics import Metrics

logger = logging.getLogger("gindex.serve")

WAITING_SHARE, LONGEST_WAIT = 0.1, 0.02
"""A batch may wait for more this share of the time that the one before took, and at most so many seconds."""

Result = TypeVar("Result")
Answer = tuple[list[Outcome], list[Histogram | None] | None]


class Engine:
    """Answers jobs on one device."""

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        """Prepare; `start` starts the thread."""
        self._config, self._metrics = config, metrics
        self._waiting: deque[Job] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._depth = 0
        self._changed = threading.Condition()
        self._closing = self._shared = self._gathering = False
        self._took = 0.0
        self._thread = threading.Thread(target=self._run, name="gindex-engine", daemon=True)

    def start(self) -> None:
        """Start to answer."""
        self._thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """Answer what waits, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def submit(self, job: Job) -> None:
        """Put a job into the queue.

        Raises:
            OverloadedError: The queue is full.
            UnavailableError: The service is closing.
        """
        with self._changed:
            if self._closing:
                raise UnavailableError("expected a running service, found it closing; ask another one")
            if self._depth and self._depth + job.size > self._config.queue:
                self._metrics.dropped.labels("full").inc(job.size)
                raise OverloadedError(f"expected at most {self._config.queue} waiting queries; wait and try again")
            self._waiting.append(job)
            self._depth += job.size
            self._metrics.depth.set(self._depth)
            if not self._gathering or self._depth >= self._config.batch:
                self._changed.notify_all()  # to wake for every query would cost as much as to read it

    def call(self, work: Callable[[], Result]) -> "Future[Result]":
        """Run something on the engine's thread, between batches."""
        future: Future[Result] = Future()
        with self._changed:
            self._calls.append((work, future))
            self._changed.notify_all()
        return future

    def _run(self) -> None:
        while True:
            calls, batch = self._next()
            for work, future in calls:
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            if batch:
                self._shared, began = len(batch) > 1, time.monotonic()
                self._answer(batch)
                self._took = time.monotonic() - began
                batch.clear()  # the thread that waits for the next batch keeps no version of an index alive
            elif not calls and self._ended():
                return
            del calls

    def _ended(self) -> bool:
        with self._changed:
            return self._closing and not (self._waiting or self._calls)

    def _next(self) -> tuple[list[tuple[Callable[[], Any], "Future[Any]"]], list[Job]]:
        """Return what to do next, both empty when there is nothing left and the engine closes."""
        config = self._config
        with self._changed:
            while not (self._waiting or self._calls or self._closing):
                self._changed.wait()
            if self._shared and not self._closing:
                self._gathering = True
                self._changed.wait_for(lambda: self._depth >= config.batch or self._closing, self._window)
                self._gathering = False
            calls, size = list(self._calls), 0
            batch: list[Job] = []
            self._calls.clear()
            while self._waiting and (not batch or size + self._waiting[0].size <= config.batch):
                job = self._waiting.popleft()
                self._depth -= job.size
                if not self._dropped(job):
                    batch.append(job)
                    size += job.size
            self._metrics.depth.set(self._depth)
        if size:
            self._metrics.batch.observe(size)
        return calls, batch

    @property
    def _window(self) -> float:
        """Seconds that the next batch waits for more."""
        window = self._config.window_ms / 1000
        return window and max(window, min(WAITING_SHARE * self._took, LONGEST_WAIT))

    def _dropped(self, job: Job) -> bool:
        if job.abandoned:
            self._metrics.dropped.labels("gone").inc(job.size)
        elif job.left <= 0:
            self._metrics.dropped.labels("late").inc(job.size)
            job.loop.call_soon_threadsafe(
                job.finish, TimeLimitError("expected to be answered in time, waited too long")
            )
        else:
            return False
        return True

    def _answer(self, batch: Sequence[Job]) -> None:
        searches = [job for job in batch if isinstance(job, SearchJob)]
        by_index = sorted(searches, key=lambda job: id(job.index))
        for _, group in groupby(by_index, key=lambda job: id(job.index)):
            of_index = list(group)
            for long_queries in LONG_QUERIES:
                self._isolated(self._encode, [job for job in of_index if job.options.long_queries == long_queries])
            ready = [job for job in of_index if job.encoded]
            kinds = {(job.options, job.histogram) for job in ready}
            for kind in kinds:
                self._isolated(self._search, [job for job in ready if (job.options, job.histogram) == kind])
        for job in batch:
            if isinstance(job, ExplainJob):
                self._isolated(self._explain, [job])

    def _isolated(self, work: Callable[[list[Any]], None], jobs: list[Any]) -> None:
        """Run jobs together; where that fails, each alone, so that one cannot fail another."""
        try:
            work(jobs)
        except AbandonedError:
            self._metrics.dropped.labels("gone").inc(len(jobs))
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._isolated(work, [job])
                return
            if not isinstance(error, GindexError):
                logger.exception("a request failed")
            self._deliver(jobs, [error])

    def _encode(self, jobs: list[SearchJob]) -> None:
        texts = [query for job in jobs for query in job.texts]
        encoded: list[EncodedQuery | FailedQuery] = []
        if texts:
            for job in jobs:
                job.enter("gradient", self._config.gradient_seconds)
            encoded = jobs[0].index.encode(
                texts, long_queries=jobs[0].options.long_queries, max_tokens=self._config.max_tokens
            )
        vectors = iter(encoded)
        for job in jobs:
            job.take(vectors)

    def _search(self, jobs: list[SearchJob]) -> None:
        index, options = jobs[0].index, jobs[0].options
        for job in jobs:
            if options.exact:
                job.enter("rerank", self._config.search_seconds + self._config.exact_seconds)
            else:
                job.enter("search", self._config.search_seconds)
        queries = [query for job in jobs for query in job.encoded]
        results = index.search_encoded(queries, options, progress=Watch(jobs))
        shapes = _histograms(index, queries) if jobs[0].histogram else None
        answers: list[Answer] = []
        start = 0
        for job in jobs:
            of = slice(start, start + job.size)
            answers.append(([_timed(result, job) for result in results[of]], None if shapes is None else shapes[of]))
            start += job.size
        self._deliver(jobs, answers)

    def _explain(self, jobs: list[ExplainJob]) -> None:
        (job,) = jobs
        job.enter("explain", self._config.exact_seconds)
        query, document_id = job.query, job.document_id
        found = job.index.explain(
            document_id, query.prompt, query.completion, long_queries=job.long_queries, progress=Watch(jobs)
        )
        self._deliver(jobs, [found])

    def _deliver(self, jobs: Sequence[Job], outcomes: Sequence[Any]) -> None:
        for job in jobs:
            job.enter("answer", self._config.search_seconds)
            for stage, seconds in job.seconds.items():
                self._metrics.seconds.labels(stage).observe(seconds)
        loops = {job.loop for job in jobs}
        for loop in loops:
            done = [(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True) if job.loop is loop]
            loop.call_soon_threadsafe(_finish, done)


def _histograms(index: GradientIndex, queries: Sequence[EncodedQuery | FailedQuery]) -> list[Histogram | None]:
    """Return the spread of the scores of each query, None for those without a vector."""
    encoded = [query for query in queries if isinstance(query, EncodedQuery)]
    found = iter(histogram_of(index, encoded) if encoded else [])
    return [next(found) if isinstance(query, EncodedQuery) else None for query in queries]


def _timed(result: Outcome, job: Job) -> Outcome:
    """Count the gradient pass, which came before the search, with its time."""
    if isinstance(result, FailedQuery):
        return result
    gradient = 1000 * job.seconds.get("gradient", 0.0)
    timing = replace(result.timing_ms, gradient=gradient, total=result.timing_ms.total + gradient)
    return replace(result, timing_ms=timing)


def _finish(done: Sequence[tuple[Job, Any]]) -> None:
    for job, outcome in done:
        job.finish(outcome)


def warm_query(index: GradientIndex) -> None:
    """Take one gradient, so that the first query finds everything loaded."""
    answered(index.search_encoded(index.encode([Query(prompt="the first query of a service")]), k=1))
