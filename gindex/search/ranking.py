"""Parts and their scores, best first."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Ranking:
    """Part ordinals, best first, and their scores."""

    ordinals: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


def best_of(ordinals: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], k: int) -> Ranking:
    """The k best of some parts, ties by ordinal."""
    order = np.lexsort((ordinals, -scores))[:k]
    return Ranking(ordinals[order], scores[order])
