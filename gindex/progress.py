"""How long work reports where it is.

The library only announces phases and steps; whoever runs it (the command line, a notebook) decides what to show.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
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
