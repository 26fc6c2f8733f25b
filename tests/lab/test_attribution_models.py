"""Influence in memory through everything that models of pictures and sequences have, against autograd, in float64."""

import pytest
import torch
from torch import Tensor, nn
from transformers import ConvNextConfig, ConvNextForImageClassification

from gindex.config import VectorConfig
from gindex.lab.attribution import Attribution, tracked_layers
from gindex.model.tensor_batches import TensorBatch, tensor_batches
from gindex.model.tensor_tasks import Classification, TensorTask

WIDE = torch.float64
DOCUMENTS, QUERIES, CLASSES = 7, 2, 3


def convnext() -> tuple[nn.Module, tuple[int, ...]]:
    """Depthwise convolutions, norms over channels, a scale for each channel."""
    config = ConvNextConfig(
        hidden_sizes=[4, 6], depths=[1, 1], num_stages=2, patch_size=2, layer_scale_init_value=0.5, num_labels=CLASSES,
    )  # fmt: skip
    return ConvNextForImageClassification(config), (3, 8, 8)


class VisionTransformer(nn.Module):
    """Patches, a class token, positions, and torch's own encoder layers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 6, 2, stride=2)
        self.start, self.positions = nn.Parameter(torch.zeros(1, 1, 6)), nn.Parameter(torch.zeros(1, 5, 6))
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True) for _ in range(2))
        self.last = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.start.expand(len(x), -1, -1), x], 1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.last(x[:, 0])


class Sequences(nn.Module):
    """An LSTM over what a convolution reads, and a cell that runs over its states."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.lstm = nn.Conv1d(2, 4, 3, padding=1), nn.LSTM(4, 3, bidirectional=True, batch_first=True)
        self.cell, self.last = nn.GRUCell(6, 4), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states, state = self.lstm(self.read(x).mT)[0], x.new_zeros(len(x), 4)
        for t in range(states.shape[1]):
            state = self.cell(states[:, t], state)
        return self.last(state)


def grouped() -> tuple[nn.Module, tuple[int, ...]]:
    """Convolutions in groups with batch norms, as in ResNeXt, whose statistics are fixed."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.Conv2d(4, 8, 2, groups=2, bias=False), nn.GroupNorm(2, 8), nn.GELU(),
        nn.Flatten(), nn.Linear(8, CLASSES),
    ), (1, 3, 3)  # fmt: skip


MODELS = {
    "ConvNeXt": convnext,
    "ViT": lambda: (VisionTransformer(), (1, 4, 4)),
    "LSTM": lambda: (Sequences(), (2, 5)),
    "ResNeXt": grouped,
}


def gradients(task: TensorTask, batches: list[TensorBatch]) -> Tensor:
    """One backward pass a document: [N, W] over all parameters of the model."""
    found = []
    for batch in batches:
        for n in range(len(batch.labels)):
            one = TensorBatch(
                inputs=batch.inputs[n : n + 1], labels=batch.labels[n : n + 1], ordinals=batch.ordinals[n : n + 1]
            )
            parts = torch.autograd.grad(task.losses(one).sum(), list(task.model.parameters()))
            found.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(found)


@pytest.mark.parametrize("kind", MODELS)
def test_influence_through_everything_is_that_of_autograd(kind):
    """With no curvature influence is the product of gradients of all parameters, in batches of any size."""
    torch.manual_seed(0)
    model, shape = MODELS[kind]()
    with torch.no_grad():
        for parameter in model.to(WIDE).parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    task, x = Classification(model), torch.randn(DOCUMENTS + QUERIES, *shape, dtype=WIDE)
    y = torch.randint(CLASSES, (len(x),))
    queries = tensor_batches(x[DOCUMENTS:], y[DOCUMENTS:])
    documents, single = (tensor_batches(x[:DOCUMENTS], y[:DOCUMENTS], size) for size in (4, 1))
    table = tracked_layers(task, documents, layers="everything")
    assert table.share == 1 and not table.untracked
    attribution = Attribution.fit(task, table, documents, "identity")
    task.model.requires_grad_(True)
    expected = gradients(task, queries) @ gradients(task, documents).T
    task.model.requires_grad_(False)
    torch.testing.assert_close(attribution.influence(queries, documents), expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(attribution.influence(queries, single), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kind", MODELS)
def test_the_mean_of_vectors_scores_is_exact_influence(kind):
    """EK-FAC and a projection into enough dimensions: a score is off by the projection's noise alone."""
    torch.manual_seed(0)
    model, shape = MODELS[kind]()
    task, x = Classification(model.to(WIDE)), torch.randn(DOCUMENTS + QUERIES, *shape, dtype=WIDE)
    documents = tensor_batches(x, torch.randint(CLASSES, (len(x),)), 4)
    table = tracked_layers(task, documents, layers="everything")
    attribution = Attribution.fit(task, table, documents)
    path = attribution.vector_path(VectorConfig(dimension=1 << 15), 0.1)
    found = attribution.vectors(path, documents)
    exact = attribution.influence(documents, documents, 0.1)
    correlation = torch.corrcoef(torch.stack([(found.vectors @ found.vectors.T).flatten(), exact.flatten().float()]))
    assert correlation[0, 1] > 0.98
    torch.testing.assert_close(found.self_influence.to(WIDE), exact.diagonal(), rtol=1e-5, atol=1e-6)
