"""Answers of slow work as JSON lines: the place in the queue, then progress, last the result or the error."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse

from gindex.http.answers import NDJSON
from gindex.serve.indexes import ServedIndex
from gindex.serve.jobs import Job
from gindex.serve.problems import content_of, dump, log
from gindex.serve.service import Service

LOOK_SECONDS, REPEAT_SECONDS = 0.2, 5.0
"""Seconds between looks for a change, and between lines without one, which tell the client that work goes on."""


def wants_lines(request: Request) -> bool:
    """Say whether a client accepts an answer in lines."""
    return NDJSON in request.headers.get("accept", "").lower()


def answer_lines(
    service: Service, served: ServedIndex, job: Job, request: Request, answer: Callable[[Any], dict[str, Any]]
) -> StreamingResponse:
    """Queue a job and answer with lines about it; the job ends when the client goes away.

    Args:
        service: The service.
        served: The index.
        job: The job.
        request: The request.
        answer: Turns the job's result into the content of the answer.

    Raises:
        OverloadedError: The queue is full.
        UnavailableError: The service is closing.
    """
    service.batcher.submit(job)
    headers = {"Gindex-Version": str(job.index.manifest.version), "Cache-Control": "no-store"}
    return StreamingResponse(_lines(service, served, job, request, answer), headers=headers, media_type=NDJSON)


async def _lines(
    service: Service, served: ServedIndex, job: Job, request: Request, answer: Callable[[Any], dict[str, Any]]
) -> AsyncIterator[bytes]:
    gone: asyncio.Future[None] = job.loop.create_future()
    outcome = asyncio.ensure_future(service.outcome(served, job, gone))
    told, at = b"", 0.0
    try:
        while not outcome.done():
            line, now = dump(_state(service, job)), time.monotonic()
            if line != told or now - at >= REPEAT_SECONDS:
                told, at = line, now
                yield line + b"\n"
            await asyncio.wait([outcome], timeout=LOOK_SECONDS)
        yield dump(_end(outcome, request, answer)) + b"\n"
    finally:
        gone.set_result(None)
        outcome.add_done_callback(lambda done: done.cancelled() or done.exception())  # whether or not it was told


def _state(service: Service, job: Job) -> dict[str, Any]:
    place = service.batcher.slow_queue.place(job)
    if place:
        return {"state": "waiting", "place": place}
    told = [each for each in (job.expected, job.step) if each is not None]
    return {"state": "running"} | {name: value for each in told for name, value in asdict(each).items()}


def _end(outcome: "asyncio.Future[Any]", request: Request, answer: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    try:
        return {"state": "done", "result": answer(outcome.result())}
    except Exception as error:
        log(request, error)
        return {"state": "failed", "problem": content_of(error)}
