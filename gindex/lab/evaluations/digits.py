"""The training function `digits`: handwritten digits of 8 x 8 pixels, classified by a 64-32-32-10 perceptron.

1,000 documents and 100 queries of scikit-learn's bundled copy of the UCI data.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gindex.config import VectorConfig
from gindex.lab.evaluations.perceptrons import PerceptronRecipe
from gindex.lab.evaluations.tensor_training import TabularData, TensorTraining, import_datasets
from gindex.lab.evaluations.training import Ordinals, Scores
from gindex.model.tasks import Classification

DOCUMENTS, QUERIES = 1000, 100

RECIPE = PerceptronRecipe(
    widths=(64, 32, 32, 10), epochs=40, batch=32, learning_rate=0.1, weight_decay=1e-3, momentum=0.9
)


class Digits(TensorTraining):
    """Trains on digits: `Relabels` too."""

    classes = 10

    def __init__(self, recipe: PerceptronRecipe = RECIPE) -> None:
        """Draw documents and queries.

        Raises:
            MissingDependencyError: scikit-learn is not installed.
        """
        data = import_datasets().load_digits()
        order = np.random.RandomState(0).permutation(len(data.data))
        x, y = torch.from_numpy(data.data[order] / 16).float(), torch.from_numpy(data.target[order])
        queries = slice(DOCUMENTS, DOCUMENTS + QUERIES)
        table = TabularData(x=x[:DOCUMENTS], y=y[:DOCUMENTS], x_queries=x[queries], y_queries=y[queries])
        super().__init__(table, recipe, Classification, _cross_entropies, VectorConfig(dimension=1024, bits=4))
        self.labels: Ordinals = table.y.numpy().astype(np.int64)

    def suspicion(self, labels: Ordinals, seed: int) -> Mapping[str, Scores]:
        """Train with other labels; return self-influence [N] with two kinds of curvature, and plain losses."""
        found = self.trained(seed, torch.from_numpy(labels))
        with torch.no_grad():
            losses_N = torch.cat([found.task.losses(batch) for batch in found.documents])
        return {
            "self-influence, ekfac": found.self_influence("ekfac"),
            "self-influence, identity": found.self_influence("identity"),
            "loss": losses_N.double().numpy(),
        }


def _cross_entropies(outputs_KBO: Tensor, labels_KB: Tensor) -> Tensor:
    return F.cross_entropy(outputs_KBO.flatten(0, 1), labels_KB.flatten(), reduction="none").view(labels_KB.shape)
