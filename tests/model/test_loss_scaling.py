"""Gradients of models in float16: those of float32 to rounding, whatever overflows and whatever is in the batch."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from against_autograd import documents, gradients, load, relative_error
from families import FAMILIES
from observers import Gradients
from torch import Tensor, nn

from gindex.config import ModelConfig
from gindex.corpus.batches import pad
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.curvature.basis import DenseBasis
from gindex.curvature.fit import fit_covariances, fit_eigenvalues
from gindex.model.capture import observe
from gindex.model.checkpointing import checkpointed
from gindex.model.loss_scaling import FIRST, LAST, STEP
from gindex.model.observer import Observer
from gindex.model.tracked_model import TrackedModel
from gindex.model.tracking import track_layers
from gindex.vectors.influence import document_gradients
from tests.support.objectives import pad_tokens

TOLERANCE = 1e-2
"""Of a document's gradient in a layer, relative to the layer's largest. Weights and activations are rounded to 2^-11;
a few dozen roundings on the way there and back leave 1e-3 to 8e-3 in all families of the tests."""

WIDTH = 8


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("Llama 3", "everything"),
        ("GPT-2", "everything"),
        ("Gemma 2", "all-linear"),
        ("Mixtral", "all-linear"),
        ("GPT-OSS", "everything"),
        ("Mamba", "all-linear"),
    ],
)
def test_gradients_are_those_of_float32_to_rounding(name, layers, tmp_path, small_tokenizer):
    next(family for family in FAMILIES if family.name == name).model().save_pretrained(tmp_path)
    small_tokenizer.save_pretrained(tmp_path)
    narrow, plain = (
        TrackedModel.load(ModelConfig(name=str(tmp_path), device="cpu", dtype=dtype, layers=layers))
        for dtype in ("float16", "float32")
    )
    assert [layer.name for layer in narrow.table] == [layer.name for layer in plain.table]
    tokens = documents(plain.task.vocabulary)
    assert relative_error(gradients(narrow, tokens), gradients(plain, tokens)) < TOLERANCE


class Steep(nn.Module):
    """A head that multiplies by a number of its own for each document: its inputs have gradients of any size."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
        self.head = nn.Linear(WIDTH, 1)
        self.to(dtype)

    def forward(self, x_NTX: Tensor, size_N: Tensor | float = 1.0) -> Tensor:
        hidden = self.body[1](self.body[0](x_NTX))
        size_N11 = torch.as_tensor(size_N).to(x_NTX).reshape(-1, 1, 1)
        return self.head(self.body[2:](hidden * size_N11) * size_N11)


class Steps:
    """A steep model in float16 with its layers, and the same in float64 with the same weights."""

    def __init__(self) -> None:
        self.narrow = Steep(torch.float16)
        self.wide = copy.deepcopy(self.narrow).double()
        generator = torch.Generator().manual_seed(1)
        self.x_NTX = torch.randn(4, 3, WIDTH, generator=generator).half()
        self.layers = track_layers(self.narrow, lambda n: self.narrow(self.x_NTX[:1].expand(n, -1, -1).clone())).layers

    def losses(self, size_N: Tensor, weights_N: Tensor) -> Tensor:
        return self.narrow(self.x_NTX, size_N).float().sum((1, 2)) * weights_N

    def expected(self, size_N: Tensor, weights_N: Tensor) -> dict[str, Tensor]:
        """Gradients [N, O, I] by autograd, one document at a time."""
        found: dict[str, list[Tensor]] = {layer.name: [] for layer in self.layers}
        for x_TX, size, weight in zip(self.x_NTX.double(), size_N.double(), weights_N.double(), strict=True):
            self.wide.zero_grad()
            (self.wide.requires_grad_(True)(x_TX[None], size).sum() * weight).backward()
            for layer in self.layers:
                module = self.wide.get_submodule(layer.name)
                found[layer.name].append(torch.cat([module.weight.grad, module.bias.grad[:, None]], 1))
        return {name: torch.stack(parts) for name, parts in found.items()}


