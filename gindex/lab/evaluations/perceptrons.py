"""Multilayer perceptrons, many trained at once by batched products, for the built-in training functions.

Each of the K models has its own weights, documents and order of documents; one step of all is a few batched products.

Axes: K models, N documents, B documents of a mini-batch, I inputs, O outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from gindex.errors import TrainingError
from gindex.lab.evaluations.training import Ordinals


@dataclass(frozen=True, kw_only=True)
class PerceptronRecipe:
    """How perceptrons are trained: by plain stochastic gradient descent.

    Attributes:
        widths: Inputs, hidden layers, outputs.
        epochs: Passes over the documents.
        batch: Documents of a mini-batch; the last one of an epoch may be smaller.
        learning_rate: Step size.
        weight_decay: Added to the gradient, times the weight.
        momentum: Share of the last step that is kept.
    """

    widths: tuple[int, ...]
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    momentum: float = 0.0


def perceptron(widths: Sequence[int], seed: int) -> nn.Sequential:
    """Make a perceptron with ReLU between its layers, initialised as torch does it, by the seed alone."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train_perceptrons(
    recipe: PerceptronRecipe,
    x_NI: Tensor,
    labels: Sequence[Tensor],
    losses: Callable[[Tensor, Tensor], Tensor],
    subsets: Sequence[Ordinals],
    seeds: Sequence[int],
) -> list[nn.Sequential]:
    """Train one perceptron on each subset.

    Args:
        recipe: Architecture and optimiser.
        x_NI: Features of all documents [N, I].
        labels: The labels of all documents for each of K models.
        losses: From outputs [K, B, O] and labels [K, B, ...] to losses [K, B].
        subsets: Documents of each of K models; all as many.
        seeds: Seed of the weights and of the order, for each.

    Raises:
        TrainingError: The subsets differ in size.
    """
    sizes = {len(subset) for subset in subsets}
    if len(sizes) != 1:
        raise TrainingError(field="perceptrons", expected="subsets of one size to train together", found=sorted(sizes))
    models = [perceptron(recipe.widths, seed) for seed in seeds]
    parameters = [
        torch.stack([p.detach() for p in of_all]).requires_grad_()
        for of_all in zip(*(model.parameters() for model in models), strict=True)
    ]
    optimiser = torch.optim.SGD(
        parameters, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    x_KNI, y_KN = _gather(x_NI, subsets), torch.stack([y[s] for y, s in zip(labels, subsets, strict=True)])
    models_K1 = torch.arange(len(models), device="cpu")[:, None]
    orders = [np.random.default_rng((seed, 1)) for seed in seeds]
    for _ in range(recipe.epochs):
        order_KN = torch.from_numpy(np.stack([generator.permutation(x_KNI.shape[1]) for generator in orders]))
        for batch_KB in order_KN.split(recipe.batch, 1):
            outputs_KBO = _forward(parameters, x_KNI[models_K1, batch_KB])
            loss = losses(outputs_KBO, y_KN[models_K1, batch_KB]).mean(1).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for number, model in enumerate(models):
        for own, of_all in zip(model.parameters(), parameters, strict=True):
            own.data = of_all[number].detach().clone()
    return models


def by_size(subsets: Sequence[Ordinals]) -> list[list[int]]:
    """The positions of subsets that are equally large, group by group."""
    groups: dict[int, list[int]] = {}
    for position, subset in enumerate(subsets):
        groups.setdefault(len(subset), []).append(position)
    return list(groups.values())


def _gather(x_NI: Tensor, subsets: Sequence[Ordinals]) -> Tensor:
    return torch.stack([x_NI[torch.from_numpy(subset)] for subset in subsets])


def _forward(parameters: Sequence[Tensor], x_KBI: Tensor) -> Tensor:
    """Outputs [K, B, O]; parameters are weights [K, O, I] and biases [K, O] in turn."""
    layers = list(zip(parameters[::2], parameters[1::2], strict=True))
    for number, (weight_KOI, bias_KO) in enumerate(layers):
        x_KBI = torch.baddbmm(bias_KO[:, None], x_KBI, weight_KOI.mT)
        if number < len(layers) - 1:
            x_KBI = x_KBI.relu()
    return x_KBI
