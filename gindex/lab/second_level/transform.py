"""The second level of curvature of an index: fitted to its stored vectors, without the model, and kept as a file.

    directions [K, D]    leading eigenvectors of the vectors' second moment as rows; float32
    values [K]           their eigenvalues in units of the mean; float64
    norms [N]            |R v| of every stored vector; float32
    metadata `gindex`    {"mu": , "rest": }

As R is symmetric, the stored vectors are scored with R^2 q.

Axes: N parts, D dimension, K directions, Q queries.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gindex.errors import CorruptStoreError
from gindex.lab.second_level.curvature import SecondLevel, fit_second_level, suited_passes
from gindex.progress import Progress
from gindex.store.factors import write_tensors
from gindex.store.layout import REMEDY
from gindex.store.reader import VectorReader

DECODED = 1024
"""Vectors that are decoded at once."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredLevel(SecondLevel):
    """R, and the norms [N] of what it makes of the stored vectors: `store.transform.Transform`."""

    norms_N: Tensor

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that it was fitted with."""
        return {"mu": self.mu}

    @property
    def measures(self) -> dict[str, Any]:
        """How many directions are told apart, and their share of the second moment."""
        share = float(self.values_K.sum()) / self.directions_KD.shape[1]
        return {"directions": len(self.values_K), "share": round(share, 4)}

    @property
    def norms(self) -> npt.NDArray[np.float32]:
        """Length of R v of every stored vector [N]."""
        norms_N: npt.NDArray[np.float32] = self.norms_N.numpy()
        return norms_N

    def vectors(self, vectors_ND: Tensor) -> Tensor:
        """R v of stored vectors [N, D]."""
        return self.apply(vectors_ND)

    def queries(self, queries_QD: Tensor) -> Tensor:
        """R^2 q of queries [Q, D]."""
        return self.apply(queries_QD, 2)

    def index_queries(self, queries_QD: Tensor) -> Tensor:
        """R q of what `queries` gave [Q, D]."""
        return self.apply(queries_QD, -1)

    def write(self, path: Path) -> None:
        """Publish it as a file.

        Raises:
            StoreError: It cannot be written.
        """
        tensors = {"directions": self.directions_KD.float(), "values": self.values_K, "norms": self.norms_N}
        write_tensors(path, tensors, {"mu": self.mu, "rest": self.rest})


def fit_stored(reader: VectorReader, excluded: npt.NDArray[np.int64], mu: float, progress: Progress) -> StoredLevel:
    """Fit the second level to the stored vectors, as they decode, of all parts but those excluded.

    Args:
        reader: The stored vectors.
        excluded: Parts that no search returns.
        mu: Share of the mean eigenvalue that is added to all of them.
        progress: Where the work is reported.

    Raises:
        ConfigError: mu is not positive.
        NonFiniteError: A stored vector is not finite.
    """
    spec = reader.spec
    every = np.arange(spec.parts)
    usable = np.setdiff1d(every, excluded)
    with progress.phase("second level", suited_passes(spec.dimension) * len(usable) + len(every), "parts") as phase:

        def decoded(ordinals: npt.NDArray[np.int64]) -> Iterator[Tensor]:
            for start in range(0, len(ordinals), DECODED):
                yield reader.decoded(ordinals[start : start + DECODED])
                phase.advance(len(ordinals[start : start + DECODED]))

        level = fit_second_level(lambda: decoded(usable), spec.dimension, mu, count=len(usable))
        norms = [level.apply(vectors_ND).norm(dim=1) for vectors_ND in decoded(every)]
    return StoredLevel(**vars(level), norms_N=torch.cat(norms))


def read_level(path: Path, parts: int, dimension: int) -> StoredLevel:
    """Load the second level of an index of N parts and D dimensions.

    Raises:
        CorruptStoreError: It is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()["gindex"])
            level = StoredLevel(
                directions_KD=file.get_tensor("directions").clone(),  # off the file, which may be cut short later
                values_K=file.get_tensor("values").clone(),
                norms_N=file.get_tensor("norms").clone(),
                mu=content["mu"],
                rest=content["rest"],
            )
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CorruptStoreError(
            field=path, expected="a second level of curvature", found=error, remedy=REMEDY
        ) from error
    shapes = [tuple(tensor.shape) for tensor in (level.directions_KD, level.values_K, level.norms_N)]
    if shapes != [(len(level.values_K), dimension), (len(level.values_K),), (parts,)]:
        raise CorruptStoreError(
            field=path,
            expected=f"directions, values and norms of {parts:,} parts and {dimension:,} dimensions",
            found=f"shapes {shapes}",
            remedy=REMEDY,
        )
    return level
