"""Progress of long work, and the points where it may pause for other work.

The library only announces phases and steps; its caller (the command line, a notebook) decides what to show. A service
pauses a long pass between two layers, so that short ones need not wait for its end.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, runtime_checkable


class Phase(Protocol):
    """One phase of a long work, while it runs."""

    def advance(self, steps: int = 1) -> None:
        """Count `steps` more units as done. It is called amid work that other threads may wait for: return soon."""
        ...


class Progress(Protocol):
    """The receiver of phases."""

    def phase(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Phase]:
        """Open a phase of `total` units (None where unknown); use it as a context manager."""
        ...


@runtime_checkable
class Forecast(Protocol):
    """A receiver of phases that is also told, before long work starts, what it will take."""

    def expect(self, name: str, seconds: float) -> None:
        """Announce work that is about to start, and about how many seconds it will take."""
        ...


LONG_SECONDS = 10.0
"""Seconds from which on work is announced."""


def announce(progress: Progress, name: str, seconds: float) -> None:
    """Tell a receiver that wants to know it what work will take, where that is long.

    Args:
        progress: The receiver.
        name: The work.
        seconds: About what it will take.
    """
    if seconds >= LONG_SECONDS and isinstance(progress, Forecast):
        progress.expect(name, seconds)


class _SilentPhase:
    def advance(self, steps: int = 1) -> None:
        """Report nothing."""


class Silent:
    """A progress that shows nothing: the library's default."""

    @contextmanager
    def phase(self, name: str, total: int | None, unit: str) -> Iterator[Phase]:
        """Open a phase that reports nothing."""
        yield _SilentPhase()


class Pauses(Protocol):
    """The means to pause work, and to keep other work from running beside it."""

    def pause(self) -> None:
        """Return when the work may go on, or raise to end it."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Keep other work from running during the block."""
        ...


_own = threading.local()


@contextmanager
def pausing(pauses: Pauses | None) -> Iterator[None]:
    """Let the work of this thread pause, between two layers of a pass and between chunks of a model's head.

    Args:
        pauses: Asked at each such point; None lets the work run on.
    """
    before = getattr(_own, "pauses", None)
    _own.pauses = pauses
    try:
        yield
    finally:
        _own.pauses = before


def pause() -> None:
    """Pause the work of this thread here, where its `pauses` ask for it."""
    pauses = getattr(_own, "pauses", None)
    if pauses is not None:
        pauses.pause()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep other work from running during the block, in which this thread changes a setting of the process."""
    pauses = getattr(_own, "pauses", None)
    with pausing(None), nullcontext() if pauses is None else pauses.alone():
        yield
