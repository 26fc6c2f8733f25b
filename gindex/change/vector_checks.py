"""What a deep check makes sure of: that every stored vector decodes, and that FAISS holds what is stored."""

from collections.abc import Iterator

import numpy as np

from gindex.ann.index import FaissIndex
from gindex.ann.spec import spec_of
from gindex.errors import StoreError
from gindex.model.passes import plain
from gindex.store.snapshot import Snapshot

TOLERANCE = 1e-3
"""Of FAISS's vectors, relative to their length: float16 rounds each coordinate by up to 2^-11 of itself."""


@plain()
def vector_problems(snapshot: Snapshot) -> list[str]:
    """What is wrong with the stored vectors."""
    problems = []
    for number, ordinals in _segments(snapshot):
        try:
            decoded, self_influence = snapshot.vectors.decoded(ordinals), snapshot.vectors.self_influence(ordinals)
            if not (decoded.isfinite().all() and np.isfinite(self_influence).all()):
                problems.append(f"{snapshot.layout.volumes}: expected finite vectors, found others in segment {number}")
        except StoreError as error:
            problems.append(str(error))
    return problems


@plain()
def check_transform(snapshot: Snapshot) -> None:
    """Read what vectors are transformed by, where they are.

    Raises:
        CorruptStoreError: Its file is damaged.
    """
    snapshot.transform()


@plain()
def faiss_problems(snapshot: Snapshot) -> list[str]:
    """What FAISS holds otherwise than it is stored."""
    search, problems = snapshot.manifest.search, []
    index = FaissIndex(snapshot.faiss, spec_of(search), snapshot.projection, search.parts)
    transform = snapshot.transform()
    for number, ordinals in _segments(snapshot):
        off = index.deviation(ordinals, snapshot.vectors, transform)
        if off > TOLERANCE:
            problems.append(
                f"{snapshot.faiss}: expected the stored vectors, found others in segment {number} (off by {off:.2g})"
            )
    return problems


def _segments(snapshot: Snapshot) -> Iterator[tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    spec = snapshot.vectors.spec
    for number in range(spec.segments):
        yield number, np.array(spec.segment_range(number), np.int64)
