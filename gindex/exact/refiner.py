"""Refiners: what preconditions the queries of an exact re-rank in the place of EK-FAC.

Axes: Q queries, O layer outputs, I layer inputs.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.curvature.ekfac import FactorLoader
from gindex.documents.table import DocumentTable
from gindex.exact.refinement import Refinement
from gindex.model.tracked import TrackedModel
from gindex.progress import Progress
from gindex.queries.tokens import QueryTokens


class Refiner(Protocol):
    """A refiner, ready for the queries of one index."""

    @property
    def query_bytes(self) -> int:
        """Bytes that are held for each query."""
        ...

    def solve(
        self, queries: Sequence[QueryTokens], parts: npt.NDArray[np.int64], progress: Progress
    ) -> tuple[dict[str, Tensor], list[Refinement]]:
        """The inverse curvature times the gradients of queries, [Q, O, I] by layer name, and how each was refined.

        Args:
            queries: Q queries.
            parts: Part ordinals that the curvature is taken over.
            progress: Where the work is reported.

        Raises:
            NonFiniteError: A part has outputs that are not finite, or the refiner does not converge.
        """
        ...


class RefinerKind(Protocol):
    """A kind of refiner, as it is registered.

    Attributes:
        settings: Frozen dataclass of its settings, which checks them.
        help: What it is, in a few words.
    """

    settings: type
    help: str

    def refiner(
        self, model: TrackedModel, factors: FactorLoader, damping_scale: float, table: DocumentTable, settings: Any
    ) -> Refiner:
        """Prepare a refiner for one index.

        Args:
            model: The model.
            factors: Loads a layer's factors.
            damping_scale: Damping, as a multiple of each layer's mean eigenvalue.
            table: Where the parts' tokens are.
            settings: An instance of the kind's `settings`.
        """
        ...


def refiner_sample(usable: npt.NDArray[np.int64], count: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Parts that the curvature is taken over, ascending: `count` drawn with the seed, or all where None."""
    if count is None or count >= len(usable):
        return usable
    return np.sort(np.random.default_rng(seed).choice(usable, count, replace=False))
