"""Ordinals of parts in blocks, and evenly spaced ones."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def evenly_spaced(parts: int, count: int) -> npt.NDArray[np.int64]:
    """At most `count` of the part ordinals, evenly spaced."""
    return np.unique(np.linspace(0, parts - 1, min(count, parts)).astype(np.int64))


def run_blocks(run: range, size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Consecutive ordinals in blocks of so many."""
    for start in range(run.start, run.stop, size):
        yield np.arange(start, min(start + size, run.stop))
