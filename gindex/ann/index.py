"""The FAISS inner-product index over the stored vectors. It is derived: it can be deleted and built again.

Axes: Q queries, N parts, D dimension, F dimension in the index.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.ann.coarse import coarse, coarse_dimension, stored_coarse
from gindex.ann.gpu import GPU_MOST, to_gpu
from gindex.ann.ivf import LIST_TRAINING_PARTS, make_ivf, search_ivf
from gindex.ann.sieve import STEP, Sieve, part_selector
from gindex.ann.spec import TYPES, FaissSpec, choose_spec, import_faiss
from gindex.errors import CorruptStoreError, StoreError
from gindex.files.atomic import publish
from gindex.store.layout import REMEDY
from gindex.store.reader import VectorReader
from gindex.store.second_level import StoredLevel
from gindex.store.weights import stored_norms
from gindex.threads import Lock, once
from gindex.vectors.projection import ProjectionSpec
from gindex.workers import spread, threads

BLOCK = 1024
"""Vectors that are decoded at once while an index is built."""

LARGEST = 64
"""Parts of largest norm that are candidates of every query."""

QUERY_BITS = 4
"""Bits of a query's folded coordinate where RaBitQ counts bits."""

PARTS_PER_THREAD = 8192
"""Fewest codes that are worth another thread for one query."""

FP16_ROOM = 1000.0
"""Largest coordinate, in units of the largest when the index was built, that is still added: float16 ends at 65,504,
and a folded coordinate is the sum of up to eight."""

Candidates = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Part ordinals, best first, and their scores."""


def build_faiss(
    path: Path,
    reader: VectorReader,
    projection: ProjectionSpec,
    done: Callable[[int], None] = lambda _parts: None,
    kind: str = "auto",
    level: StoredLevel | None = None,
) -> FaissSpec:
    """Build the index from the stored vectors, a block at a time, and publish it at `path`.

    Args:
        path: Where.
        reader: The stored vectors.
        projection: Their projection.
        done: Called after each block with its number of parts.
        kind: One of `faiss_types.KINDS`, or `auto`.
        level: The second level, whose R v it then holds in place of v.

    Raises:
        ConfigError: There is no such kind.
        MissingDependencyError: FAISS is not installed.
        StoreError: It cannot be written.
    """
    faiss = import_faiss()
    parts = reader.spec.parts
    spec = choose_spec(parts, reader.spec.dimension, _largest(reader, level=level), kind)

    def folded(ordinals: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.concatenate([stored_coarse(reader, block, spec, projection, level) for block in blocks(ordinals)])

    if spec.kind == "ivf":
        index, assign = make_ivf(faiss, spec, evenly_spaced(parts, spec.lists * LIST_TRAINING_PARTS), folded, parts)
    else:
        index, assign = _empty(faiss, spec, coarse_dimension(spec, projection)), None
        # Signs relative to the mean, which is what RaBitQ learns, find less than the signs themselves.
        index.train(np.zeros((1, index.d), np.float32))
    for block in blocks(np.arange(parts)):
        vectors = folded(block)
        if assign is None:
            index.add(vectors)
        else:
            assign(block, vectors)
        done(len(block))
    _write(faiss, index, path)
    return _with_largest(spec, reader, level)


def follow_faiss(
    path: Path,
    old: FaissSpec,
    old_path: Path,
    reader: VectorReader,
    projection: ProjectionSpec,
    done: Callable[[int], None] = lambda _parts: None,
) -> FaissSpec:
    """Publish the index of a store that has grown: the old one with the new parts, where its form still suits them.

    Args:
        path: Where it goes.
        old: How the old index was made.
        old_path: The old index, which holds the first parts of the store.
        reader: The stored vectors.
        projection: Their projection.
        done: Called with the number of parts that are in.

    Raises:
        StoreError: It cannot be written.
    """
    faiss = import_faiss()
    kind = "auto" if old.kind == "flat" else old.kind
    suited = choose_spec(reader.spec.parts, reader.spec.dimension, 1.0, kind)
    index = _read(faiss, old_path)
    fresh = np.arange(index.ntotal, reader.spec.parts)
    room = old.kind in ("flat", "rabitq") or _largest(reader, fresh) * old.scale <= FP16_ROOM
    if old.kind == "ivf" or (suited.kind, suited.folds) != (old.kind, old.folds) or not room:
        return build_faiss(path, reader, projection, done, kind)
    done(index.ntotal)
    for block in blocks(fresh):
        index.add(stored_coarse(reader, block, old, projection))
        done(len(block))
    _write(faiss, index, path)
    return _with_largest(old, reader)


class FaissIndex:
    """A FAISS index, opened by the first search, safe to use from several threads."""

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
        self._path, self._parts, self._mapped, self._check = path, parts, mapped, check
        self._lock = self.loading = Lock()
        self._opened: Any = None
        self._gpu: Any = None

    def open(self) -> Any:
        """Compare and open the file, unless that is done, and return FAISS's index.

        Raises:
            CorruptStoreError: The file has another checksum, or is not such an index.
        """
        with self._lock:
            if self._opened is None:
                self._check(self._path)
                opened = self._read()
                self._gpu = to_gpu(self._faiss, opened) if self.spec.kind == "gpu" else None
                self._opened = opened
            return self._opened

    def _read(self) -> Any:
        faiss, spec = self._faiss, self.spec
        index = _read(faiss, self._path, faiss.IO_FLAG_MMAP_IFC if self._mapped else 0)
        expected = (TYPES[spec.kind], self._parts, coarse_dimension(spec, self._projection), faiss.METRIC_INNER_PRODUCT)
        found = (type(index).__name__, index.ntotal, index.d, index.metric_type)
        if found != expected:
            raise CorruptStoreError(
                field=self._path,
                expected=f"(type, vectors, dimensions, FAISS metric) {expected}",
                found=found,
                remedy=REMEDY,
            )
        return index

    def candidates(
        self, queries_QD: Tensor, count: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> list[Candidates]:
        """Return the `count` best parts for each of the queries [Q, D].

        The scores are those of the stored vectors where `spec.lossless`, otherwise an approximation in another scale.

        Args:
            queries_QD: Query vectors.
            count: Parts wanted.
            allowed: Which parts may be found [N]; None where all may.
        """
        self.open()
        queries_QF = coarse(queries_QD, self.spec, self._projection)
        count = min(count, self._parts)
        if self._gpu is not None and allowed is None and count <= GPU_MOST:
            scores, ordinals = self._gpu.search(queries_QF, count)
        else:
            scores, ordinals = self._on_cpu(queries_QF, count, allowed)
        return [(o[o >= 0], s[o >= 0]) for o, s in zip(ordinals, scores, strict=True)]

    def _on_cpu(
        self, queries_QF: npt.NDArray[np.float32], count: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Search by pieces of queries or, where there are fewer of them than threads, of the parts."""
        queries, total = len(queries_QF), self._parts if allowed is None else int(allowed.sum())
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
        pieces = min(threads(), self._parts // PARTS_PER_THREAD)
        if self.spec.kind == "ivf" or queries >= pieces:
            return [None]
        bounds = np.linspace(0, self._parts, pieces + 1).astype(int).tolist()
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
        self, ordinals: npt.NDArray[np.int64], reader: VectorReader, level: StoredLevel | None = None
    ) -> float:
        """Return how far the index's vectors of consecutive parts are at most from what the stored ones become in it.

        In units of their length. The lists of an ivf index aren't in the order of the parts: its checksum is compared,
        its vectors are not.
        """
        if self.spec.kind == "ivf":
            return 0.0
        vectors = stored_coarse(reader, ordinals, self.spec, self._projection, level)
        index = self.open()
        expected = index.sa_decode(index.sa_encode(vectors)) if self.spec.kind == "rabitq" else vectors
        found = index.reconstruct_n(int(ordinals[0]), len(ordinals))
        lengths = np.maximum(np.linalg.norm(expected, axis=1), np.finfo(np.float32).tiny)
        return float((np.linalg.norm(found - expected, axis=1) / lengths).max())


