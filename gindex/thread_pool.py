"""A pool of threads for searches and eigendecompositions, in which FAISS and torch start no threads of their own.

Both bring an OpenMP of their own, whose threads spin for milliseconds after they were needed and keep the cores from
the other's: on two cores, two threads were slower than one. Beside other processes that is worse: a spinning thread
counts as busy and loses its turn, while the thread that it waits for waits too.
"""

import ctypes
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

T = TypeVar("T")
R = TypeVar("R")

_here = threading.local()


def threads() -> int:
    """Return the number of threads that a search may use: as many as torch may, or 1 within the pool."""
    return 1 if getattr(_here, "works", False) else torch.get_num_threads()


def spread(act: Callable[[T], R], pieces: Sequence[T]) -> list[R]:
    """Return the result of `act` for each piece, in their order; a single thread works on each piece."""
    count = min(threads(), len(pieces))
    if threads() == 1 or not count:
        return [act(piece) for piece in pieces]
    shares = list(_pool().map(lambda n: [act(piece) for piece in pieces[n::count]], range(count)))
    return [made for row in itertools.zip_longest(*shares) for made in row][: len(pieces)]


def side_by_side(act: Callable[[T], R], pieces: Iterable[T], most: int) -> Iterator[R]:
    """Yield the result of `act` for each piece, in their order; a single thread works on each piece.

    Args:
        act: The function.
        pieces: Taken one by one as threads become free, so they may be of unlike sizes.
        most: How many are worked on at a time, where there are as many threads.
    """
    count = max(1, min(most, threads()))
    if threads() == 1:
        yield from map(act, pieces)
        return
    made: dict[int, Future[R]] = {}
    running: set[Future[R]] = set()
    first = 0
    for number, piece in enumerate(pieces):
        made[number] = _pool().submit(act, piece)
        running.add(made[number])
        if len(running) == count:
            running = wait(running, return_when=FIRST_COMPLETED).not_done
        while first in made and made[first].done():
            yield made.pop(first).result()
            first += 1
    for number in range(first, first + len(made)):
        yield made.pop(number).result()


def singly(act: Callable[[], R]) -> R:
    """Return the result of `act`, on which a single thread works."""
    return act() if threads() == 1 else _pool().submit(act).result()


def start() -> None:
    """Start the threads, which takes longer than a search of a small index does."""
    if threads() > 1:
        # A thread that is being started is not idle, so each piece starts another one.
        list(_pool().map(lambda _piece: None, range(threads())))


@cache
def _pool() -> ThreadPoolExecutor:
    _libraries(), _limit_mkl()  # they are found in files, which a thread that starts later may not be able to open
    pool = ThreadPoolExecutor(max(2, os.cpu_count() or 1), "gindex-search", initializer=stay_alone)
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork has none of the threads
    return pool


def stay_alone() -> None:
    """Keep FAISS and torch from starting threads for this one, for good."""
    _here.works = True
    torch.get_num_threads()  # the first call sets the number of this thread; later ones leave it
    # The number belongs to the thread that sets it: those of other threads stay as they are.
    try:
        threadpool_limits(limits=1, user_api="openmp")
    except OSError:  # too many files are open to look which libraries are loaded: those that were when the pool began
        _libraries().limit(limits=1, user_api="openmp")
    limit_mkl = _limit_mkl()
    if limit_mkl is not None:
        limit_mkl(1)


@cache
def _libraries() -> ThreadpoolController:
    """The libraries with threads of their own that were loaded when this was first asked."""
    return ThreadpoolController()


@cache
def _limit_mkl() -> Callable[[int], object] | None:
    """Return the function that sets the number of MKL's threads for the calling thread, None where torch has no MKL.

    Once torch was given a number of threads, MKL follows that and not OpenMP's.
    """
    with suppress(OSError):
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        return getattr(library, "MKL_Set_Num_Threads_Local", None)
    return None
