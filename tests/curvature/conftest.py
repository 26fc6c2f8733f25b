"""Two models with tasks in float64: the small Llama on ragged documents, and a small classifier on points."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from probes import random_probe, token_probe
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from gindex.corpus.batches import TokenBatch
from gindex.curvature.basis import DenseBasis
from gindex.curvature.eigenvalues import EigenvalueObserver
from gindex.model.layers import TrackedLayer
from gindex.model.tracking import track_layers
from tests.support.objectives import pad_tokens


class LanguageTask:
    """Next-token prediction in float64 throughout; labels are drawn document by document."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.requires_grad_(False).eval()

    def losses(self, batch: TokenBatch) -> Tensor:
        return self._losses(batch, lambda _n, _log_p: torch.from_numpy(batch.tokens[_n, 1 : batch.lengths[_n]]))

    def sampled_losses(self, batch: TokenBatch, seeds: Sequence[int]) -> Tensor:
        def draw(n: int, log_p_TV: Tensor) -> Tensor:
            uniforms = torch.from_numpy(np.random.default_rng(seeds[n]).random(len(log_p_TV)))
            return torch.searchsorted(log_p_TV.exp().cumsum(1), uniforms[:, None]).clamp(max=log_p_TV.shape[1] - 1)[
                :, 0
            ]

        return self._losses(batch, draw)

    def _losses(self, batch: TokenBatch, labels: Callable[[int, Tensor], Tensor]) -> Tensor:
        log_p_NTV = self.model(torch.from_numpy(batch.tokens), use_cache=False).logits.log_softmax(-1)
        losses = []
        for n, length in enumerate(batch.lengths):
            log_p_TV = log_p_NTV[n, : length - 1]
            losses.append(-log_p_TV.gather(1, labels(n, log_p_TV.detach())[:, None]).sum())
        return torch.stack(losses)

    def batch(self, documents: Sequence[Sequence[int]], ordinals: Sequence[int]) -> TokenBatch:
        return pad_tokens([documents[n] for n in ordinals], ordinals, [1] * len(ordinals))


@dataclass(frozen=True)
class PointBatch:
    """Points with their classes, as documents of one token."""

    ordinals: np.ndarray
    inputs: Tensor
    labels: Tensor
    texts: int = 1

    @property
    def masks(self) -> tuple[np.ndarray]:
        return (np.ones((len(self.ordinals), 1), dtype=bool),)


