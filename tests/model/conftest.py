"""The small Llama in float64, ragged documents, and document gradients by one plain backward pass a document."""

import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from gindex.corpus.batches import TokenBatch
from tests.support.objectives import pad_tokens


@pytest.fixture(scope="session")
def llama(model_folder: Path) -> nn.Module:
    """The small Llama in float64."""
    return AutoModelForCausalLM.from_pretrained(model_folder).double().eval()


@pytest.fixture
def folder(tmp_path, model_folder) -> Path:
    """A copy of the small model's folder, to be changed."""
    return shutil.copytree(model_folder, tmp_path / "model")


@pytest.fixture
def documents() -> list[list[int]]:
    """Documents of different lengths, one of them a single token."""
    generator = np.random.default_rng(0)
    return [generator.integers(1, 250, length).tolist() for length in (7, 1, 12, 4)]


@pytest.fixture
def batch_of() -> Callable[..., TokenBatch]:
    """Pads token lists into a batch in which everything after the first token is a target."""

    def make(token_lists: Sequence[Sequence[int]], ordinals: Sequence[int] | None = None) -> TokenBatch:
        return pad_tokens(token_lists, ordinals or list(range(len(token_lists))), [1] * len(token_lists))

    return make


def summed_loss(model: nn.Module, tokens: Sequence[int]) -> Tensor:
    """Sum the token losses of one unpadded document in the model's own number format."""
    log_probabilities = model(torch.tensor([tokens]), use_cache=False).logits[0].log_softmax(-1)
    loss = log_probabilities.new_zeros(()) + 0 * log_probabilities.sum()
    for position in range(1, len(tokens)):
        loss = loss - log_probabilities[position - 1, tokens[position]]
    return loss


def weight_gradient(module: nn.Module, loss: Tensor) -> Tensor:
    """Differentiate a loss by one layer: [O, I], with the bias as the last column."""
    parameters = [module.weight] + ([module.bias] if module.bias is not None else [])
    weight, *bias = torch.autograd.grad(loss, parameters, retain_graph=True)
    weight = weight.T if isinstance(module, Conv1D) else weight
    return torch.cat([weight, *[b[:, None] for b in bias]], dim=1)


@pytest.fixture
def reference_gradients() -> Callable[..., dict[str, Tensor]]:
    """Document gradients [N, O, I] by layer name, from one backward pass a document and layer."""

    def differentiate(model: nn.Module, names: Sequence[str], token_lists: Sequence[Sequence[int]]):
        model = copy.deepcopy(model).requires_grad_(True)
        losses = [summed_loss(model, tokens) for tokens in token_lists]
        return {name: torch.stack([weight_gradient(model.get_submodule(name), x) for x in losses]) for name in names}

    return differentiate
