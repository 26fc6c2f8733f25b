"""How long work reports where it is, and stands still for other work.

The library only announces phases and steps; whoever runs it (the command line, a notebook) decides what to show. A
service lets a long pass stand still between two layers, so that short ones need not wait for its end.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Phase(Protocol):
    """One phase of a long work, while it runs."""

    def advance(self, steps: int = 1) -> None:
        """Say that `steps` more units are done."""
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


_own = threading.local()


@contextmanager
def pausing(act: Callable[[], None] | None) -> Iterator[None]:
    """Call `act` wherever work of this thread may stand still or end, which it does by not returning or by raising.

    Args:
        act: What to call, between two layers of a pass and within the head of a model; None calls nothing.
    """
    before = getattr(_own, "act", None)
    _own.act = act
    try:
        yield
    finally:
        _own.act = before


def pause() -> None:
    """Say that the work of this thread may stand still here."""
    act = getattr(_own, "act", None)
    if act is not None:
        act()
