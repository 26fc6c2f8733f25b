"""Stores of clustered vectors, and the FAISS indexes over them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gindex.store.layout import VolumeLayout
from gindex.store.reader import VectorReader
from gindex.store.vectors import CodedVectors, VectorSpec, VectorWriter, VolumeReader
from gindex.vectors.codes import encode
from gindex.vectors.projection import LayerShape, ProjectionSpec

PROJECTION = ProjectionSpec(
    layers=tuple(LayerShape(name=f"{group}.a", group=group, rows=8, columns=16) for group in ("0", "1", "2")),
    dimension=768,
    seed=0,
)


def clustered(count: int, seed: int = 0) -> Tensor:
    """Vectors [count, 768] around 40 centres and their opposites; the longest is tens of times the shortest."""
    centres = torch.randn(40, PROJECTION.dimension, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    which = torch.randint(len(centres), (count,), generator=generator)
    signs = 1.0 - 2.0 * torch.randint(2, (count, 1), generator=generator)
    vectors = signs * centres[which] + 0.5 * torch.randn(count, PROJECTION.dimension, generator=generator)
    return vectors * torch.exp(0.5 * torch.randn(count, 1, generator=generator))


@pytest.fixture(scope="session")
def projection() -> ProjectionSpec:
    """The projection of the stores."""
    return PROJECTION


@pytest.fixture(scope="session")
def queries() -> Tensor:
    """Twenty queries [20, 768] from the same clusters."""
    return clustered(20, seed=1)


@pytest.fixture(scope="session")
def make_reader(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., VectorReader]:
    """Store `count` vectors, those in `zeros` as zeros, and open them."""

    def make(count: int, bits: int = 8, zeros: tuple[int, ...] = (), segment_parts: int = 512) -> VectorReader:
        slices = tuple(PROJECTION.slices.values())
        spec = VectorSpec(
            parts=count, segment_parts=segment_parts, dimension=PROJECTION.dimension, bits=bits, slices=slices
        )
        volume = VolumeLayout(Path(tmp_path_factory.mktemp("store")))
        vectors = clustered(count)
        vectors[list(zeros)] = 0
        codes, scales = (tensor.numpy() for tensor in encode(vectors, bits, slices))
        norms = vectors.square().sum(1).numpy()
        writer = VectorWriter(volume, spec)
        for number in range(spec.segments):
            part = slice(spec.segment_range(number).start, spec.segment_range(number).stop)
            writer.write(number, CodedVectors(codes=codes[part], scales=scales[part], self_influence=norms[part]), {})
        return VectorReader([VolumeReader(volume, spec)])

    return make


@pytest.fixture(scope="session")
def reader(make_reader: Callable[..., VectorReader]) -> VectorReader:
    """Two thousand vectors of 8 bits, in four segments, the last one partial."""
    return make_reader(2000)


@pytest.fixture(scope="session")
def scores(reader: VectorReader, queries: Tensor) -> np.ndarray:
    """Every score [20, 2000], in float64 by numpy: the oracle's oracle."""
    vectors = reader.decoded(np.arange(reader.spec.parts)).numpy().astype(np.float64)
    return queries.numpy().astype(np.float64) @ vectors.T
