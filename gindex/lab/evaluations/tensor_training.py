"""Training functions of perceptrons on tables: what `digits` and `tabular` have in common.

Axes: K trainings, N documents, Q queries, I features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gindex.config import VectorConfig
from gindex.distribution import install_hint
from gindex.errors import MissingDependencyError
from gindex.lab.attribution import DAMPING
from gindex.lab.evaluations.methods import TensorMethods
from gindex.lab.evaluations.perceptrons import PerceptronRecipe, by_size, train_perceptrons
from gindex.lab.evaluations.training import Losses, Method, Ordinals
from gindex.lab.second_level.curvature import MU
from gindex.model.tasks import TensorTask
from gindex.model.tensors import tensor_batches

BATCH = 1024
"""Documents of a batch: small models take longer to start than to run."""

ATTRIBUTION_SEED = 0
"""Seed of the model, trained on all documents, that methods look at."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TabularData:
    """Documents and queries with their labels."""

    x: Tensor
    y: Tensor
    x_queries: Tensor
    y_queries: Tensor


class TensorTraining:
    """A training function, with the methods of an index in memory: `TrainsMany` and `OffersMethods`."""

    at_once = 100

    def __init__(
        self,
        table: TabularData,
        recipe: PerceptronRecipe,
        task: Callable[[torch.nn.Module], TensorTask],
        losses: Callable[[Tensor, Tensor], Tensor],
        vectors: VectorConfig,
    ) -> None:
        """Take all that a training needs.

        Args:
            table: Documents and queries.
            recipe: Architecture and optimiser.
            task: Makes the task of a model: the losses of queries are those of its task.
            losses: Training losses [K, B] of outputs [K, B, O] and labels of many models at once.
            vectors: Vectors of the methods `index` and `trak-like`.
        """
        self.table, self.recipe, self.task, self.vectors = table, recipe, task, vectors
        self.documents = len(table.x)
        self._losses = losses

    def __call__(self, subset: Ordinals, seed: int) -> Losses:
        """Train one perceptron; return the loss of every query [Q]."""
        found: Losses = self.many([subset], [seed])[0]
        return found

    def many(self, subsets: Sequence[Ordinals], seeds: Sequence[int]) -> Losses:
        """Train many; return the losses of the queries [K, Q]."""
        queries = tensor_batches(self.table.x_queries, self.table.y_queries, len(self.table.x_queries))[0]
        losses_KQ = torch.empty(len(subsets), len(self.table.x_queries), dtype=torch.float64, device="cpu")
        for group in by_size(subsets):
            models = self.train([subsets[k] for k in group], [seeds[k] for k in group])
            for k, model in zip(group, models, strict=True):
                with torch.no_grad():
                    losses_KQ[k] = self.task(model).losses(queries)
        return losses_KQ.numpy()

    def train(
        self, subsets: Sequence[Ordinals], seeds: Sequence[int], labels: Tensor | None = None
    ) -> list[torch.nn.Sequential]:
        """Trained perceptrons, with other labels [N] where some are given."""
        y = self.table.y if labels is None else labels
        return train_perceptrons(self.recipe, self.table.x, [y] * len(subsets), self._losses, subsets, seeds)

    def trained(self, seed: int = ATTRIBUTION_SEED, labels: Tensor | None = None) -> TensorMethods:
        """Train on all documents; return the methods of the result."""
        (model,) = self.train([torch.arange(self.documents, device="cpu").numpy()], [seed], labels)
        y = self.table.y if labels is None else labels
        documents = tensor_batches(self.table.x, y, BATCH)
        return TensorMethods(self.task(model), documents, tensor_batches(self.table.x_queries, self.table.y_queries))

    def methods(self) -> Mapping[str, Method]:
        """Exact influence with all kinds of curvature, and the scores of vectors."""
        found = self.trained()
        return {
            **{kind: partial(found.exact, kind) for kind in ("ekfac", "kfac", "diagonal", "identity")},
            f"index-{self.vectors.dimension}x{self.vectors.bits}": partial(found.projected, self.vectors, 1.0),
            "refined-cg": partial(found.refined, DAMPING),
            f"second-level-{self.vectors.dimension}x{self.vectors.bits}": partial(
                found.projected, self.vectors, 1.0, mu=MU
            ),
            f"raw-{self.vectors.dimension}x{self.vectors.bits}": partial(
                found.projected, self.vectors, 1.0, "identity"
            ),
            f"trak-like-{self.vectors.dimension}": partial(found.trak_like, self.vectors),
        }


def import_datasets() -> Any:
    """Scikit-learn's data sets, which come with it.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        import sklearn.datasets
    except ImportError as error:
        raise MissingDependencyError(
            expected="scikit-learn, whose data this trains on, to be installed",
            found=f"none ({error})",
            remedy=install_hint("evaluate"),
        ) from error
    return sklearn.datasets
