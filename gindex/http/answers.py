"""The reading of a service's answers: results, explanations, errors, and lines about the progress of slow work.

Neither torch nor FAISS is loaded.
"""

import json
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import ValidationError, convert

from gindex import errors
from gindex.errors import GindexError, ServiceError
from gindex.exact.explanation import Explanation
from gindex.progress import Phase, Progress, announce
from gindex.queries.query import FailedQuery, Query
from gindex.search.result import Outcome, SearchResult

Answer = TypeVar("Answer")

NDJSON = "application/x-ndjson"
"""Media type of an answer in lines."""


class LineReader:
    """Reads an answer in lines: passes its progress on, and keeps the result in the last line."""

    def __init__(self, progress: Progress, where: str) -> None:
        """Take the progress to pass on to, and the name of the service in errors."""
        self._progress, self._where = progress, where
        self._stack = ExitStack()
        self._phase: Phase | None = None
        self._shown, self._expected, self._first_place = "", "", 0
        self._done, self._total = 0, 0
        self._last: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def take(self, text: str) -> None:
        """Read a line."""
        if not text.strip():
            return
        try:
            self._last = json.loads(text)
        except ValueError as error:
            raise ServiceError(field=self._where, expected="lines of JSON", found="others") from error
        state = self._last.get("state")
        if state == "waiting":
            place = int(self._last["place"])
            self._first_place = max(place, self._first_place)
            self._show("queue", self._first_place - place, self._first_place, "places")
        elif state == "running" and self._last.get("phase"):
            self._expect(self._last.get("work"), self._last.get("expected_s"))
            self._show(self._last["phase"], self._last["done"], self._last["total"], self._last["unit"])
        elif state in ("running", "done"):
            self._complete()

    @property
    def answer(self) -> Any:
        """The answer.

        Raises:
            GindexError: The service answered with an error, or the lines ended without an answer.
        """
        if self._last.get("state") == "done":
            return self._last["result"]
        problem = self._last.get("problem")
        if problem is None:
            raise ServiceError(
                field=self._where, expected="an answer", found="that the lines end without one", remedy="try again"
            )
        raise error_of(problem, self._where, "an answer")

    def _complete(self) -> None:
        """End the phase that is shown, as done: its last steps may not have been sent."""
        if self._phase is not None and self._done < self._total:
            self._phase.advance(self._total - self._done)
        self._phase = None
        self._stack.close()

    def _expect(self, work: str | None, seconds: float | None) -> None:
        if work is not None and seconds is not None and work != self._expected:
            self._complete()
            announce(self._progress, work, seconds)
            self._expected = work

    def _show(self, name: str, done: int, total: int | None, unit: str) -> None:
        if self._phase is None or name != self._shown or done < self._done:
            self._complete()
            self._phase = self._stack.enter_context(self._progress.phase(name, total, unit))
            self._shown, self._done, self._total = name, 0, total or 0
        if done > self._done:
            self._phase.advance(done - self._done)
        self._done = done


def result_of(record: dict[str, Any], version: int, where: str) -> SearchResult:
    """Result in a record that `result_record` made.

    Raises:
        ServiceError: The record is none.
    """
    query = record["query"]
    more = {"query": query, "tokens": query.get("tokens"), "version": version}
    return _as(SearchResult, record | more, where)


def outcome_of(record: dict[str, Any], version: int, where: str) -> Outcome:
    """Result of one of many queries, or its failure."""
    error = record.get("error")
    if error is None:
        return result_of(record, version, where)
    return FailedQuery(query=_as(Query, record["query"], where), error=error_of(error, where, "a result"))


def explanation_of(record: dict[str, Any], where: str) -> Explanation:
    """Explanation in a record that `explanation_record` made.

    Raises:
        ServiceError: The record is none.
    """
    return _as(Explanation, record, where)


def _as(kind: type[Answer], record: dict[str, Any], where: str) -> Answer:
    """Dataclass that a record was made of; what a newer service tells beside it is passed over."""
    try:
        return convert(record, kind)
    except ValidationError as error:
        raise ServiceError(
            field=where,
            expected=f"a {kind.__name__} that this gindex can read",
            found=f"another ({error})",
            remedy="install the service's version of gindex",
        ) from error


def error_of(content: Any, where: str, expected: str) -> GindexError:
    """Error in an answer: of the class that the service raised, where it is one of gindex's."""
    problem = content if isinstance(content, dict) else {}
    kind = getattr(errors, str(problem.get("type", "")).rpartition(":")[2], None)
    if not (isinstance(kind, type) and issubclass(kind, GindexError)):
        kind = ServiceError
    parts = {name: str(problem[name]) for name in errors.PARTS if problem.get(name)}
    field = parts.pop("field", "")
    message = "" if parts else str(problem.get("detail", f"expected {expected}")).removeprefix(f"{field}: ")
    told: GindexError = kind(message, **parts | {"field": f"{where}: {field}" if field else where})
    return told