class Shown(Gradients):
    """Counts how often each layer is shown, and sees that nothing is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[str, int] = {}
        self.passes = 0

    def activations(self, layer, a_NTI):
        return super().activations(layer, a_NTI.float())

    def losses(self, losses_N):
        self.passes += 1

    def gradients(self, layer, kept, g_NTO):
        assert g_NTO.dtype == torch.float32
        self.times[layer.name] = self.times.get(layer.name, 0) + 1
        super().gradients(layer, kept, g_NTO)


@pytest.fixture(scope="module")
def steps() -> Steps:
    return Steps()


def shown(steps: Steps, size_N: Tensor, weights_N: Tensor) -> Shown:
    observer = Shown()
    observe(steps.layers, observer, 4, lambda: steps.losses(size_N, weights_N))
    assert observer.times == {layer.name: 1 for layer in steps.layers}
    return observer


ONES = torch.ones(4)


@pytest.mark.parametrize("exponent", [-60, -20, -3, 0, 8, 16, 24])
def test_losses_of_any_size_have_gradients_to_rounding(steps, exponent):
    """Plain float16 would make 2^-20 of them zero, and 2^16 infinite."""
    weights_N = torch.tensor([1.0, 2.0**exponent, -(2.0**exponent), 0.5])
    found, expected = shown(steps, ONES, weights_N).found, steps.expected(ONES, weights_N)
    for name, expected_NOI in expected.items():
        error_N = (found[name] - expected_NOI).flatten(1).norm(dim=1) / expected_NOI.flatten(1).norm(dim=1)
        assert (error_N < 3e-3).all(), name


def test_a_power_of_two_on_a_loss_is_one_on_its_gradient_to_the_bit(steps):
    one = shown(steps, ONES, ONES).found
    for exponent in (-60, -7, 20):  # the last overflows, and comes in passes of a smaller scale
        other = shown(steps, ONES, ONES * 2.0**exponent).found
        for name in one:
            assert torch.equal(other[name], one[name] * 2.0**exponent)


def test_an_overflow_on_the_way_changes_no_other_document(steps):
    size_N = torch.tensor([1.0, 1.0, 3000.0, 1.0])
    calm, mixed = shown(steps, ONES, ONES), shown(steps, size_N, ONES * torch.tensor([1.0, 1.0, 40.0, 1.0]))
    assert calm.passes == 1 and mixed.passes > 1
    for name, of in mixed.found.items():
        assert of.isfinite().all()
        assert torch.equal(of[[0, 1, 3]], calm.found[name][[0, 1, 3]])


def test_layers_in_front_of_an_overflow_are_taken_before_the_pass_is_run_again(steps):
    """The last layers' gradients are small: they keep the digits of the first scale."""
    seen: list[str] = []

    class Order(Observer):
        def activations(self, layer, a_NTI):
            return None

        def losses(self, losses_N):
            seen.append("pass")

        def gradients(self, layer, kept, g_NTO):
            seen.append(layer.name)

    size_N = torch.tensor([1.0, 1.0, 3000.0, 1.0])
    observe(steps.layers, Order(), 4, lambda: steps.losses(size_N, torch.tensor([1.0, 1.0, 40.0, 1.0])))
    assert seen[:2] == ["pass", "head"] and seen[-1] == "body.0" and seen.count("pass") > 1


def test_what_no_scale_holds_is_not_finite_and_stays_with_its_document(steps):
    weights_N = torch.tensor([1.0, 2.0 ** (17 - LAST), 1.0, torch.inf])
    found, expected = Gradients32(), steps.expected(ONES, torch.ones(4))
    observe(steps.layers, found, 4, lambda: steps.losses(ONES, weights_N))
    for name, G_NOI in found.found.items():
        assert not G_NOI[1].isfinite().all() and not G_NOI[3].isfinite().all()
        torch.testing.assert_close(G_NOI[[0, 2]].double(), expected[name][[0, 2]], rtol=1e-2, atol=1e-3)