def blocks(ordinals: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield ordinals in blocks that are decoded at once."""
    for start in range(0, len(ordinals), BLOCK):
        yield ordinals[start : start + BLOCK]


def evenly_spaced(parts: int, count: int) -> npt.NDArray[np.int64]:
    """Return at most `count` of the part ordinals, evenly spaced."""
    return np.unique(np.linspace(0, parts - 1, min(count, parts)).astype(np.int64))


def _best(
    found: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]], count: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the best of what was found of the same queries in several ranges of the parts."""
    scores, ordinals = _joined(found, 1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(ordinals, order, 1)


def _joined(
    found: Sequence[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]], axis: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    scores, ordinals = (np.concatenate(pieces, axis=axis) for pieces in zip(*found, strict=True))
    return scores, ordinals


def _largest(
    reader: VectorReader, ordinals: npt.NDArray[np.int64] | None = None, level: StoredLevel | None = None
) -> float:
    """Return a bound of the stored coordinates, of all parts or of some.

    With a second level, the root mean square of the longest vector's: none of its coordinates is more than the root of
    D times as large, which float16 holds in this unit, folded too.
    """
    if level is not None:
        return float(level.norms_N.max() / reader.spec.dimension**0.5)
    bits = reader.spec.bits
    scales = reader.scales(np.arange(reader.spec.parts) if ordinals is None else ordinals)
    return float(scales.max()) * (1 if bits == 16 else 2**bits - 1) if len(scales) else 0.0


def _with_largest(spec: FaissSpec, reader: VectorReader, level: StoredLevel | None = None) -> FaissSpec:
    if spec.lossless:
        return spec
    norms = stored_norms(reader) if level is None else level.norms_N.numpy()
    return replace(spec, largest=tuple(np.argsort(-norms, kind="stable")[:LARGEST].tolist()))


def _write(faiss: Any, index: Any, path: Path) -> None:
    try:
        publish(path, lambda partial: faiss.write_index(index, str(partial)))
    except RuntimeError as error:
        raise StoreError(
            field=path,
            expected="to write the FAISS index",
            found=str(error)[-200:],
            remedy="check free space and permissions",
        ) from error


def _read(faiss: Any, path: Path, flags: int = 0) -> Any:
    try:
        return faiss.read_index(str(path), flags)
    except RuntimeError as error:
        raise CorruptStoreError(field=path, expected="a FAISS index", found=str(error)[:200], remedy=REMEDY) from error


def _empty(faiss: Any, spec: FaissSpec, dimension: int) -> Any:
    if spec.kind == "flat":
        return faiss.IndexFlatIP(dimension)
    if spec.kind == "rabitq":
        return faiss.IndexRaBitQ(dimension, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
