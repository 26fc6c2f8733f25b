"""Parts as ranges of ordinals: however many there are, they take no more memory than the ranges do."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Ordinals = npt.NDArray[np.int64]


class PartRanges:
    """Ordinals of parts, as ranges in order; a part's place is its number among them."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Take start and stop of each range."""
        self._starts, stops = np.array(ranges, np.int64).reshape(-1, 2).T
        self._places = np.concatenate([[0], np.cumsum(stops - self._starts)])

    @classmethod
    def between(cls, start: int, stop: int, without: Iterable[tuple[int, int]]) -> "PartRanges":
        """The ordinals between two, without those of ranges, which may overlap and lie outside."""
        ranges = []
        for first, end in sorted(without):
            if start < min(first, stop):
                ranges.append((start, min(first, stop)))
            start = max(start, end)
        return cls([*ranges, (start, stop)] if start < stop else ranges)

    def within(self, start: int, stop: int) -> "PartRanges":
        """Those of them between two ordinals."""
        stops = self._starts + np.diff(self._places)
        clipped = np.stack([np.maximum(self._starts, start), np.minimum(stops, stop)], axis=1)
        return PartRanges(clipped[clipped[:, 0] < clipped[:, 1]].tolist())

    def __len__(self) -> int:
        """How many there are."""
        return int(self._places[-1])

    def ordinals(self, places: range | Ordinals) -> Ordinals:
        """Ordinals of those at some places among them."""
        wanted = np.arange(places.start, places.stop) if isinstance(places, range) else places
        ranges = np.searchsorted(self._places, wanted, "right") - 1
        ordinals: Ordinals = self._starts[ranges] + wanted - self._places[ranges]
        return ordinals

    def all(self) -> Ordinals:
        """All ordinals."""
        return self.ordinals(range(len(self)))

    def place(self, ordinal: int) -> int | None:
        """The place of a part among them; None where it is not one of them."""
        found = int(np.searchsorted(self._starts, ordinal, "right")) - 1
        if found < 0:
            return None
        place = int(self._places[found]) + ordinal - int(self._starts[found])
        return place if place < self._places[found + 1] else None

    def flags(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Which of consecutive ordinals are among them [stop - start]."""
        flags = np.zeros(stop - start, np.bool_)
        stops = self._starts + np.diff(self._places)
        for at in range(int(np.searchsorted(stops, start, "right")), len(self._starts)):
            if self._starts[at] >= stop:
                break
            flags[max(0, self._starts[at] - start) : stops[at] - start] = True
        return flags
