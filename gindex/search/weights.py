"""Weights of parts: what their scores are multiplied by, so that they come out normalised.

Axes: N parts.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.store.reader import VectorReader

Weights = npt.NDArray[np.float32]


class Normaliser:
    """The weights of all parts of an index, each kind computed when it is first asked for."""

    def __init__(
        self,
        reader: VectorReader,
        targets: Callable[[], npt.NDArray[np.int64]],
        norms: npt.NDArray[np.floating[Any]] | None = None,
    ) -> None:
        """Prepare.

        Args:
            reader: The stored vectors.
            targets: Gives the number of tokens that count of every part [N].
            norms: Lengths of the vectors [N] where they are not those of the stored ones, because of a transform.
        """
        self._reader, self._targets, self._norms = reader, targets, norms
        self._known: dict[str, Weights] = {}

    def weights(self, kind: str) -> Weights | None:
        """Weight of every part [N], 0 where it is undefined, or None where all are 1.

        Args:
            kind: `none`; `unit`, 1 over the vector's norm, so that scores of a unit query are cosines;
                `relatif`, 1 over the square root of the self-influence; `length`, 1 over the number of predicted
                tokens.

        Source: RelatIF, Barshan et al. 2020, arXiv:2003.11630.
        """
        if kind == "none":
            return None
        if kind not in self._known:
            self._known[kind] = _inverse(self._sizes(kind))
        return self._known[kind]

    def _sizes(self, kind: str) -> npt.NDArray[np.float64]:
        if kind == "length":
            return np.maximum(self._targets(), 1).astype(np.float64)
        if kind == "relatif":
            return np.sqrt(self._reader.self_influence(np.arange(self._reader.spec.parts)).astype(np.float64))
        if self._norms is not None:
            return self._norms.astype(np.float64)
        return self._reader.norms(np.arange(self._reader.spec.parts))


def _inverse(sizes: npt.NDArray[np.float64]) -> Weights:
    return np.divide(1.0, sizes, out=np.zeros_like(sizes), where=sizes > 0).astype(np.float32)


def strata(weights: Weights, allowed: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    """Divide the allowed parts [N] by their weights, those of a stratum within a factor of two of each other.

    Within one, the order of weighted scores is close to the order of the scores, so that candidates by score serve.
    """
    octaves = np.full(len(weights), np.iinfo(np.int64).min)
    positive = weights > 0
    octaves[positive] = np.floor(np.log2(weights[positive])).astype(np.int64)
    return [allowed & (octaves == octave) for octave in np.unique(octaves[allowed])]
