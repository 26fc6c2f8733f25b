"""Scores that a user brings as a NumPy file; nothing in it is executed.

Axes: Q queries, N documents.
"""

from pathlib import Path

import numpy as np

from gindex.errors import ConfigError
from gindex.lab.evaluations.training import Scores


def read_scores(path: Path) -> Scores:
    """Read scores [Q, N] from a `.npy` file.

    Raises:
        ConfigError: The file is missing, damaged, or holds something else than a table of numbers.
    """
    try:
        with path.open("rb") as file:
            scores_QN = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(field=path, expected="a NumPy file of scores", found=error) from error
    if scores_QN.ndim != 2 or scores_QN.dtype.kind not in "fiu":
        raise ConfigError(
            field=path, expected="numbers [queries, documents]", found=f"{scores_QN.dtype} {scores_QN.shape}"
        )
    return scores_QN.astype(np.float64)
