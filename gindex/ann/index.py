"""The FAISS inner-product index over the stored vectors: what gives a search its candidates.

Axes: Q queries, N parts, D dimension, F dimension of an entry.
"""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.ann.entries import entries, stored_entries
from gindex.ann.file import open_index
from gindex.ann.gpu import GPU_MOST, to_gpu
from gindex.ann.ivf import search_ivf
from gindex.ann.library import import_faiss
from gindex.ann.sieve import STEP, Sieve, part_selector
from gindex.ann.spec import FaissSpec
from gindex.store.reader import VectorReader
from gindex.store.transform import Transform
from gindex.thread_pool import spread, threads
from gindex.thread_safety import Lock, once
from gindex.vectors.projection import ProjectionSpec

QUERY_BITS = 4
"""Bits of a query's folded coordinate where RaBitQ counts bits."""

PARTS_PER_THREAD = 8192
"""Fewest codes that are worth another thread for one query."""

Candidates = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Part ordinals, best first, and their scores."""


class FaissIndex:
    """A FAISS index, opened by the first search. Several threads may use it at once."""

    def __init__(
        self,
        path: Path,
        spec: FaissSpec,
        projection: ProjectionSpec,
        parts: int,
        *,
        mapped: bool = True,
        check: Callable[[Path], object] = lambda _path: None,
    ) -> None:
        """Open nothing yet.

        Args:
            path: The file.
            spec: How it was made.
            projection: Projection of its vectors.
            parts: How many it holds.
            mapped: Map the file; otherwise read it.
            check: Compares the file with its checksum, before FAISS reads it.

        Raises:
            MissingDependencyError: FAISS is not installed.
        """
        self._faiss = import_faiss()
        self.spec, self._projection = spec, projection
        self.parts = parts
        self._path, self._mapped, self._check = path, mapped, check
        self._lock = self.loading = Lock()
        self._opened: Any = None
        self._gpu: Any = None

    def open(self) -> Any:
        """FAISS's index; the file is compared with its checksum and opened the first time.

        Raises:
            CorruptStoreError: The file has another checksum, or is not such an index.
        """
        with self._lock:
            if self._opened is None:
                self._check(self._path)
                opened = open_index(self._path, self.spec, self._projection, self.parts, mapped=self._mapped)
                self._gpu = to_gpu(self._faiss, opened) if self.spec.kind == "gpu" else None
                self._opened = opened
            return self._opened

    def candidates(
        self, queries_QD: Tensor, count: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> list[Candidates]:
        """The `count` best parts for each of the queries [Q, D].

        The scores are those of the stored vectors where `spec.lossless`, otherwise an approximation in another scale.

        Args:
            queries_QD: Query vectors.
            count: Parts wanted.
            allowed: Which parts may be found [N]; None where all may.
        """
        self.open()
        queries_QF = entries(queries_QD, self.spec, self._projection)
        count = min(count, self.parts)
        if self._gpu is not None and allowed is None and count <= GPU_MOST:
            scores, ordinals = self._gpu.search(queries_QF, count)
        else:
            scores, ordinals = self._on_cpu(queries_QF, count, allowed)
        return [(o[o >= 0], s[o >= 0]) for o, s in zip(ordinals, scores, strict=True)]

    def _on_cpu(
        self, queries_QF: npt.NDArray[np.float32], count: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Search by pieces of queries or, where there are fewer of them than threads, of the parts."""
        queries, total = len(queries_QF), self.parts if allowed is None else int(allowed.sum())
        ranges = self._ranges(queries)
        if self._sieve is not None and self._sieve.serves(queries, count, total):
            passed = self._sieve.passed(queries_QF, count, allowed)
            pieces = [(n, bounds) for n in range(queries) for bounds in ranges]
            found = spread(lambda of: self._search(queries_QF[of[0]][None], count, of[1], passed[of[0]]), pieces)
            rows = [_best(found[n : n + len(ranges)], count) for n in range(0, len(found), len(ranges))]
            return _joined(rows, 0)
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")
        if len(ranges) > 1:
            return _best(spread(lambda bounds: self._search(queries_QF, count, bounds, bits), ranges), count)
        shares = np.array_split(queries_QF, min(queries, threads()))
        return _joined(spread(lambda share_QF: self._search(share_QF, count, ranges[0], bits), shares), 0)

    def _ranges(self, queries: int) -> list[tuple[int, int] | None]:
        """Divide the parts among threads that have too few queries; None stands for all."""
        pieces = min(threads(), self.parts // PARTS_PER_THREAD)
        if self.spec.kind == "ivf" or queries >= pieces:
            return [None]
        bounds = np.linspace(0, self.parts, pieces + 1).astype(int).tolist()
        return list(itertools.pairwise(bounds))

    @once
    def _sieve(self) -> Sieve | None:
        index = self.open()
        if self.spec.kind != "rabitq" or index.d < 32 * STEP:
            return None
        return Sieve(self._faiss, index, QUERY_BITS, self._ranges)

    def _search(
        self,
        queries_QF: npt.NDArray[np.float32],
        count: int,
        bounds: tuple[int, int] | None,
        bits: npt.NDArray[np.uint8] | None,
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        selector = part_selector(self._faiss, bounds, bits)
        if self.spec.kind == "ivf":
            return search_ivf(self._faiss, self.spec, self.open(), queries_QF, count, selector, QUERY_BITS)
        if self.spec.kind == "rabitq":
            parameters = self._faiss.RaBitQSearchParameters(sel=selector, qb=QUERY_BITS)
        else:
            parameters = self._faiss.SearchParameters(sel=selector)
        found: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]] = self.open().search(
            queries_QF, count, params=parameters
        )
        return found

    def deviation(
        self, ordinals: npt.NDArray[np.int64], reader: VectorReader, transform: Transform | None = None, first: int = 0
    ) -> float:
        """Largest difference between an entry of the index and that made anew, relative to the length of the latter.

        An ivf index has its entries in another order than the parts, so they are not compared: the result is 0.

        Args:
            ordinals: The parts to compare, consecutive ones.
            reader: The stored vectors.
            transform: What the index holds of them in their place.
            first: Ordinal of the first part that the index holds.
        """
        if self.spec.kind == "ivf":
            return 0.0
        vectors = stored_entries(reader, ordinals, self.spec, self._projection, transform)
        index = self.open()
        expected = index.sa_decode(index.sa_encode(vectors)) if self.spec.kind == "rabitq" else vectors
        found = index.reconstruct_n(int(ordinals[0]) - first, len(ordinals))
        lengths = np.maximum(np.linalg.norm(expected, axis=1), np.finfo(np.float32).tiny)
        return float((np.linalg.norm(found - expected, axis=1) / lengths).max())


def _best(
    found: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]], count: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The best of what was found of the same queries in several ranges of the parts."""
    scores, ordinals = _joined(found, 1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(ordinals, order, 1)


def _joined(
    found: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]], axis: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    scores, ordinals = (np.concatenate(pieces, axis=axis) for pieces in zip(*found, strict=True))
    return scores, ordinals
