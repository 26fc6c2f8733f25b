"""The turnstile between batches of searches and slow work on one device: slow work pauses while a batch runs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SLOW_SHARE = 0.25
"""Share of a batch's time that slow work has after it, where batches come without end."""


class Turnstile:
    """A turnstile for two threads: one with batches, one with slow work.

    A batch begins at once, beside the present step of slow work, which pauses before its next one. Waiting for that
    step would take several times as long as a search of ready vectors.
    """

    def __init__(self) -> None:
        """Let both threads in."""
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
        """Run slow work, which has to look at `wanted` now and then."""
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
        """Run slow work that must not run beside a batch, once none runs."""
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
        """Whether slow work is to pause now."""
        return self._batch

    def give_way(self) -> None:
        """Return when no batch runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._batch)
