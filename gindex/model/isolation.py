"""Isolation of passes: one at a time over a model, with torch as it is in a fresh process.

A pass puts hooks on the layers of a model that all threads share. So passes over one model take turns, and a hook acts
in the pass alone that has put it there. A caller may also have set modes of torch, for a thread or for the process,
that would change a pass or the numbers computed from it.
"""

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import wraps
from inspect import isfunction
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from gindex.thread_pool import stay_alone
from gindex.thread_safety import Lock

T = TypeVar("T")

_AUTOCAST = ("cpu", "cuda", "xpu", "mps")

_present: ContextVar[object] = ContextVar("the pass that this thread is in", default=None)


class _Turns:
    """The turns of passes over one model: a lock, and whether the model was loaded for an index."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.ours = False


class _Forks(threading.local):
    """Whether this thread was forked from a process that may have used OpenMP.

    Work in several threads would then wait for OpenMP's threads, which a fork does not have: this thread works alone.
    """

    forked = False

    def settle(self) -> None:
        """Keep this thread to itself from its first work after a fork on."""
        global _used
        if self.forked:
            stay_alone()
            self.forked = False
        _used = True

    def fork(self) -> None:
        self.forked = _used


_used = False
_forks = _Forks()
os.register_at_fork(after_in_child=_forks.fork)

_turns: WeakKeyDictionary[nn.Module, _Turns] = WeakKeyDictionary()
_making, _loads = Lock(), Lock()


class _Products:
    """The rounding of float32 products, which is a setting of the process.

    While any work on an index runs, nothing is rounded. Work whose result does not suffer may have its products rounded
    for a moment, where no other thread works on an index.
    """

    def __init__(self) -> None:
        self._lock, self._exact, self._callers = Lock(), 0, "highest"
        self._threads: Counter[int] = Counter()
        self._before = ""

    @contextmanager
    def present(self) -> Iterator[None]:
        """Count this thread among those that work on an index."""
        thread = threading.get_ident()
        with self._lock:
            self._threads[thread] += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads[thread] -= 1
                self._threads += Counter()  # drops those that are zero

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Round nothing until all blocks that ask for that have ended."""
        with self._lock:
            if not self._exact:
                self._callers = torch.get_float32_matmul_precision()
                self._set("highest")
            self._exact += 1
        try:
            yield
        finally:
            with self._lock:
                self._exact -= 1
                if not self._exact:
                    self._set(self._callers)

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """Round factors to bfloat16, unless other threads work here."""
        with self._lock:  # threads that come meanwhile wait
            if len(self._threads) > 1:
                yield
                return
            self._before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("medium")
            try:
                yield
            finally:
                self._end_rounding()

    def fork(self) -> None:
        """Forget the other threads."""
        self._end_rounding()
        thread = threading.get_ident()
        self._threads = Counter({thread: self._threads[thread]} if self._threads[thread] else {})
        if self._exact and not self._threads:
            self._exact = 0
            self._set(self._callers)

    def _end_rounding(self) -> None:
        if self._before:
            torch.set_float32_matmul_precision(self._before)
            self._before = ""

    def _set(self, precision: str) -> None:
        if self._callers != "highest":
            torch.set_float32_matmul_precision(precision)


_products = _Products()
os.register_at_fork(after_in_child=_products.fork)


def rounded_products() -> AbstractContextManager[None]:
    """Let products of float32 round their factors to bfloat16, where no other thread's would be rounded too."""
    return _products.rounded()


@contextmanager
def neutral() -> Iterator[None]:
    """Leave the caller's modes of this thread: inference mode, gradients switched off, autocast."""
    _forks.settle()
    with ExitStack() as stack:
        stack.enter_context(_products.present())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in _AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextmanager
def plain() -> Iterator[None]:
    """Leave the modes that `neutral` leaves, and the caller's default device and rounding of products.

    For work on an index, whose tensors are made on the CPU.
    """
    with ExitStack() as stack:
        stack.enter_context(neutral())
        stack.enter_context(_products.exact())
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        yield


def throughout(state: Callable[[], AbstractContextManager[None]]) -> Callable[[type[T]], type[T]]:
    """Return a decorator that runs all public methods of a class in a state: `neutral` or `plain`."""

    def decorate(kind: type[T]) -> type[T]:
        for name, member in list(vars(kind).items()):
            plain_function = member.__func__ if isinstance(member, classmethod) else member
            if name.startswith("_") or not isfunction(plain_function):
                continue
            wrapped = _within(state, plain_function)
            setattr(kind, name, classmethod(wrapped) if isinstance(member, classmethod) else wrapped)
        return kind

    return decorate


def _within(state: Callable[[], AbstractContextManager[None]], act: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(act)
    def run(*args: Any, **kwargs: Any) -> Any:
        with state():
            return act(*args, **kwargs)

    return run


class _NumberFormat:
    """The default number format of the process: float32 while anything runs that needs that, else the caller's."""

    def __init__(self) -> None:
        self._lock, self._users, self._callers = Lock(), 0, torch.float32

    @contextmanager
    def float32(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._callers = torch.get_default_dtype()
                self._set(torch.float32)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._set(self._callers)

    def fork(self) -> None:
        """Forget the users, which were other threads."""
        if self._users:
            self._users = 0
            self._set(self._callers)

    def _set(self, dtype: torch.dtype) -> None:
        if self._callers != torch.float32:
            torch.set_default_dtype(dtype)


_number_format = _NumberFormat()
os.register_at_fork(after_in_child=_number_format.fork)


@contextmanager
def defaults() -> Iterator[None]:
    """Run a model of an index as in a fresh process, in the default number format too."""
    with plain(), _number_format.float32():
        yield


@contextmanager
def loading() -> Iterator[None]:
    """Load models by transformers one at a time: it changes the default number format and more of the process."""
    with _loads, defaults():
        yield


def share_turns(model: nn.Module, *, ours: bool = False) -> None:
    """Give all modules of a model one lock; passes over modules that are not known here lock each module by itself.

    Args:
        model: The model, which may be part of one that is known, or hold one.
        ours: Whether it was loaded for an index: it then runs with torch's defaults, and a caller's with the caller's.
    """
    with _making:
        modules = list(model.modules())
        turns = next((_turns[module] for module in modules if module in _turns), None) or _Turns()
        turns.ours |= ours
        for module in modules:
            _turns.setdefault(module, turns)


@contextmanager
def alone(module: nn.Module) -> Iterator[None]:
    """Run a pass over the model of a module while no other thread does, in a neutral state.

    A thread that is in such a pass already may run another inside it: the hooks of neither see the other.
    """
    with _making:
        turns = _turns.get(module) or _turns.setdefault(module, _Turns())
    with turns.lock, defaults() if turns.ours else neutral(), inside(object()):
        yield


def current() -> object:
    """Return the pass that this thread is in."""
    return _present.get()


@contextmanager
def inside(present: object) -> Iterator[None]:
    """Make this thread part of a pass, to run a block of it again."""
    token = _present.set(present)
    try:
        yield
    finally:
        _present.reset(token)


def own(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that acts in the present pass alone: not where another thread runs the same layer."""
    present = current()

    def act(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs) if current() is present else None

    return act
