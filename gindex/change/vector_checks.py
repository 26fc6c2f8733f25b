"""What a deep check makes sure of: that every stored vector decodes, and that FAISS holds what is stored."""

import numpy as np

from gindex.ann.blocks import run_blocks
from gindex.ann.index import FaissIndex
from gindex.ann.spec import spec_of
from gindex.errors import StoreError
from gindex.model.isolation import plain
from gindex.progress import Progress
from gindex.store.reader import Ordinals
from gindex.store.snapshot import Snapshot

BLOCK = 256
"""Parts that are looked at once."""

TOLERANCE = 1e-3
"""Of FAISS's vectors, relative to their length: float16 rounds each coordinate by up to 2^-11 of itself."""


@plain()
def vector_problems(snapshot: Snapshot, progress: Progress) -> list[str]:
    """What is wrong with the stored vectors."""
    problems, parts = [], snapshot.vectors.spec.parts
    with progress.phase("vectors", parts, "parts") as phase:
        for ordinals in run_blocks(range(parts), BLOCK):
            try:
                decoded, self_influence = snapshot.vectors.decoded(ordinals), snapshot.vectors.self_influence(ordinals)
                if not (decoded.isfinite().all() and np.isfinite(self_influence).all()):
                    found = f"others in {_named(ordinals)}"
                    problems.append(f"{snapshot.layout.volumes}: expected finite vectors, found {found}")
            except StoreError as error:
                problems.append(str(error))
            phase.advance(len(ordinals))
    return list(dict.fromkeys(problems))  # a shard is looked at in several blocks


@plain()
def check_transform(snapshot: Snapshot) -> None:
    """Read what vectors are transformed by, where they are.

    Raises:
        CorruptStoreError: Its file is damaged.
    """
    snapshot.transform()


@plain()
def faiss_problems(snapshot: Snapshot, progress: Progress) -> list[str]:
    """What FAISS holds otherwise than it is stored."""
    search, problems, transform = snapshot.manifest.search, [], snapshot.transform()
    with progress.phase("search index", search.parts, "parts") as phase:
        for file, run in zip(search.faiss, search.runs, strict=True):
            path = snapshot.root / file.file
            index = FaissIndex(path, spec_of(file), snapshot.projection, file.parts)
            for ordinals in run_blocks(run, BLOCK):
                off = index.deviation(ordinals, snapshot.vectors, transform, run.start)
                if off > TOLERANCE:
                    found = f"others of {_named(ordinals)} (off by {off:.2g})"
                    problems.append(f"{path}: expected the stored vectors, found {found}")
                phase.advance(len(ordinals))
    return problems


def _named(ordinals: Ordinals) -> str:
    return f"parts {ordinals[0]:,} to {ordinals[-1]:,}"
