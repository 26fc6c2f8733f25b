"""Several threads in one process: locks that a fork leaves free, and values that are made once.

A forked process has one thread, that which forked. Whatever the others held would stay held for ever in it.
"""

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload
from weakref import WeakSet

T = TypeVar("T")

_locks: "WeakSet[Lock]" = WeakSet()


class Lock:
    """A lock that its holder may take again, and that a forked process finds free; a context manager."""

    def __init__(self) -> None:
        """Make it free."""
        self.free()
        _locks.add(self)

    def free(self) -> None:
        """Forget who holds it: for a forked process, where no other thread is left."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


class once(Generic[T]):  # noqa: N801  used like `property`
    """An attribute that is computed when it is first read, by one thread, while others that read it wait.

    `functools.cached_property` lets each thread that comes in the meantime compute it again, from Python 3.12 on, and
    before that has them wait for each other's instances. The instance has its `Lock` as `loading`, and may be given the
    value by an assignment before it is read.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        """Take what computes it."""
        self._make, self._name, self.__doc__ = make, make.__name__, make.__doc__

    def is_made(self, instance: object) -> bool:
        """Whether an instance has the value."""
        return self._name in vars(instance)

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        kept = vars(instance)  # found there before this is called, from the second time on
        with instance.loading:
            if self._name not in kept:
                kept[self._name] = self._make(instance)
            return kept[self._name]


def _free_all() -> None:
    for lock in list(_locks):
        lock.free()


os.register_at_fork(after_in_child=_free_all)
