"""Gauss-Newton products against Jacobians that autograd gives row by row, in float64."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from probes import random_probe, token_probe
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import LlamaConfig, LlamaForCausalLM

from gindex.errors import ConfigError, ModelError, NonFiniteError
from gindex.lab.refine.gauss_newton import DENSE_WEIGHTS, GaussNewton, dense_matrix
from gindex.lab.refine.tangents import outputs_and_tangent, tangent_by_reverse
from gindex.model.capture import by_module
from gindex.model.layer_choice import LayerChoice
from gindex.model.layers import TrackedLayer
from gindex.model.losses import CausalLanguageModel
from gindex.model.tensor_batches import TensorBatch, tensor_batches
from gindex.model.tensor_tasks import Classification, Regression
from gindex.model.tracking import track_layers
from gindex.vectors.influence import document_gradients
from tests.support.objectives import pad_tokens

WIDE = torch.float64
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}
"""The norms of a Llama compute in float32, whatever the rest does; all else is float64."""

Made = tuple[object, Sequence[TrackedLayer], Callable[[int], list]]


def language(*, bias: bool = True) -> Made:
    """A Llama of width 4 on documents of 2 to 5 tokens; embeddings and head are one and not tracked."""
    config = LlamaConfig(
        vocab_size=7, hidden_size=4, intermediate_size=6, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, attention_bias=bias, tie_word_embeddings=True, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    task = CausalLanguageModel(_random(LlamaForCausalLM(config)))
    generator = np.random.default_rng(0)
    documents = [generator.integers(0, 7, length).astype(np.uint32) for length in (5, 4, 4, 2, 3, 1)]

    def batches(size: int) -> list:
        cuts = range(0, len(documents), size)
        groups = [np.arange(6)[n : n + size] for n in cuts]
        return [pad_tokens([documents[n] for n in group], group, [1] * len(group)) for group in groups]

    return task, track_layers(task.model, token_probe(task.model, 3, 7)).layers, batches


def convolutional() -> Made:
    """Classes of 3 x 3 pictures, a strided convolution with a bias, a dense layer without."""
    model = nn.Sequential(nn.Conv2d(1, 2, 2, padding=1, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3, bias=False))
    return _tensors(Classification(_random(model)), torch.randn(6, 1, 3, 3, dtype=WIDE), torch.randint(3, (6,)))


def grouped() -> Made:
    """Classes of sequences of four channels, which a convolution reads in two groups."""
    model = nn.Sequential(nn.Conv1d(4, 4, 2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3, bias=False))
    return _tensors(Classification(_random(model)), torch.randn(6, 4, 3, dtype=WIDE), torch.randint(3, (6,)))


def normed() -> Made:
    """Two values of four features, with a norm's weight and bias and a number that multiplies them."""
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Tanh(), nn.PReLU(), nn.Linear(3, 2))
    x, y = torch.randn(6, 4, dtype=WIDE), torch.randn(6, 2, dtype=WIDE)
    return _tensors(Regression(_random(model)), x, y, LayerChoice(layers="everything"))


def regression() -> Made:
    """Two values of four features; the first layer's activation is written in place."""
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    x = torch.randn(6, 4, dtype=WIDE) @ torch.randn(4, 4, dtype=WIDE)
    return _tensors(Regression(_random(model)), x, torch.randn(6, 2, dtype=WIDE))


class _Cube(torch.autograd.Function):
    """An operation without a forward derivative, as fused experts and some activations are."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g


class _OnceCube(_Cube):
    """The same, written so that it can't be differentiated twice, as kernels of their own often are."""

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> Tensor:
        return _Cube.backward(ctx, g)


class _Applied(nn.Module):
    def __init__(self, function: type[torch.autograd.Function]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x)


def fused(function: type[torch.autograd.Function] = _Cube) -> Made:
    """Two values of four features, with an operation that has no forward derivative in between."""
    model = nn.Sequential(nn.Linear(4, 3), _Applied(function), nn.Linear(3, 2))
    return _tensors(Regression(_random(model)), torch.randn(6, 4, dtype=WIDE), torch.randn(6, 2, dtype=WIDE))


