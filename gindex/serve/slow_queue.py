"""The queue of slow work: exact searches, scores of all documents and explanations, which pause for every batch."""

import threading
from collections import deque

from gindex.errors import OverloadedError, UnavailableError
from gindex.serve.config import ServeConfig
from gindex.serve.job_runner import JobRunner
from gindex.serve.jobs import Job, JobProgress
from gindex.serve.metrics import Metrics
from gindex.serve.turnstile import Turnstile


class SlowQueue:
    """A bounded queue of slow jobs, and the thread that answers them."""

    def __init__(self, config: ServeConfig, metrics: Metrics, turnstile: Turnstile, runner: JobRunner) -> None:
        """Prepare; `start` starts the thread."""
        self._config, self._metrics, self._turnstile, self._runner = config, metrics, turnstile, runner
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.thread = threading.Thread(target=self._run, name="gindex-slow", daemon=True)

    def start(self) -> None:
        """Start to answer."""
        self.thread.start()

    def close(self) -> None:
        """End once what waits is answered."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def submit(self, job: Job) -> None:
        """Put a job at the end of the queue.

        Raises:
            OverloadedError: The queue is full.
            UnavailableError: The service is closing.
        """
        most = self._config.slow_queue
        with self._changed:
            if self._closing:
                raise UnavailableError(expected="a running service", found="it closing", remedy="ask another one")
            self._forget_abandoned()
            if len(self._waiting) >= most:
                self._metrics.dropped.labels("full").inc(job.size)
                raise OverloadedError(
                    expected=f"at most {most} slow searches and explanations that wait", remedy="wait and try again"
                )
            job.stage, job.limit = "slow_queue", self._config.slow_queue_seconds
            self._waiting.append(job)
            self._metrics.slow_depth.set(len(self._waiting))
            self._changed.notify_all()

    def place(self, job: Job) -> int:
        """Return a job's place in the queue, 1 for the next; 0 where it is no longer in it."""
        with self._changed:
            waiting = [each for each in self._waiting if not each.abandoned]
        return waiting.index(job) + 1 if job in waiting else 0

    def _run(self) -> None:
        while (job := self._next()) is not None:
            if self._runner.drops(job):
                continue
            self._metrics.batch.observe(job.size)
            with self._turnstile.slow():
                self._runner.slow(job, JobProgress(job, self._turnstile))
            del job  # the thread that waits for the next one keeps no version of an index alive

    def _next(self) -> Job | None:
        """Return the next job; None when there is nothing left and the service closes."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            job = self._waiting.popleft() if self._waiting else None
            self._metrics.slow_depth.set(len(self._waiting))
            return job

    def _forget_abandoned(self) -> None:
        """Take jobs out of the queue for which nobody waits any more."""
        gone = [job for job in self._waiting if job.abandoned]
        for job in gone:
            self._waiting.remove(job)
            self._metrics.dropped.labels("gone").inc(job.size)