class Gradients32(Gradients):
    def activations(self, layer, a_NTI):
        return super().activations(layer, a_NTI.float())


def test_the_ladder_covers_what_float32_losses_may_need():
    assert (FIRST - LAST) % STEP == 0 and FIRST > LAST


@pytest.fixture(scope="module")
def engine(model_folder) -> TrackedModel:
    return TrackedModel.load(ModelConfig(name=str(model_folder), dtype="float16", device="cpu"))


BATCH = pad_tokens([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5], [8, 9]], [0, 1, 2], [1, 1, 1])


def test_checkpointed_blocks_have_the_same_gradients_to_the_bit(engine):
    layers = engine.table.layers
    for scale in (1.0, 2.0**21):  # without and with an overflow
        losses = lambda scale=scale: engine.task.losses(BATCH) * scale  # noqa: E731
        plain, _ = document_gradients(layers, 3, losses)
        with checkpointed(engine.blocks):
            again, _ = document_gradients(layers, 3, losses)
        assert torch.equal(plain, again) and plain.any() and plain.isfinite().all()


def test_a_document_in_a_batch_is_as_it_is_alone(engine, model_folder):
    tokens = documents(engine.task.vocabulary)
    alone = [gradients(engine, [part])[0] for part in tokens]
    assert relative_error(gradients(engine, tokens), alone) < 2e-3  # float16 sums, in another order


def test_weights_of_tokens_far_below_float16_keep_their_gradients(engine, model_folder):
    """1e-12 of a loss: without a scale its gradients would all be zero, silently."""
    plain = load(model_folder)
    weights = np.array([0, 1e-12, 1e-12, 1e-12], np.float32)
    batch = pad([Objective((WeightedTokens(ids[:4], weights),)) for ids in BATCH.tokens[:2]], [0, 1])
    found, expected = (
        document_gradients(of.table.layers, 2, partial(of.task.losses, batch))[0] for of in (engine, plain)
    )
    assert found.any(1).all()
    assert ((found - expected).norm(dim=1) < TOLERANCE * expected.norm(dim=1)).all()


def test_fits_are_those_of_float32_to_rounding_also_where_documents_overflow(engine, model_folder):
    """The labels are drawn from float16's own probabilities: the sums agree to the labels that fall otherwise."""
    plain = load(model_folder)

    class Large:
        """Losses of 2^20 times as many nats: the first scale overflows."""

        def __init__(self, task, scale):
            self.task, self.scale = task, scale

        def sampled_losses(self, batch, seeds):
            return self.task.sampled_losses(batch, seeds) * self.scale

    found = {}
    for key, of, scale in (("wide", plain, 1.0), ("narrow", engine, 1.0), ("overflow", engine, 2.0**20)):
        task, layers = Large(of.task, scale), of.table.layers
        moments = fit_covariances(layers, task, [BATCH], seed=3)
        bases = (
            {name: DenseBasis(torch.eye(m.side.width)) for name, m in moments.activation_moments.items()},
            {name: DenseBasis(torch.eye(m.side.width)) for name, m in moments.gradient_moments.items()},
        )
        Lambda = fit_eigenvalues(layers, task, [BATCH], bases, seed=3)
        found[key] = (
            {name: m.mean() for name, m in moments.activation_moments.items()},
            {name: m.mean() / scale**2 for name, m in moments.gradient_moments.items()},
            {name: of / scale**2 for name, of in Lambda.items()},
        )
    for wide, narrow, overflow in zip(found["wide"], found["narrow"], found["overflow"], strict=True):
        for name in wide:
            assert (narrow[name] - wide[name]).norm() < 2 * TOLERANCE * wide[name].norm(), name
            torch.testing.assert_close(overflow[name], narrow[name], rtol=1e-5, atol=0)