def _random(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.double().parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    return model


def _tensors(task, x: Tensor, y: Tensor, choice: LayerChoice | None = None) -> Made:
    layers = track_layers(task.model, random_probe(task.model, *x.shape[1:], dtype=WIDE), choice).layers
    return task, layers, lambda size: tensor_batches(x, y, size)


@pytest.fixture(params=[language, convolutional, grouped, normed, regression, fused])
def made(request) -> Made:
    torch.manual_seed(0)
    return request.param()


def jacobian_matrix(task, layers: Sequence[TrackedLayer], batches: list, hessian: Callable[[Tensor], Tensor]) -> Tensor:
    """Form the mean over documents of J^T H J from Jacobians by reverse differentiation, one output at a time."""
    task.model.requires_grad_(True)
    layers = [those[0] for those in by_module(layers)]
    weights = [parameter for layer in layers for parameter in layer.module.parameters()]
    matrix, documents = 0.0, 0
    for batch in batches:
        outputs_MV = task.outputs(batch)
        for outputs_V in outputs_MV:
            rows = []
            for output in outputs_V:
                found = iter(torch.autograd.grad(output, weights, retain_graph=True))
                by_layer = [[next(found) for _ in layer.module.parameters()] for layer in layers]
                by_layer = [torch.cat([W.reshape(len(W), -1), *[b[:, None] for b in bias]], 1) for W, *bias in by_layer]
                rows.append(torch.cat([G_OI.flatten() for G_OI in by_layer]))
            J_VW = torch.stack(rows)
            matrix = matrix + J_VW.T @ hessian(outputs_V.detach()) @ J_VW
        documents += len(batch.ordinals)
    task.model.requires_grad_(False)
    return matrix / documents


def output_hessian(task) -> Callable[[Tensor], Tensor]:
    """Differentiate the loss twice: the cross-entropy of any class, or half the squared error."""
    if isinstance(task, Regression):
        return lambda outputs_V: torch.eye(len(outputs_V), dtype=WIDE)
    return lambda outputs_V: torch.autograd.functional.hessian(lambda z: -z.log_softmax(0)[0], outputs_V)


def test_products_are_those_of_the_jacobians(made):
    task, layers, batches = made
    expected = jacobian_matrix(task, layers, batches(2), output_hessian(task))
    curvature = GaussNewton(layers, task, batches(2))
    got = dense_matrix(curvature, len(expected), torch.ones(1, dtype=WIDE))
    torch.testing.assert_close(got, expected, **ROUNDING)
    assert float(expected.diagonal().min()) >= 0 and float(expected.abs().max()) > 0


def test_products_do_not_depend_on_batches_and_weigh_documents_alike(made):
    task, layers, batches = made
    v = torch.randn(2, sum(layer.parameters for layer in layers), dtype=WIDE)
    whole = GaussNewton(layers, task, batches(6)).product(v)
    uneven = GaussNewton(layers, task, batches(4))
    torch.testing.assert_close(uneven.product(v), whole, **ROUNDING)
    parts = [uneven.batch_product(v, number) for number in range(2)]
    torch.testing.assert_close(sum(parts) / 2, whole, **ROUNDING)


@pytest.mark.parametrize("made", [language, convolutional, regression], indirect=True)
def test_two_backward_passes_give_what_one_forward_pass_does(made):
    task, layers, batches = made
    v = {layer.name: torch.randn(layer.outputs, layer.inputs, dtype=WIDE) for layer in layers}
    (batch,) = batches(6)
    outputs, expected = outputs_and_tangent(layers, v, lambda: task.outputs(batch))
    got = tangent_by_reverse(layers, v, lambda: task.outputs(batch))
    torch.testing.assert_close(got, expected, **ROUNDING)
    assert got.shape == outputs.shape and float(got.abs().max()) > 0


def test_what_can_be_differentiated_only_once_is_refused():
    torch.manual_seed(0)
    task, layers, batches = fused(_OnceCube)
    curvature = GaussNewton(layers, task, batches(6))
    with pytest.raises(ModelError, match=r"differentiated twice, found one that cannot \(.*\); leave refining out"):
        curvature.product(torch.ones(1, curvature.space.size, dtype=WIDE))


@pytest.mark.parametrize("made", [convolutional, regression], indirect=True)
def test_a_mean_of_sampled_gradients_has_the_products(made):
    """The Gauss-Newton matrix is E[G G^T] over sampled labels: within the error of 4,000 draws a document."""
    task, layers, batches = made
    (batch,) = batches(6)
    draws = 4000
    many = TensorBatch(
        inputs=batch.inputs.repeat(draws, *[1] * (batch.inputs.dim() - 1)),
        labels=batch.labels.repeat(draws, *[1] * (batch.labels.dim() - 1)),
        ordinals=np.arange(6 * draws),
    )
    curvature = GaussNewton(layers, task, [batch])
    G = document_gradients(layers, 6 * draws, lambda: task.sampled_losses(many, range(6 * draws)))[0]
    dense = dense_matrix(curvature, G.shape[1], G)
    torch.testing.assert_close(G.T @ G / len(G), dense, rtol=0, atol=0.05 * float(dense.abs().max()))


def test_bad_outputs_and_large_models_are_refused(made):
    task, layers, batches = made
    curvature = GaussNewton(layers, task, batches(6))
    with pytest.raises(ConfigError, match="at most 8,192 tracked weights, found 8,193; take conjugate gradients"):
        dense_matrix(curvature, DENSE_WEIGHTS + 1, torch.ones(1))
    next(layers[-1].module.parameters()).data.flatten()[0] = float("nan")
    with pytest.raises(NonFiniteError, match="finite outputs of documents"):
        curvature.product(torch.ones(1, curvature.space.size, dtype=WIDE))
