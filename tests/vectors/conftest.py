"""The small Llama in float64, random factors, and document gradients by one plain backward pass a document."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from probes import token_probe
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from gindex.corpus.batches import TokenBatch
from gindex.curvature.basis import DenseBasis
from gindex.curvature.ekfac import LayerFactors
from gindex.model.layers import TrackedLayer
from gindex.model.tracking import track_layers
from tests.support.objectives import pad_tokens


@dataclass(frozen=True)
class Setting:
    """A language model with its tracked layers, documents, and untruncated factors in float64."""

    model: nn.Module
    layers: tuple[TrackedLayer, ...]
    documents: list[list[int]]
    factors: dict[str, LayerFactors]

    def batch(self, ordinals: Sequence[int]) -> TokenBatch:
        return pad_tokens([self.documents[n] for n in ordinals], list(ordinals), [1] * len(ordinals))

    def losses(self, ordinals: Sequence[int]) -> Tensor:
        """Return the summed losses [N] in float64, from one padded pass."""
        batch = self.batch(ordinals)
        log_p = self.model(torch.from_numpy(batch.tokens), use_cache=False).logits.log_softmax(-1)
        picked = log_p[:, :-1].gather(2, torch.from_numpy(batch.tokens[:, 1:])[..., None])[..., 0]
        return -(picked * torch.from_numpy(batch.targets[:, 1:])).sum(1)

    def whitened(self, damping_scale: float) -> dict[str, Tensor]:
        """Return V [N, O, I] of every layer: one unpadded backward pass a document, then the definition."""
        model = copy.deepcopy(self.model).requires_grad_(True)
        result: dict[str, list[Tensor]] = {layer.name: [] for layer in self.layers}
        for tokens in self.documents:
            log_p = model(torch.tensor([tokens]), use_cache=False).logits[0].log_softmax(-1)
            loss = -sum((log_p[t - 1, tokens[t]] for t in range(1, len(tokens))), start=0 * log_p.sum())
            for layer in self.layers:
                module = model.get_submodule(layer.name)
                parameters = [module.weight] + ([module.bias] if layer.has_bias else [])
                weight, *bias = torch.autograd.grad(loss, parameters, retain_graph=True)
                G = torch.cat([weight, *[b[:, None] for b in bias]], 1)
                f = self.factors[layer.name]
                damping = damping_scale * f.Lambda.mean()
                result[layer.name].append((f.Q_S.matrix().T @ G @ f.Q_A.matrix()) / (f.Lambda + damping).sqrt())
        return {name: torch.stack(parts) for name, parts in result.items()}


@pytest.fixture(scope="session")
def setting(model_folder: Path) -> Setting:
    """Eight documents of 1 to 14 tokens; bases are random, and Lambda is spread over decades."""
    model = AutoModelForCausalLM.from_pretrained(model_folder).double().eval()
    layers = track_layers(model, token_probe(model)).layers
    numbers = np.random.default_rng(0)
    lengths = [9, 1, 14, 2, 6, 11, 5, 13]
    documents = [numbers.integers(1, 250, length).tolist() for length in lengths]
    generator = torch.Generator().manual_seed(0)

    def basis(size: int) -> DenseBasis:
        return DenseBasis(torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q)

    shared = {layer.source: basis(layer.inputs) for layer in layers if layer.source == layer.name}
    factors = {}
    for layer in layers:
        Lambda = 10 ** (-4 * torch.rand(layer.outputs, layer.inputs, generator=generator, dtype=torch.float64))
        factors[layer.name] = LayerFactors(
            Q_A=shared[layer.source], Q_S=basis(layer.outputs), Lambda=Lambda, mean_eigenvalue=float(Lambda.mean())
        )
    return Setting(model, layers, documents, factors)


@pytest.fixture(scope="session")
def truncate() -> Callable[..., dict[str, LayerFactors]]:
    """Cuts factors to a share of each side."""

    def cut(factors: dict[str, LayerFactors], share: float) -> dict[str, LayerFactors]:
        result = {}
        for name, f in factors.items():
            rows, columns = (max(1, int(share * size)) for size in f.Lambda.shape)
            result[name] = LayerFactors(
                Q_A=f.Q_A.leading(columns),
                Q_S=f.Q_S.leading(rows),
                Lambda=f.Lambda[:rows, :columns],
                mean_eigenvalue=f.mean_eigenvalue,
            )
        return result

    return cut
