"""The training function `tabular`: regression of a table by a perceptron with three hidden layers of 128.

Recipe and split are those that kronfluence measures on UCI Concrete with (SGD, learning rate .03, weight decay 1e-5,
mini-batches of 32, 40 epochs, a tenth held out by `RandomState(0)`), on the diabetes data that scikit-learn bundles:
442 patients, 10 features.
"""

import numpy as np
import torch
from torch import Tensor

from gindex.config import VectorConfig
from gindex.lab.evaluations.perceptrons import PerceptronRecipe
from gindex.lab.evaluations.tensor_training import TabularData, TensorTraining, import_datasets
from gindex.model.tasks import Regression

RECIPE = PerceptronRecipe(widths=(10, 128, 128, 128, 1), epochs=40, batch=32, learning_rate=0.03, weight_decay=1e-5)


class Tabular(TensorTraining):
    """Trains on the diabetes data; features and values are standardised by the training part."""

    def __init__(self, recipe: PerceptronRecipe = RECIPE) -> None:
        """Split the table.

        Raises:
            MissingDependencyError: scikit-learn is not installed.
        """
        data = import_datasets().load_diabetes(scaled=False)
        order = np.random.RandomState(0).permutation(len(data.data))
        documents = int(0.9 * len(order))
        x, y = _standardised(data.data[order], documents), _standardised(data.target[order], documents)
        table = TabularData(x=x[:documents], y=y[:documents], x_queries=x[documents:], y_queries=y[documents:])
        super().__init__(table, recipe, Regression, _squared_errors, VectorConfig(dimension=4096, bits=4))


def _standardised(values: np.ndarray, documents: int) -> Tensor:
    mean, spread = values[:documents].mean(0), values[:documents].std(0)
    return torch.from_numpy((values - mean) / spread).float()


def _squared_errors(outputs_KB1: Tensor, values_KB: Tensor) -> Tensor:
    return (outputs_KB1[..., 0] - values_KB).square()
