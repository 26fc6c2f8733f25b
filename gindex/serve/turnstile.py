"""Batches of searches and slow work on one device: slow work stands still while a batch runs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SLOW_SHARE = 0.25
"""Where batches come without end, slow work has this share of a batch's time after each."""


class Turnstile:
    """A turnstile for two threads: one with batches, one with slow work.

    A batch begins at once, beside the step that slow work is at; slow work stops before the next one. To wait for that
    step would take a search of ready vectors several times its own time.
    """

    def __init__(self) -> None:
        """Let both in."""
        self._changed = threading.Condition()
        self._batch = self._slow = self._alone = False
        self._free_at = 0.0

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Run a batch, once slow work has had its share since the last one."""
        with self._changed:
            self._changed.wait_for(lambda: not self._slow, max(0.0, self._free_at - time.monotonic()))
            self._changed.wait_for(lambda: not self._alone)
            self._batch = True
        began = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                now = time.monotonic()
                self._batch, self._free_at = False, now + SLOW_SHARE * (now - began)
                self._changed.notify_all()

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Run slow work, which looks at `wanted` now and then."""
        with self._changed:
            self._slow = True  # from now on batches leave room between them
            self._changed.wait_for(lambda: not self._batch)
        try:
            yield
        finally:
            with self._changed:
                self._slow = False
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run slow work that no batch may meet, once none runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._batch)
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()

    @property
    def wanted(self) -> bool:
        """Whether slow work is to stand still now."""
        return self._batch

    def give_way(self) -> None:
        """Return when no batch runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._batch)
