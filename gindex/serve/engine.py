"""The engine of a device: a bounded queue, and one thread that answers what waits in it in batches.

Whatever waits when the thread is free goes into one gradient pass, and searches with the same options into one search.
Exact searches and explanations have a lane and a thread of their own, which stands still for every batch.

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
from gindex.serve.answering import Answering
from gindex.serve.config import ServeConfig
from gindex.serve.jobs import Job, SearchJob
from gindex.serve.lane import Lane
from gindex.serve.metrics import Metrics
from gindex.serve.turns import Turns

WAITING_SHARE, LONGEST_WAIT = 0.1, 0.02
"""A batch may wait for more this share of the time that the one before took, and at most so many seconds."""

Result = TypeVar("Result")


class Engine:
    """Answers jobs on one device."""

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        """Prepare; `start` starts the thread."""
        self._config, self._metrics = config, metrics
        self._turns, self._answering = Turns(), Answering(config, metrics)
        self.lane = Lane(config, metrics, self._turns, self._answering)
        self._waiting: deque[SearchJob] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._depth = 0
        self._changed = threading.Condition()
        self._closing = self._shared = self._gathering = False
        self._took = 0.0
        self._thread = threading.Thread(target=self._run, name="gindex-engine", daemon=True)

    def start(self) -> None:
        """Start to answer."""
        self._thread.start()
        self.lane.start()

    def close(self, timeout: float = 5.0) -> None:
        """Answer what waits, then stop."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self.lane.close()
        for thread in (self._thread, self.lane.thread):
            if thread.is_alive():
                thread.join(timeout)

    def submit(self, job: Job) -> None:
        """Put a job into the queue, or a slow one into the slow lane.

        Raises:
            OverloadedError: The queue is full.
            UnavailableError: The service is closing.
        """
        if job.slow or not isinstance(job, SearchJob):
            self.lane.submit(job)
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
                    with self._turns.batch():
                        future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)
            if batch:
                with self._turns.batch():
                    self._shared, began = len(batch) > 1, time.monotonic()
                    self._answering.batch(batch)
                    self._took = time.monotonic() - began
                batch.clear()  # the thread that waits for the next batch keeps no version of an index alive
            elif not calls and self._ended():
                return
            del calls

    def _ended(self) -> bool:
        with self._changed:
            return self._closing and not (self._waiting or self._calls)

    def _next(self) -> tuple[list[tuple[Callable[[], Any], "Future[Any]"]], list[SearchJob]]:
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
            batch: list[SearchJob] = []
            self._calls.clear()
            while self._waiting and (not batch or size + self._waiting[0].size <= config.batch):
                job = self._waiting.popleft()
                self._depth -= job.size
                if not self._answering.drops(job):
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


def warm_query(index: GradientIndex) -> None:
    """Take one gradient, so that the first query finds everything loaded, what slow work needs included."""
    answered(index.search_encoded(index.encode([Query(prompt="the first query of a service")]), k=1))
    index.twin  # noqa: B018
