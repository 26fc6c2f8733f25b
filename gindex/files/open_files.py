"""Open files and mappings: how many a process may have, which of them stay, and running out said as what it is."""

import errno
import os
import resource
from collections import OrderedDict
from pathlib import Path
from typing import Protocol
from weakref import ref

from gindex.errors import ResourceError
from gindex.thread_safety import Lock

MOST_WANTED = 1 << 16
"""Open files that a process asks for; the kernel allows about as many mappings (`vm.max_map_count`, 65,530)."""

SHARE = 8
"""A pool holds one in so many of the files that a process may open: there are two, and others open files too."""

MOST_HELD = 4096
"""Most files that a pool holds."""

_SHORTAGES = {
    errno.EMFILE: "raise the limit of open files of this process (ulimit -n)",
    errno.ENFILE: "close other programs, or raise the system's limit of open files (sysctl fs.file-max)",
    errno.ENOMEM: "free memory, or raise the limit of mappings of a process (sysctl vm.max_map_count)",
}


def most_open() -> int:
    """How many files this process may have open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_WANTED if soft == resource.RLIM_INFINITY else soft


def raise_most_open() -> None:
    """Raise the number of files that this process may have open towards what the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_WANTED if hard == resource.RLIM_INFINITY else min(hard, MOST_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check_shortage(error: BaseException, path: Path) -> None:
    """Say so where an error about a file comes of too few open files, mappings or too little memory, not of the file.

    Args:
        error: The error; where it has no number, as those of SQLite and FAISS, the file is opened to see.
        path: The file.

    Raises:
        ResourceError: It does; names the limit.
    """
    number = error.errno if isinstance(error, OSError) and error.errno is not None else _number_of_opening(path)
    if number not in _SHORTAGES:
        return
    limits = f"limit {most_open():,} open files" if number == errno.EMFILE else "the system's limit"
    raise ResourceError(
        field=path, expected="to open it", found=f"{os.strerror(number)} ({limits})", remedy=_SHORTAGES[number]
    ) from error


def _number_of_opening(path: Path) -> int | None:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return error.errno
    return None


class Owner(Protocol):
    """What holds files open, by number, until it is told to let one go."""

    def release(self, number: int) -> None:
        """Let a file go; it is opened again when it is next needed. Its users keep it until they are done."""
        ...


class FilePool:
    """The files of one kind that this process holds open, of all owners together: those that were used last."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._lock = Lock()
        self._used: OrderedDict[tuple[int, int], ref[Owner]] = OrderedDict()

    @property
    def most(self) -> int:
        """How many it holds at most."""
        return max(2, min(MOST_HELD, most_open() // SHARE))

    def use(self, owner: Owner, number: int = 0) -> None:
        """Note that a file is used, and let the ones go that were used longest ago where there are too many."""
        key = (id(owner), number)
        with self._lock:
            most = len(self._used) if key in self._used else self.most
            self._used[key] = ref(owner)
            self._used.move_to_end(key)
            over = [self._used.popitem(last=False) for _ in range(len(self._used) - most)]
        for (_, other), weak in over:
            holder = weak()
            if holder is not None:
                holder.release(other)
