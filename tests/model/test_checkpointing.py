"""Passes over checkpointed blocks show observers what plain ones do, and keep less."""

import copy

import pytest
import torch
from probes import random_probe
from torch import Tensor, nn

from gindex.config import ModelConfig
from gindex.curvature.basis import DenseBasis
from gindex.curvature.fit import fit_covariances, fit_eigenvalues
from gindex.model.capture import observe
from gindex.model.checkpointing import checkpointed, is_checkpointed
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer
from gindex.model.tracked_model import TrackedModel
from gindex.model.tracking import track_layers
from gindex.vectors.influence import document_gradients
from tests.support.objectives import pad_tokens

BATCH = pad_tokens([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5], [8, 9]], [0, 1, 2], [1, 1, 1])


@pytest.fixture(scope="module")
def engine(model_folder) -> TrackedModel:
    return TrackedModel.load(ModelConfig(name=str(model_folder), dtype="float32", device="cpu"))


class Order(Observer):
    """Keeps the order of calls, and whether activations come before their layer's gradients."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> str:
        self.calls.append(("activations", layer.name))
        return layer.name

    def losses(self, losses_N: Tensor) -> None:
        self.calls.append(("losses", ""))

    def gradients(self, layer: TrackedLayer, kept: str, g_NTO: Tensor) -> None:
        assert kept == layer.name
        self.calls.append(("gradients", layer.name))


def test_blocks_are_the_layer_groups(engine):
    assert [type(block).__name__ for block in engine.blocks] == ["LlamaDecoderLayer"] * len(engine.table.groups)


def test_gradients_and_losses_are_the_same_to_the_bit(engine):
    layers = engine.table.layers
    plain, _ = document_gradients(layers, 3, lambda: engine.task.losses(BATCH))
    with checkpointed(engine.blocks):
        again, _ = document_gradients(layers, 3, lambda: engine.task.losses(BATCH))
    assert torch.equal(plain, again) and plain.any()


def test_fits_are_the_same_to_the_bit(engine):
    layers, task = engine.table.layers, engine.task

    def fit() -> list[Tensor]:
        moments = fit_covariances(layers, task, [BATCH, BATCH], 0)
        bases = (
            {name: DenseBasis(torch.linalg.qr(m.mean() + 1e-3).Q) for name, m in moments.activation_moments.items()},
            {name: DenseBasis(torch.linalg.qr(m.mean() + 1e-3).Q) for name, m in moments.gradient_moments.items()},
        )
        Lambda = fit_eigenvalues(layers, task, [BATCH, BATCH], bases, 0)
        return [m.totals[0] for m in moments.activation_moments.values()] + list(Lambda.values())

    plain = fit()
    with checkpointed(engine.blocks):
        again = fit()
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_activations_come_with_their_gradients_and_once(engine):
    order = Order()
    with checkpointed(engine.blocks):
        observe(engine.table.layers, order, 3, lambda: engine.task.losses(BATCH))
    assert order.calls[0] == ("losses", "")
    pairs = list(zip(order.calls[1::2], order.calls[2::2], strict=True))
    assert all(first == ("activations", second[1]) and second[0] == "gradients" for first, second in pairs)
    assert sorted(second[1] for _, second in pairs) == sorted(layer.name for layer in engine.table.layers)


def test_less_is_kept(engine):
    def kept() -> int:
        seen = {}

        def keep(x: Tensor) -> Tensor:
            seen[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            observe(engine.table.layers, Order(), 3, lambda: engine.task.losses(BATCH))
        return sum(seen.values())

    plain = kept()
    with checkpointed(engine.blocks):
        assert kept() < plain / 2


def test_afterwards_everything_is_as_before(engine):
    forwards = [block.forward for block in engine.blocks]
    own = copy.deepcopy(engine.blocks[0])
    own.forward = own.forward  # as some libraries put one on a module itself
    before = own.forward
    with pytest.raises(RuntimeError, match="stop"), checkpointed([*engine.blocks, own]):
        assert all(block.forward != plain for block, plain in zip(engine.blocks, forwards, strict=True))
        raise RuntimeError("stop")
    assert all("forward" not in vars(block) for block in engine.blocks)
    assert own.forward is before and not is_checkpointed()


def test_a_block_that_works_in_place_and_a_layer_outside():
    torch.manual_seed(0)
    block = nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 5))
    model = nn.Sequential(block, nn.Tanh(), nn.Linear(5, 2)).double()
    layers = track_layers(model, random_probe(model, 5, dtype=torch.float64)).layers
    x = torch.randn(4, 5, dtype=torch.float64)
    plain, _ = document_gradients(layers, 4, lambda: model(x).square().sum(1))
    with checkpointed([block]):
        again, _ = document_gradients(layers, 4, lambda: model(x).square().sum(1))
    assert torch.equal(plain, again)
