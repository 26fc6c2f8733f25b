"""The training function of an evaluation, and what else it may offer.

A training function is called with the ordinals of the documents to train on and a seed, and returns the loss of every
query under the trained model. That is all that a user has to write:

    def train(subset, seed):
        model = fine_tune([DOCUMENTS[n] for n in subset], seed)
        return [loss(model, query) for query in QUERIES]

Axes: K trainings, Q queries, N documents.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from gindex.errors import TrainingError

Ordinals = npt.NDArray[np.int64]
Losses = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float64]
Method = Callable[[], npt.ArrayLike]
"""Returns scores [Q, N]: how much each document is held to lower each query's loss; only ranks and sums count."""


class TrainingFunction(Protocol):
    """Trains on some documents, and says how well the result does on every query."""

    def __call__(self, subset: Ordinals, seed: int, /) -> npt.ArrayLike:
        """The losses [Q] after training on the documents `subset`, which are in order.

        The seed decides all that is random. It is the same for many subsets, and losses are compared between them.
        """
        ...


@runtime_checkable
class TrainsMany(Protocol):
    """A training function that is quicker with several trainings at once."""

    at_once: int
    """Trainings that are worth doing together."""

    def many(self, subsets: Sequence[Ordinals], seeds: Sequence[int]) -> npt.ArrayLike:
        """The losses [K, Q] of K trainings, each as when it is called for by itself."""
        ...


@runtime_checkable
class OffersMethods(Protocol):
    """A training function that comes with methods to compare."""

    def methods(self) -> Mapping[str, Method]:
        """Methods by name; nothing is computed until one is called."""
        ...


@runtime_checkable
class Relabels(Protocol):
    """A training function whose documents have one class each, which may be changed."""

    labels: Ordinals
    """Classes [N]."""

    classes: int
    """How many there are."""

    def suspicion(self, labels: Ordinals, seed: int) -> Mapping[str, npt.ArrayLike]:
        """Train on all documents with other labels [N]; return by method how suspect each label is [N]."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Experiment:
    """A training function by the name that the user gave.

    Attributes:
        name: The name.
        source: Checksum of the file that the function is written in; empty where there is none.
        function: A `TrainingFunction`, and perhaps one of the other protocols.
        documents: N.
    """

    name: str
    source: str
    function: Any
    documents: int

    @property
    def at_once(self) -> int:
        """Trainings that are worth doing together."""
        return max(1, int(self.function.at_once)) if isinstance(self.function, TrainsMany) else 1

    def train(self, subsets: Sequence[Ordinals], seeds: Sequence[int]) -> Losses:
        """The losses [K, Q] of K trainings.

        Raises:
            TrainingError: The function fails, returns something else than finite losses, or as many for all.
        """
        try:
            if isinstance(self.function, TrainsMany):
                returned = self.function.many(subsets, seeds)
            else:
                returned = [self.function(subset, seed) for subset, seed in zip(subsets, seeds, strict=True)]
            losses_KQ = np.asarray(returned, np.float64)
        except Exception as error:
            which = f"{len(subsets[0])} documents, seed {seeds[0]}"
            more = f" and {len(subsets) - 1} more trainings" if len(subsets) > 1 else ""
            raise TrainingError(
                field=self.name,
                expected=f"losses of a training on {which}{more}",
                found=f"{type(error).__name__}: {error}",
                remedy="correct the function; finished trainings are kept",
            ) from error
        if losses_KQ.ndim != 2 or len(losses_KQ) != len(subsets) or losses_KQ.shape[1] == 0:
            raise TrainingError(
                field=self.name,
                expected=f"one row of losses, one for each query, from each of {len(subsets)} trainings",
                found=f"shape {losses_KQ.shape}",
                remedy="return a list of numbers",
            )
        bad = np.argwhere(~np.isfinite(losses_KQ))
        if len(bad):
            training, query = bad[0]
            raise TrainingError(
                field=self.name,
                expected="finite losses",
                found=(
                    f"{losses_KQ[training, query]} for query {query} after a training on {len(subsets[training])} "
                    f"documents with seed {seeds[training]}"
                ),
                remedy="it diverges: lower its learning rate, or check its data",
            )
        return losses_KQ
