"""Progress with time left, on standard error: bars on a terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import click

from gindex.progress import Phase

SECONDS_BETWEEN_LINES = 10.0

LEAST_SECONDS = 0.1
"""Seconds of work from which the time that is left is reckoned."""


class _Forecast:
    """Says on standard error what long work will take, before it starts."""

    def expect(self, name: str, seconds: float) -> None:
        """Say what work will take, in two digits."""
        click.echo(f"{name}: about {_time(_two_digits(seconds))}", err=True)


class Bars(_Forecast):
    """One bar a phase: done, elapsed, time left."""

    @contextmanager
    def phase(self, name: str, total: int | None, unit: str) -> Iterator[Phase]:
        """Show a bar while the phase runs, and what it took when it is done."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        bars = Progress(
            TextColumn("{task.description:<17}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        with bars:
            task = bars.add_task(name, total=total)
            yield _Bar(lambda steps: bars.advance(task, steps))
            if total is None:
                bars.update(task, total=bars.tasks[0].completed)


class Lines(_Forecast):
    """A line as soon as a phase is known to be long, every few seconds, and when it ends: for logs."""

    @contextmanager
    def phase(self, name: str, total: int | None, unit: str) -> Iterator[Phase]:
        """Print lines while the phase runs."""
        start = shown = time.monotonic()
        done = 0

        def advance(steps: int) -> None:
            nonlocal done, shown
            done += steps
            now = time.monotonic()
            left = (now - start) / done * (total - done) if total and done else 0.0
            is_news = shown == start and left >= SECONDS_BETWEEN_LINES and now - start >= LEAST_SECONDS
            if done != total and (is_news or now - shown >= SECONDS_BETWEEN_LINES):
                shown = now
                eta = f", ETA {_time(left)}" if total and done else ""
                click.echo(f"{name}: {done:,}{f'/{total:,}' if total else ''} {unit}{eta}", err=True)

        yield _Bar(advance)
        click.echo(f"{name}: {done:,} {unit} in {_time(time.monotonic() - start)}", err=True)


class _Bar:
    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance = advance

    def advance(self, steps: int = 1) -> None:
        self._advance(steps)


def terminal_progress() -> Bars | Lines:
    """Choose bars for a terminal and lines for anything else."""
    return Bars() if sys.stderr.isatty() else Lines()


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _two_digits(seconds: float) -> float:
    return float(f"{seconds:.1e}")
