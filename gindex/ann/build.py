"""Building the FAISS index from the stored vectors. It is derived: it can be deleted and built again.

Axes: N parts, D dimension, F dimension of an entry.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.ann.entries import stored_entries
from gindex.ann.file import entry_dimension
from gindex.ann.ivf import LIST_TRAINING_PARTS, make_ivf
from gindex.ann.library import import_faiss, read_index, write_index
from gindex.ann.spec import FaissSpec, choose_spec
from gindex.store.reader import VectorReader
from gindex.store.transform import Transform
from gindex.vectors.projection import ProjectionSpec

DECODED = 1024
"""Vectors that are decoded at once while an index is built."""

LARGEST = 64
"""Parts of largest norm that are candidates of every query."""

FP16_ROOM = 1000.0
"""Largest coordinate, in units of the largest when the index was built, that is still added: float16 ends at 65,504,
and a folded coordinate is the sum of up to eight."""


def build_faiss(
    path: Path,
    reader: VectorReader,
    projection: ProjectionSpec,
    done: Callable[[int], None] = lambda _parts: None,
    kind: str = "auto",
    transform: Transform | None = None,
) -> FaissSpec:
    """Build the index from the stored vectors, a block at a time, and publish it.

    Args:
        path: Where.
        reader: The stored vectors.
        projection: Their projection.
        done: Called after each block with its number of parts.
        kind: One of `spec.KINDS`, or `auto`.
        transform: What the index holds of the vectors in their place.

    Raises:
        ConfigError: There is no such kind.
        MissingDependencyError: FAISS is not installed.
        StoreError: It cannot be written.
    """
    faiss = import_faiss()
    parts = reader.spec.parts
    spec = choose_spec(parts, reader.spec.dimension, _largest(reader, transform=transform), kind)

    def folded(ordinals: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.concatenate(
            [stored_entries(reader, block, spec, projection, transform) for block in blocks(ordinals)]
        )

    if spec.kind == "ivf":
        index, assign = make_ivf(faiss, spec, evenly_spaced(parts, spec.lists * LIST_TRAINING_PARTS), folded, parts)
    else:
        index, assign = _empty(faiss, spec, entry_dimension(spec, projection)), None
        # Signs relative to the mean, which is what RaBitQ learns, find less than the signs themselves.
        index.train(np.zeros((1, index.d), np.float32))
    for block in blocks(np.arange(parts)):
        vectors = folded(block)
        if assign is None:
            index.add(vectors)
        else:
            assign(block, vectors)
        done(len(block))
    write_index(faiss, index, path)
    return _with_largest(spec, reader, transform)


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
    index = read_index(faiss, old_path)
    fresh = np.arange(index.ntotal, reader.spec.parts)
    room = old.kind in ("flat", "rabitq") or _largest(reader, fresh) * old.scale <= FP16_ROOM
    if old.kind == "ivf" or (suited.kind, suited.folds) != (old.kind, old.folds) or not room:
        return build_faiss(path, reader, projection, done, kind)
    done(index.ntotal)
    for block in blocks(fresh):
        index.add(stored_entries(reader, block, old, projection))
        done(len(block))
    write_index(faiss, index, path)
    return _with_largest(old, reader)


def blocks(ordinals: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Ordinals in blocks that are decoded at once."""
    for start in range(0, len(ordinals), DECODED):
        yield ordinals[start : start + DECODED]


def evenly_spaced(parts: int, count: int) -> npt.NDArray[np.int64]:
    """At most `count` of the part ordinals, evenly spaced."""
    return np.unique(np.linspace(0, parts - 1, min(count, parts)).astype(np.int64))


def _largest(
    reader: VectorReader, ordinals: npt.NDArray[np.int64] | None = None, transform: Transform | None = None
) -> float:
    """Unit of the coordinates: a bound of those that are stored, of all parts or of some.

    With a transform, the root mean square of those of the longest vector: none of its coordinates is more than the root
    of D times as large, which float16 holds in this unit, folded too.
    """
    if transform is not None:
        return float(transform.norms.max() / reader.spec.dimension**0.5)
    bits = reader.spec.bits
    scales = reader.scales(np.arange(reader.spec.parts) if ordinals is None else ordinals)
    return float(scales.max()) * (1 if bits == 16 else 2**bits - 1) if len(scales) else 0.0


def _with_largest(spec: FaissSpec, reader: VectorReader, transform: Transform | None = None) -> FaissSpec:
    if spec.lossless:
        return spec
    norms = reader.norms() if transform is None else transform.norms
    return replace(spec, largest=tuple(np.argsort(-norms, kind="stable")[:LARGEST].tolist()))


def _empty(faiss: Any, spec: FaissSpec, dimension: int) -> Any:
    if spec.kind == "flat":
        return faiss.IndexFlatIP(dimension)
    if spec.kind == "rabitq":
        return faiss.IndexRaBitQ(dimension, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
