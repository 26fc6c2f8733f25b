"""The work of jobs, in batches or slow ones alone: gradients, searches, explanations, and the answers' delivery."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from gindex.errors import GindexError
from gindex.index import GradientIndex
from gindex.progress import pausing
from gindex.queries.query import FailedQuery
from gindex.search.query_vectors import EncodedQuery
from gindex.search.result import Outcome
from gindex.search_options import LONG_QUERIES
from gindex.serve.config import ServeConfig
from gindex.serve.histogram import Histogram, histogram_of
from gindex.serve.jobs import AbandonedError, ExplainJob, Job, JobProgress, SearchJob
from gindex.serve.metrics import Metrics

logger = logging.getLogger("gindex.serve")

Answer = tuple[list[Outcome], list[Histogram | None] | None]


class JobRunner:
    """Runs jobs and delivers their results; the thread that calls it has its turn on the device."""

    def __init__(self, config: ServeConfig, metrics: Metrics) -> None:
        """Take the time limits of the stages, and the metrics that count them."""
        self._config, self._metrics = config, metrics

    def batch(self, searches: Sequence[SearchJob]) -> None:
        """Answer searches: one gradient pass for each index, one search for all queries with the same options."""
        by_index = sorted(searches, key=lambda job: id(job.index))
        for _, group in groupby(by_index, key=lambda job: id(job.index)):
            of_index = list(group)
            for long_queries in LONG_QUERIES:
                self._isolated(self._encode, [job for job in of_index if job.options.long_queries == long_queries])
            ready = [job for job in of_index if job.encoded]
            kinds = {(job.options, job.histogram) for job in ready}
            for kind in kinds:
                self._isolated(self._search, [job for job in ready if (job.options, job.histogram) == kind])

    def slow(self, job: Job, progress: JobProgress) -> None:
        """Answer an exact search or an explanation, which pauses or ends where its progress says so."""
        job.progress = progress
        try:
            with pausing(progress):
                if isinstance(job, SearchJob):
                    self.batch([job])
                else:
                    self._isolated(self._explain, [job])
        finally:
            job.progress = None  # each holds the other, and the job a version of the index

    def drops(self, job: Job) -> bool:
        """Say whether a waiting job is dropped: its client has gone, or its time is over."""
        if job.abandoned:
            self._metrics.dropped.labels("gone").inc(job.size)
        elif job.left <= 0:
            self._metrics.dropped.labels("late").inc(job.size)
            job.loop.call_soon_threadsafe(job.finish, job.too_late())
        else:
            return False
        return True

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
            encoded = _index_of(jobs[0]).encode(
                texts, long_queries=jobs[0].options.long_queries, max_tokens=self._config.max_tokens
            )
        vectors = iter(encoded)
        for job in jobs:
            job.take(vectors)

    def _search(self, jobs: list[SearchJob]) -> None:
        index, options = _index_of(jobs[0]), jobs[0].options
        for job in jobs:
            if job.slow:
                job.enter("rerank", self._config.search_seconds + self._config.exact_seconds)
            else:
                job.enter("search", self._config.search_seconds)
        queries = [query for job in jobs for query in job.encoded]
        results = index.search_encoded(queries, options, progress=jobs[0].progress)
        shapes = _histograms(index, queries) if jobs[0].histogram else None
        answers: list[Answer] = []
        start = 0
        for job in jobs:
            of = slice(start, start + len(job.queries))
            answers.append(([_timed(result, job) for result in results[of]], None if shapes is None else shapes[of]))
            start += len(job.queries)
        self._deliver(jobs, answers)

    def _explain(self, jobs: list[ExplainJob]) -> None:
        (job,) = jobs
        job.enter("explain", self._config.exact_seconds)
        explanation = _index_of(job).explain(
            job.document_id, job.query, long_queries=job.long_queries, progress=job.progress
        )
        self._deliver(jobs, [explanation])

    def _deliver(self, jobs: Sequence[Job], outcomes: Sequence[Any]) -> None:
        for job in jobs:
            job.enter("answer", self._config.search_seconds)
            for stage, seconds in job.seconds.items():
                self._metrics.seconds.labels(stage).observe(seconds)
        loops = {job.loop for job in jobs}
        for loop in loops:
            done = [(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True) if job.loop is loop]
            loop.call_soon_threadsafe(_finish, done)


def _index_of(job: Job) -> GradientIndex:
    """Return the index that answers a job: for slow work that needs the model, the one with modules of its own."""
    texts = job.texts if isinstance(job, SearchJob) else [job]
    return job.index.twin if job.slow and texts else job.index


def _histograms(index: GradientIndex, queries: Sequence[EncodedQuery | FailedQuery]) -> list[Histogram | None]:
    """Return the histogram of each query's scores, None for queries without a vector."""
    encoded = [query for query in queries if isinstance(query, EncodedQuery)]
    histograms = iter(histogram_of(index, encoded) if encoded else [])
    return [next(histograms) if isinstance(query, EncodedQuery) else None for query in queries]


def _timed(result: Outcome, job: Job) -> Outcome:
    """Add the time of the gradient pass, which came before the search, to a result."""
    if isinstance(result, FailedQuery):
        return result
    gradient = 1000 * job.seconds.get("gradient", 0.0)
    timing = replace(result.timing_ms, gradient=gradient, total=result.timing_ms.total + gradient)
    return replace(result, timing_ms=timing)


def _finish(done: Sequence[tuple[Job, Any]]) -> None:
    for job, outcome in done:
        job.finish(outcome)
