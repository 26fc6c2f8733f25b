"""How long work reports where it is, and stands still for other work.

The library only announces phases and steps; whoever runs it (the command line, a notebook) decides what to show. A
service lets a long pass stand still between two layers, so that short ones need not wait for its end.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol


class Phase(Protocol):
    """One phase of a long work, while it runs."""

    def advance(self, steps: int = 1) -> None:
        """Say that `steps` more units are done. It comes amid work that other threads may wait for: return soon."""
        ...


class Progress(Protocol):
    """Where phases are announced."""

    def phase(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Phase]:
        """Open a phase of `total` units (None where unknown); use it as a context manager."""
        ...


class _SilentPhase:
    def advance(self, steps: int = 1) -> None:
        """Report nothing."""


class Silent:
    """Shows nothing: the library's default."""

    @contextmanager
    def phase(self, name: str, total: int | None, unit: str) -> Iterator[Phase]:
        """Open a phase that reports nothing."""
        yield _SilentPhase()


class Pauses(Protocol):
    """Where work may stand still, and where no other may run beside it."""

    def pause(self) -> None:
        """Return when the work may go on, or raise to end it."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Keep other work off for as long as the block takes."""
        ...


_own = threading.local()


@contextmanager
def pausing(pauses: Pauses | None) -> Iterator[None]:
    """Let the work of this thread stand still, between two layers of a pass and within the head of a model.

    Args:
        pauses: What is asked there; None lets it run on.
    """
    before = getattr(_own, "pauses", None)
    _own.pauses = pauses
    try:
        yield
    finally:
        _own.pauses = before


def pause() -> None:
    """Say that the work of this thread may stand still here."""
    pauses = getattr(_own, "pauses", None)
    if pauses is not None:
        pauses.pause()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Say that the work of this thread changes something of the process, with which no other work may meet."""
    pauses = getattr(_own, "pauses", None)
    with pausing(None), nullcontext() if pauses is None else pauses.alone():
        yield
