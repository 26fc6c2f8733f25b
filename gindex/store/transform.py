"""Transforms of vectors: what a search compares in the place of the stored vectors and the queries' own.

A transform is a linear map R that is derived from the stored vectors and can be derived again. The scores of a search
are <R q, R v>: the FAISS index holds R v and is asked R q. The stored vectors stay v, so they are scored with R^T R q.

Axes: N parts, D dimension, Q queries.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.progress import Progress
from gindex.store.reader import VectorReader


class Transform(Protocol):
    """A transform of the vectors of one version."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it was fitted with, as fields of its kind's `settings`."""
        ...

    @property
    def measures(self) -> dict[str, Any]:
        """What is to be known of it, by name, for people."""
        ...

    @property
    def norms(self) -> npt.NDArray[np.float32]:
        """Length of R v of every stored vector [N]."""
        ...

    def vectors(self, vectors_ND: Tensor) -> Tensor:
        """R v of stored vectors [N, D]: what the FAISS index holds."""
        ...

    def queries(self, queries_QD: Tensor) -> Tensor:
        """R^T R q of queries [Q, D]: what the stored vectors are scored with."""
        ...

    def index_queries(self, queries_QD: Tensor) -> Tensor:
        """R q of what `queries` gave [Q, D]: what the FAISS index is asked."""
        ...

    def write(self, path: Path) -> None:
        """Publish it as a file.

        Raises:
            StoreError: It cannot be written.
        """
        ...


class TransformKind(Protocol):
    """A kind of transform, as it is registered.

    Attributes:
        settings: Frozen dataclass of its settings, which checks them.
        help: What it is, in a few words.
    """

    settings: type
    help: str

    def fit(
        self, reader: VectorReader, excluded: npt.NDArray[np.int64], settings: Any, progress: Progress
    ) -> Transform:
        """Fit a transform to the stored vectors, as they decode.

        Args:
            reader: The stored vectors.
            excluded: Parts that no search returns, which have no part in the fit.
            settings: An instance of the kind's `settings`.
            progress: Where the work is reported.

        Raises:
            NonFiniteError: A stored vector is not finite.
        """
        ...

    def open(self, path: Path, parts: int, dimension: int) -> Transform:
        """Load a transform of an index of N parts and D dimensions from its file.

        Raises:
            CorruptStoreError: It is missing or damaged.
        """
        ...
