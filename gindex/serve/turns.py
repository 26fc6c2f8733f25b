"""Whose turn it is on a device: batches of searches, or slow work, which stands still for them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE = 0.25
"""Where batches come without end, slow work has this share of a batch's time after each."""


class Turns:
    """A turnstile for two threads: one with batches, one with slow work. Both waiting, they go in turn."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Let nobody in yet."""
        self._now = now
        self._changed = threading.Condition()
        self._busy = self._slow_was_last = self._batch_waits = self._slow_waits = False
        self._began = self._least = 0.0

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Wait for the turn of a batch, and have it."""
        with self._changed:
            self._batch_waits = True
            self._changed.wait_for(lambda: not self._busy and (self._slow_was_last or not self._slow_waits))
            self._batch_waits, self._busy = False, True
        began = self._now()
        try:
            yield
        finally:
            self._leave(slow=False, least=SHARE * (self._now() - began))

    @contextmanager
    def slow(self) -> Iterator[None]:
        """Wait for the turn of slow work, and have it until the end but for `give_way`."""
        self._take_slow()
        try:
            yield
        finally:
            self._leave(slow=True, least=self._least)

    @property
    def wanted(self) -> bool:
        """Whether slow work that runs is to give way now."""
        return self._batch_waits and self._now() - self._began >= self._least

    def give_way(self) -> None:
        """Let the batch that waits have its turn; return when slow work has it again."""
        self._leave(slow=True, least=self._least)
        self._take_slow()

    def _take_slow(self) -> None:
        with self._changed:
            self._slow_waits = True
            self._changed.wait_for(lambda: not self._busy and not (self._slow_was_last and self._batch_waits))
            self._slow_waits, self._busy = False, True
            self._began = self._now()

    def _leave(self, *, slow: bool, least: float) -> None:
        with self._changed:
            self._busy, self._slow_was_last, self._least = False, slow, least
            self._changed.notify_all()