class ClassifierTask:
    """Classification of points [N, I] in float64."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.requires_grad_(False).eval()

    def losses(self, batch: PointBatch) -> Tensor:
        return self._losses(batch.inputs, lambda _: batch.labels)

    def sampled_losses(self, batch: PointBatch, seeds: Sequence[int]) -> Tensor:
        uniforms = torch.tensor([np.random.default_rng(seed).random() for seed in seeds])
        return self._losses(
            batch.inputs, lambda log_p: torch.searchsorted(log_p.exp().cumsum(1), uniforms[:, None])[:, 0].clamp(max=3)
        )

    def _losses(self, inputs: Tensor, labels: Callable[[Tensor], Tensor]) -> Tensor:
        log_p_NV = self.model(inputs).log_softmax(-1)
        return -log_p_NV.gather(1, labels(log_p_NV.detach())[:, None])[:, 0]


@dataclass(frozen=True)
class Setting:
    """A model with its task, layers and documents, and batches of them."""

    task: Any
    layers: tuple[TrackedLayer, ...]
    count: int
    batch: Callable[[Sequence[int]], Any]

    def batches(self, size: int, order: Sequence[int] | None = None) -> list[Any]:
        """Cut the documents, in any order, into batches of a size."""
        ordinals = list(range(self.count) if order is None else order)
        return [self.batch(ordinals[start : start + size]) for start in range(0, len(ordinals), size)]


@pytest.fixture(scope="session")
def _small_llama(model_folder: Path) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(model_folder).double().eval()


@pytest.fixture
def llama(_small_llama: nn.Module) -> nn.Module:
    """The small Llama in float64, a copy of its own for each test."""
    return copy.deepcopy(_small_llama)


@pytest.fixture
def language(llama: nn.Module) -> Callable[..., Setting]:
    """Makes the setting of language documents of 1 to 15 random tokens."""

    def make(count: int = 7, longest: int = 15, model: nn.Module = llama) -> Setting:
        generator = np.random.default_rng(0)
        lengths = [int(n) for n in generator.integers(2, longest + 1, count)]
        lengths[1] = 1  # nothing to predict
        documents = [generator.integers(1, 250, length).tolist() for length in lengths]
        task = LanguageTask(model)
        table = track_layers(model, token_probe(model))
        return Setting(task, table.layers, count, lambda ordinals: task.batch(documents, ordinals))

    return make


@pytest.fixture
def classifier() -> Callable[..., Setting]:
    """Makes the setting of a classifier with three dense layers, the middle one without a bias."""

    def make(count: int = 40, hidden: int = 6) -> Setting:
        generator = torch.Generator().manual_seed(0)
        model = nn.Sequential(
            nn.Linear(5, hidden), nn.Tanh(), nn.Linear(hidden, hidden, bias=False), nn.Tanh(), nn.Linear(hidden, 4)
        ).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.7)
        # Correlated inputs of unequal sizes, so that the eigenbases matter.
        mix = torch.randn(5, 5, generator=generator, dtype=torch.float64)
        inputs = torch.randn(count, 5, generator=generator, dtype=torch.float64) @ mix
        labels = torch.randint(4, (count,), generator=generator)
        layers = track_layers(model, random_probe(model, 5, dtype=torch.float64)).layers

        def batch(ordinals: Sequence[int]) -> PointBatch:
            return PointBatch(np.asarray(ordinals, dtype=np.int64), inputs[ordinals], labels[ordinals])

        return Setting(ClassifierTask(model), layers, count, batch)

    return make


@pytest.fixture
def gradients_of() -> Callable[..., dict[str, Tensor]]:
    """Differentiates losses by every tracked layer: [N, O, I], bias last, one backward per document and layer."""

    def differentiate(setting: Setting, losses: Callable[[Any], Tensor]) -> dict[str, Tensor]:
        model = setting.task.model.requires_grad_(True)
        gradients: dict[str, list[Tensor]] = {layer.name: [] for layer in setting.layers}
        for n in range(setting.count):
            (loss,) = losses(setting.batch([n]))
            for layer in setting.layers:
                parameters = [layer.module.weight] + ([layer.module.bias] if layer.has_bias else [])
                weight, *bias = torch.autograd.grad(loss, parameters, retain_graph=True)
                gradients[layer.name].append(torch.cat([weight, *[b[:, None] for b in bias]], 1))
        model.requires_grad_(False)
        return {name: torch.stack(parts) for name, parts in gradients.items()}

    return differentiate


@pytest.fixture
def random_basis() -> Callable[..., Tensor]:
    """Makes random orthonormal matrices in float64."""

    def make(size: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q

    return make


@pytest.fixture
def correct_eigenvalues() -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Lambda [O, I] of activations [N, T, I] and pseudo-gradients [N, T, O] in given bases, a sum over documents."""

    def correct(a_NTI: Tensor, s_NTO: Tensor, Q_A: Tensor, Q_S: Tensor) -> Tensor:
        layer = SimpleNamespace(name="layer", reads="layer", source="layer", factors="layer", has_bias=False)
        observer = EigenvalueObserver(
            activation_bases={"layer": DenseBasis(Q_A)}, gradient_bases={"layer": DenseBasis(Q_S)}
        )
        observer.begin()
        observer.losses(torch.zeros(len(a_NTI)))
        observer.gradients(layer, observer.activations(layer, a_NTI), s_NTO)
        return observer.sums["layer"]

    return correct
