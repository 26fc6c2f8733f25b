"""The built-in training functions, made short."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gindex.lab.evaluations.config import LdsConfig
from gindex.lab.evaluations.digits import RECIPE, Digits
from gindex.lab.evaluations.lds import evaluate_lds
from gindex.lab.evaluations.perceptrons import PerceptronRecipe, perceptron, train_perceptrons
from gindex.lab.evaluations.tabular import Tabular
from gindex.lab.evaluations.training import Experiment, OffersMethods, Relabels, TrainsMany
from gindex.lab.evaluations.work_folder import WorkFolder
from gindex.progress import Silent


def test_many_trainings_are_each_what_torch_makes_of_it():
    """Reference: one model, torch's SGD, the same order of documents."""
    recipe = PerceptronRecipe(widths=(3, 5, 2), epochs=3, batch=4, learning_rate=0.1, weight_decay=0.01, momentum=0.9)
    x, y = torch.randn(20, 3), torch.randint(2, (20,))

    def losses(outputs, labels):
        found = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
        return found.view(labels.shape)

    subsets, seeds = [np.arange(0, 10), np.arange(5, 15), np.arange(5, 15)], [1, 1, 2]
    models = train_perceptrons(recipe, x, [y] * 3, losses, subsets, seeds)
    for model, subset, seed in zip(models, subsets, seeds, strict=True):
        expected, order = perceptron(recipe.widths, seed), np.random.default_rng((seed, 1))
        optimiser = torch.optim.SGD(expected.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        for _ in range(3):
            for some in np.array_split(order.permutation(10), [4, 8]):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(expected(x[subset[some]]), y[subset[some]]).backward()
                optimiser.step()
        for got, wanted in zip(model.parameters(), expected.parameters(), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)  # float32, 9 steps


@pytest.mark.parametrize(("made", "documents", "queries"), [(Digits, 1000, 100), (Tabular, 397, 45)])
def test_training_together_changes_nothing(made, documents, queries):
    function = made()
    function.recipe = replace(function.recipe, epochs=1)
    assert isinstance(function, TrainsMany) and isinstance(function, OffersMethods)
    assert isinstance(function, Relabels) == (made is Digits) and function.documents == documents
    subsets = [np.arange(100), np.arange(50), np.arange(50, 150)]
    together = function.many(subsets, [0, 1, 2])
    assert together.shape == (3, queries)
    for subset, seed, losses in zip(subsets, [0, 1, 2], together, strict=True):
        np.testing.assert_allclose(function(subset, seed), losses, rtol=1e-4, atol=1e-5)  # float32, by one epoch


@pytest.fixture(scope="module")
def digits() -> Digits:
    """Trained for a few epochs only."""
    return Digits(replace(RECIPE, epochs=8))


def test_influence_predicts_retraining_on_digits(digits, tmp_path):
    """EK-FAC above raw gradients, both above chance: with 24 subsets and one training each."""
    kept = WorkFolder(Experiment(name="digits", source="", function=digits, documents=1000), tmp_path)
    methods = {name: digits.methods()[name] for name in ("ekfac", "identity", "index-1024x4", "trak-like-1024")}
    found = evaluate_lds(kept, methods, LdsConfig(subsets=24, repeats=1), Silent()).methods
    assert found["ekfac"].lds.low > 0
    assert found["ekfac"].lds.mean > found["identity"].lds.mean
    assert found["index-1024x4"].lds.mean > 0 and found["trak-like-1024"].lds.mean > 0


def test_self_influence_finds_changed_labels(digits):
    labels = digits.labels.copy()
    labels[:100] = (labels[:100] + 1) % 10
    for name, values in digits.suspicion(labels, 0).items():
        assert np.mean(values[:100]) > 2 * np.mean(values[100:]), name
