"""Threads that search. A piece of work is done by one thread alone, so neither FAISS nor torch starts threads for it.

Both bring an OpenMP of their own, whose threads go on spinning for milliseconds after they were needed, and so keep the
cores from those of the other one: on two cores, two threads were slower than one.
"""

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")

_here = threading.local()


def threads() -> int:
    """Return how many threads a search may use: as many as torch may."""
    return 1 if getattr(_here, "works", False) else torch.get_num_threads()


def spread(act: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """Return what `act` makes of each piece, in their order; each is done by a single thread."""
    count = min(threads(), len(pieces))
    if threads() == 1 or not count:
        return [act(piece) for piece in pieces]
    shares = list(_pool().map(lambda n: [act(piece) for piece in pieces[n::count]], range(count)))
    return [made for row in itertools.zip_longest(*shares) for made in row][: len(pieces)]


def start() -> None:
    """Start the threads, which takes longer than a search of a small index does."""
    if threads() > 1:
        # A thread that is being started is not idle, so each piece starts another one.
        list(_pool().map(lambda _piece: None, range(threads())))


@cache
def _pool() -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1), "gindex-search", initializer=_stay_alone)
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork has none of the threads
    return pool


def _stay_alone() -> None:
    _here.works = True
    torch.get_num_threads()  # sets the number of this thread when it is first asked for it, so not afterwards
    # The number belongs to the thread that sets it: those of other threads stay as they are.
    threadpool_limits(limits=1, user_api="openmp")
