"""The batcher of a device: a bounded queue, and one thread that answers its jobs in batches.

All jobs that wait when the thread is free share one gradient pass, and those with the same options one search. Exact
searches and explanations have a queue and a thread of their own, which pauses for every batch.

A batch waits for more only where the one before was shared: a lone client is never kept waiting for others. Where
batches take long, the next may wait a little longer for them to be answered and ask again, for a larger batch costs
less a query.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from gindex.errors import OverloadedError, UnavailableError
from gindex.index import GradientIndex
from gindex.queries.query import Query
from gindex.search.result import answered
from gindex.serve.config import ServeConfig
from gindex.serve.job_runner import JobRunner
from gindex.serve.jobs import Job, SearchJob
from gindex.serve.metrics import Metrics
from gindex.serve.slow_queue import SlowQueue
from gindex.serve.turnstile import Turnstile

WAITING_SHARE, LONGEST_WAIT = 0.1, 0.02
"""A batch may wait for more jobs for this share of the time that the one before took, and at most so many seconds."""

Result = TypeVar("Result")


class Batcher:
    """Collects jobs for one device into batches and runs them."""

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        """Prepare; `start` starts the thread."""
        self._config, self._metrics = config, metrics
        self._turnstile, self._runner = Turnstile(), JobRunner(config, metrics)
        self.slow_queue = SlowQueue(config, metrics, self._turnstile, self._runner)
        self._waiting: deque[SearchJob] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._depth = 0
        self._changed = threading.Condition()
        self._closing = self._shared = self._gathering = False
        self._took = 0.0
        self._thread = threading.Thread(target=self._run, name="gindex-batcher", daemon=True)

    def start(self) -> None:
        """Start to answer."""
        self._thread.start()
        self.slow_queue.start()

    def close(self, timeout: float = 5.0) -> None:
        """Answer what waits, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self.slow_queue.close()
        for thread in (self._thread, self.slow_queue.thread):
            if thread.is_alive():
                thread.join(timeout)

    def submit(self, job: Job) -> None:
        """Put a job into the queue, or a slow one into the slow queue.

        Raises:
            OverloadedError: The queue is full.
            UnavailableError: The service is closing.
        """
        if job.slow or not isinstance(job, SearchJob):
            self.slow_queue.submit(job)
            return
        with self._changed:
            if self._closing:
                raise UnavailableError(expected="a running service", found="it closing", remedy="ask another one")
            if self._depth and self._depth + job.size > self._config.queue:
                self._metrics.dropped.labels("full").inc(job.size)
                raise OverloadedError(
                    expected=f"at most {self._config.queue} waiting queries", remedy="wait and try again"
                )
            self._waiting.append(job)
            self._depth += job.size
            self._metrics.depth.set(self._depth)
            if not self._gathering or self._depth >= self._config.batch:
                self._changed.notify_all()  # to wake for every query would cost as much as to read it

    def call(self, work: Callable[[], Result]) -> "Future[Result]":
        """Run a function on the batcher's thread, between batches."""
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
                    with self._turnstile.batch():
                        future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            if batch:
                with self._turnstile.batch():
                    self._shared, began = len(batch) > 1, time.monotonic()
                    self._runner.batch(batch)
                    self._took = time.monotonic() - began
                batch.clear()  # the thread that waits for the next batch keeps no version of an index alive
            elif not calls and self._ended():
                return
            del calls

    def _ended(self) -> bool:
        with self._changed:
            return self._closing and not (self._waiting or self._calls)

    def _next(self) -> tuple[list[tuple[Callable[[], Any], "Future[Any]"]], list[SearchJob]]:
        """Return the next calls and the next batch; both are empty when the batcher closes and nothing is left."""
        config = self._config
        with self._changed:
            while not (self._waiting or self._calls or self._closing):
                self._changed.wait()
            if self._shared and not self._closing:
                self._gathering = True
                self._changed.wait_for(lambda: self._depth >= config.batch or self._closing, self._window)
                self._gathering = False
            calls, size = list(self._calls), 0
            batch: list[SearchJob] = []
            self._calls.clear()
            while self._waiting and (not batch or size + self._waiting[0].size <= config.batch):
                job = self._waiting.popleft()
                self._depth -= job.size
                if not self._runner.drops(job):
                    batch.append(job)
                    size += job.size
            self._metrics.depth.set(self._depth)
        if size:
            self._metrics.batch.observe(size)
        return calls, batch

    @property
    def _window(self) -> float:
        """Seconds that the next batch waits for more jobs."""
        window = self._config.window_ms / 1000
        return window and max(window, min(WAITING_SHARE * self._took, LONGEST_WAIT))


def warm_query(index: GradientIndex) -> None:
    """Take one gradient, so that the first query finds everything loaded, also for slow work."""
    queries = [Query(prompt="the first query of a service")] if index.model.tracked.task.reads_tokens else []
    answered(index.search_encoded(index.encode(queries), k=1))
    index.twin  # noqa: B018
