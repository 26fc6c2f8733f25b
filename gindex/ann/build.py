"""Building the FAISS index from the stored vectors. It is derived: it can be deleted and built again.

Axes: N parts, D dimension, F dimension of an entry.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.ann.blocks import run_blocks
from gindex.ann.entries import stored_entries
from gindex.ann.file import entry_dimension
from gindex.ann.ivf_file import DECODED, EarlierIvf, write_ivf
from gindex.ann.library import import_faiss, write_index
from gindex.ann.spec import FaissSpec, choose_spec
from gindex.store.reader import VectorReader
from gindex.store.transform import Transform
from gindex.vectors.projection import ProjectionSpec

SCALES = 65536
"""Vectors whose scales, or norms, are looked at at once."""

LARGEST = 64
"""Parts of largest norm that are candidates of every query."""


def build_faiss(
    path: Path,
    reader: VectorReader,
    projection: ProjectionSpec,
    done: Callable[[int], None] = lambda _parts: None,
    kind: str = "auto",
    transform: Transform | None = None,
    run: range | None = None,
    earlier: Sequence[EarlierIvf] = (),
) -> FaissSpec:
    """Build an index of consecutive stored vectors, a block at a time, and publish it.

    Args:
        path: Where.
        reader: The stored vectors.
        projection: Their projection.
        done: Called after each block with its number of parts.
        kind: One of `spec.KINDS`, or `auto`.
        transform: What the index holds of the vectors in their place.
        run: Ordinals of the parts; None for all. How they are folded follows from the number of all parts, so that the
            scores of several indexes are alike.
        earlier: Indexes whose centres an ivf index uses again, unless it has grown too much since, and whose lists it
            copies; in the order of the ordinals.

    Raises:
        ConfigError: There is no such kind.
        MissingDependencyError: FAISS is not installed.
        CorruptStoreError: A file of `earlier` holds no such index.
        StoreError: It cannot be written.
    """
    faiss = import_faiss()
    run = range(reader.spec.parts) if run is None else run
    spec = choose_spec(reader.spec.parts, reader.spec.dimension, _largest(reader, run, transform), kind)

    def folded(spec: FaissSpec, ordinals: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return stored_entries(reader, ordinals, spec, projection, transform)

    if spec.kind == "ivf":
        spec = write_ivf(faiss, path, spec, run, reader.spec.parts, folded, earlier, done)
    else:
        index = _empty(faiss, spec, entry_dimension(spec, projection))
        # Signs relative to the mean, which is what RaBitQ learns, find less than the signs themselves.
        index.train(np.zeros((1, index.d), np.float32))
        for block in run_blocks(run, DECODED):
            index.add(folded(spec, block))
            done(len(block))
        write_index(faiss, index, path)
    return spec if spec.lossless else replace(spec, largest=_of_largest_norm(reader, run, transform))


def _largest(reader: VectorReader, run: range, transform: Transform | None) -> float:
    """Unit of the coordinates: a bound of those that are stored of some parts.

    With a transform, the root mean square of those of the longest vector: none of its coordinates is more than the root
    of D times as large, which float16 holds in this unit, folded too.
    """
    if transform is not None:
        return float(transform.norms[run.start : run.stop].max() / reader.spec.dimension**0.5)
    bits = reader.spec.bits
    largest = max((float(reader.scales(block).max()) for block in run_blocks(run, SCALES)), default=0.0)
    return largest * (1 if bits == 16 else 2**bits - 1)


def _of_largest_norm(reader: VectorReader, run: range, transform: Transform | None) -> tuple[int, ...]:
    """The parts of largest norm, the largest first, numbered from the first of the run."""
    norms, places = np.zeros(0), np.zeros(0, np.int64)
    for block in run_blocks(run, SCALES):
        of_block = reader.norms(block) if transform is None else transform.norms[block]
        norms, places = np.concatenate([norms, of_block]), np.concatenate([places, block - run.start])
        best = np.argsort(-norms, kind="stable")[:LARGEST]
        norms, places = norms[best], places[best]
    return tuple(places.tolist())


def _empty(faiss: Any, spec: FaissSpec, dimension: int) -> Any:
    if spec.kind == "flat":
        return faiss.IndexFlatIP(dimension)
    if spec.kind == "rabitq":
        return faiss.IndexRaBitQ(dimension, faiss.METRIC_INNER_PRODUCT)
    return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
