"""Unfinished scores: an array [queries, documents] that is filled tile by tile, and goes on where it was left.

A tile is on the disk before it is counted as done, so what a kill or a power loss leaves is whole tiles.

Axes: Q queries, N documents or parts.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.errors import CorruptStoreError, SettingsMismatchError
from gindex.files.atomic import make_folder, publish, sync
from gindex.search.sweep import Tile
from gindex.store.files import read_json, write_json


class ScoreWork:
    """The folder of unfinished scores.

    Attributes:
        folder: Where it is.
        array: The array, a NumPy file.
        done: Tiles that are done.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], shape: tuple[int, int]) -> None:
        """Begin, or go on.

        Args:
            folder: Where it is, or is to be.
            identity: What the scores depend on; JSON values.
            shape: Queries and documents.

        Raises:
            SettingsMismatchError: What is there was begun with another identity.
            CorruptStoreError: What is there is damaged.
        """
        self.folder, self.array, self._state = folder, folder / "scores.npy", folder / "state.json"
        self._identity, self._shape = identity, shape
        self.done = self._done() if self._state.exists() else self._begin()

    def write(self, tile: Tile) -> None:
        """Keep the next tile."""
        start, width = self._values_start(), self._shape[1]
        with self.array.open("r+b") as file:
            for query, scores_N in zip(range(tile.queries.start, tile.queries.stop), tile.scores_QN, strict=True):
                file.seek(start + 4 * (query * width + tile.units.start))
                file.write(scores_N.astype("<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())
        self._count(self.done + 1)

    def scores(self) -> npt.NDArray[np.float32]:
        """All scores [Q, N], mapped."""
        return np.lib.format.open_memmap(self.array, mode="r")

    def _begin(self) -> int:
        make_folder(self.folder)
        publish(self.array, self._write_zeros)
        return self._count(0)

    def _write_zeros(self, path: Path) -> None:
        """Write the header, and leave room for the scores."""
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": self._shape})
            file.truncate(file.tell() + 4 * self._shape[0] * self._shape[1])
        sync(path)

    def _values_start(self) -> int:
        return self.array.stat().st_size - 4 * self._shape[0] * self._shape[1]

    def _count(self, done: int) -> int:
        write_json(self._state, {"identity": self._identity, "done": done})
        self.done = done
        return done

    def _done(self) -> int:
        remedy = f"give the command that began it, or remove {self.folder}"
        try:
            state = read_json(self._state)
            other = sorted(name for name, value in self._identity.items() if state["identity"].get(name) != value)
        except (CorruptStoreError, KeyError, AttributeError) as error:
            raise CorruptStoreError(
                field=self._state, expected="the state of unfinished scores", found=error, remedy=remedy
            ) from error
        if other:
            raise SettingsMismatchError(
                field=self.folder,
                expected=f"unfinished scores with the same {', '.join(other)}",
                found="others",
                remedy=remedy,
            )
        return int(state["done"])
