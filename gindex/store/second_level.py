"""The second level of curvature on disk: one safetensors file, derived from the stored vectors.

    directions [K, D]    leading eigenvectors of the vectors' second moment as rows; float32
    values [K]           their eigenvalues in units of the mean; float64
    norms [N]            |R v| of every stored vector; float32
    metadata `gindex`    {"mu": , "rest": }

Axes: N parts, D dimension, K directions.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from gindex.curvature.second_level import SecondLevel
from gindex.errors import CorruptStoreError
from gindex.store.factors import write_tensors
from gindex.store.layout import REMEDY


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredLevel(SecondLevel):
    """R, and the norms [N] of what it makes of the stored vectors."""

    norms_N: Tensor


def write_level(path: Path, level: StoredLevel) -> None:
    """Publish a second level.

    Raises:
        StoreError: It cannot be written.
    """
    tensors = {"directions": level.directions_KD.float(), "values": level.values_K, "norms": level.norms_N}
    write_tensors(path, tensors, {"mu": level.mu, "rest": level.rest})


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
