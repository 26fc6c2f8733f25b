"""The parts that filters leave of opened tables, kept for the next search with the same filter.

The tables of a version never change, and a new version opens its own: what is kept is never out of date.
"""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gindex.thread_safety import Lock

MOST_BYTES = 64 << 20
"""Bytes of ordinals that one cache holds at most."""


class FilterCache:
    """Ordinals of parts by the filter that they pass; those of the filters that were used last."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Hold nothing yet, and at most so many bytes of ordinals."""
        self._most, self._bytes, self._lock = most_bytes, 0, Lock()
        self._parts: OrderedDict[str, npt.NDArray[np.int64]] = OrderedDict()

    def get(self, where: str, find: Callable[[], npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
        """Return the parts that pass a filter; nobody may write into them.

        Args:
            where: The filter as written.
            find: Finds them, where they are not kept.
        """
        with self._lock:
            if where in self._parts:
                self._parts.move_to_end(where)
                return self._parts[where]
        found = find()
        found.flags.writeable = False
        with self._lock:
            if where not in self._parts:
                self._parts[where] = found
                self._bytes += found.nbytes + len(where)
            while self._bytes > self._most:
                oldest, parts = self._parts.popitem(last=False)
                self._bytes -= parts.nbytes + len(oldest)
        return found
