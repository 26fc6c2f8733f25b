"""Activations and output gradients are those that autograd's document gradients are made of."""

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from probes import random_probe, token_probe
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from gindex.errors import ShapeError, TrackedLayerError
from gindex.model.capture import append_one, observe
from gindex.model.layers import LayerTable, TrackedLayer
from gindex.model.observer import Observer
from gindex.model.tracking import track_layers


class Recorder(Observer):
    """Keeps what the observer is shown, and makes document gradients of it one token at a time."""

    def __init__(self) -> None:
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return a_NTI.clone()

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        assert layer.name not in self.pairs, "seen twice in one pass"
        self.pairs[layer.name] = (kept, g_NTO.clone())

    def document_gradient(self, layer: TrackedLayer, document: int) -> Tensor:
        a_NTI, g_NTO = self.pairs[layer.name]
        total = g_NTO.new_zeros(layer.outputs, layer.inputs)
        for a_I, g_O in zip(a_NTI[document], g_NTO[document], strict=True):
            one = torch.cat([a_I, a_I.new_ones(1)]) if layer.has_bias else a_I
            total += torch.outer(g_O, one)
        return total


def track_language_model(model: nn.Module) -> LayerTable:
    return track_layers(model, token_probe(model))


def padded_losses(model: nn.Module, batch: Any) -> Tensor:
    """Sum each document's token losses in float64, from one padded pass."""
    log_probabilities = model(torch.from_numpy(batch.tokens), use_cache=False).logits.log_softmax(-1)
    targets = torch.from_numpy(batch.tokens[:, 1:])
    picked = log_probabilities[:, :-1].gather(2, targets[..., None])[..., 0]
    return -(picked * torch.from_numpy(batch.targets[:, 1:])).sum(1)


def gpt2() -> nn.Module:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_positions=16, n_embd=8, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).double().eval()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_language_model_document_gradients_match_autograd(family, llama, documents, batch_of, reference_gradients):
    """Reference: one unpadded forward and one backward per document; here they are padded on the right."""
    model = copy.deepcopy(llama) if family == "llama" else gpt2()
    layers = track_language_model(model).layers
    batch, recorder = batch_of(documents), Recorder()
    observe(layers, recorder, len(documents), lambda: padded_losses(model, batch))
    expected = reference_gradients(model, [layer.name for layer in layers], documents)
    for layer in layers:
        for n in range(len(documents)):
            # float64 with sums of at most 12 tokens; the slack is for another order of the attention sums.
            torch.testing.assert_close(
                recorder.document_gradient(layer, n), expected[layer.name][n], rtol=1e-9, atol=1e-11
            )
    one_token = documents.index(next(d for d in documents if len(d) == 1))
    assert not any(recorder.document_gradient(layer, one_token).any() for layer in layers)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_padding_has_no_gradient(family, llama, documents, batch_of):
    model = copy.deepcopy(llama) if family == "llama" else gpt2()
    layers = track_language_model(model).layers
    batch, recorder = batch_of(documents), Recorder()
    observe(layers, recorder, len(documents), lambda: padded_losses(model, batch))
    padding = torch.from_numpy(~batch.mask)
    for _, g_NTO in recorder.pairs.values():
        assert not g_NTO[padding].any()  # exactly zero: no real token attends to it


def make_chain(kind: str) -> nn.Sequential:
    torch.manual_seed(1)
    make = {
        "linear": lambda i, o: nn.Linear(i, o),
        "linear without bias": lambda i, o: nn.Linear(i, o, bias=False),
        "conv1d": lambda i, o: Conv1D(o, i),
    }[kind]
    chain = nn.Sequential(make(5, 7), nn.Tanh(), make(7, 3)).double()
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.normal_()
    return chain


@pytest.mark.parametrize("kind", ["linear", "linear without bias", "conv1d"])
@pytest.mark.parametrize("shape", [(4, 6, 5), (4, 5), (4, 2, 3, 5)], ids=["NTI", "NI", "N two token axes I"])
def test_layer_kinds_and_shapes_match_autograd(kind, shape):
    chain = make_chain(kind)
    x, weights = torch.randn(shape, dtype=torch.float64), torch.randn(*shape[:-1], 3, dtype=torch.float64)

    def losses(model: nn.Module) -> Tensor:
        return (model(x).square() * weights).flatten(1).sum(1)

    layers = track_layers(chain, random_probe(chain, *shape[1:], dtype=torch.float64)).layers
    recorder = Recorder()
    got_losses = observe(layers, recorder, 4, lambda: losses(chain))
    trainable = copy.deepcopy(chain).requires_grad_(True)
    for n, loss in enumerate(losses(trainable)):
        assert loss.item() == got_losses[n].item()
        for layer in layers:
            module = trainable.get_submodule(layer.name)
            parameters = [module.weight] + ([module.bias] if module.bias is not None else [])
            weight, *bias = torch.autograd.grad(loss, parameters, retain_graph=True)
            expected = torch.cat([weight.T if kind == "conv1d" else weight, *[b[:, None] for b in bias]], 1)
            # float64, sums of 6 terms.
            torch.testing.assert_close(recorder.document_gradient(layer, n), expected, rtol=1e-12, atol=1e-12)


def test_activations_changed_in_place_by_the_model():
    """The next module may overwrite an output; the gradient is still that of what the layer wrote."""
    torch.manual_seed(2)
    chain = nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3), nn.ReLU(inplace=True)).double()
    x = torch.randn(4, 5, dtype=torch.float64)
    layers = track_layers(chain, random_probe(chain, 5, dtype=torch.float64)).layers
    trainable, recorder = copy.deepcopy(chain).requires_grad_(True), Recorder()
    observe(layers, recorder, 4, lambda: chain(x).square().sum(1))
    for n, loss in enumerate(trainable(x).square().sum(1)):
        for layer in layers:
            module = trainable.get_submodule(layer.name)
            weight, bias = torch.autograd.grad(loss, [module.weight, module.bias], retain_graph=True)
            expected = torch.cat([weight, bias[:, None]], 1)
            torch.testing.assert_close(recorder.document_gradient(layer, n), expected, rtol=1e-12, atol=1e-12)


def small_chain() -> tuple[nn.Sequential, tuple[TrackedLayer, ...]]:
    chain = make_chain("linear")
    return chain, track_layers(chain, random_probe(chain, 5, dtype=torch.float64)).layers


def test_weights_stay_frozen_and_losses_are_detached():
    chain, layers = small_chain()
    x = torch.randn(4, 5, dtype=torch.float64)
    losses = observe(layers, Recorder(), 4, lambda: chain(x).square().sum(1))
    assert not losses.requires_grad
    assert not any(p.requires_grad or p.grad is not None for p in chain.parameters())
    assert x.grad is None and not x.requires_grad


def test_gradients_are_on_even_where_the_caller_turned_them_off():
    chain, layers = small_chain()
    recorder = Recorder()
    with torch.no_grad():
        observe(layers, recorder, 4, lambda: chain(torch.randn(4, 5, dtype=torch.float64)).square().sum(1))
    assert set(recorder.pairs) == {"0", "2"}


def test_no_hook_is_left_after_a_pass():
    chain, layers = small_chain()
    observe(layers, Recorder(), 4, lambda: chain(torch.randn(4, 5, dtype=torch.float64)).square().sum(1))
    assert not any(module._forward_hooks for module in chain.modules())


def test_no_hook_is_left_after_a_failure():
    chain, layers = small_chain()

    def losses() -> Tensor:
        chain(torch.randn(4, 5, dtype=torch.float64))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        observe(layers, Recorder(), 4, losses)
    assert not any(module._forward_hooks for module in chain.modules())


def test_a_layer_that_mixes_documents_is_refused_by_name():
    chain, layers = small_chain()
    with pytest.raises(ShapeError, match=r"^0: expected activations of 3 documents, found shape \(4, 5\)"):
        observe(layers, Recorder(), 3, lambda: chain(torch.randn(4, 5, dtype=torch.float64)).square().sum(1))
    assert not any(module._forward_hooks for module in chain.modules())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda chain, x: chain(chain[0](x)[:, :5]), "^0: expected one call in a pass, as when .*, found another one"),
        (lambda chain, x: chain[0](x), "^2: expected one call in a pass, as when the model was tried, found none"),
        (lambda chain, x: chain[1:](torch.no_grad()(chain[0])(x)), "^0: expected a call with gradients .* without;"),
    ],
)
def test_a_call_that_the_probe_did_not_see_is_refused_by_name(change, message):
    chain, layers = small_chain()
    with pytest.raises(TrackedLayerError, match=message + ".*leave it out, as with `untrack`"):
        observe(layers, Recorder(), 4, lambda: change(chain, torch.randn(4, 5, dtype=torch.float64)).square().sum(1))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in chain.modules())


def test_losses_that_need_no_gradient_give_that_of_no_token():
    chain, layers = small_chain()
    recorder = Recorder()
    losses = observe(layers, recorder, 4, lambda: chain(torch.randn(4, 5, dtype=torch.float64)).detach().sum(1) * 0)
    assert losses.tolist() == [0] * 4
    assert [a_NTI.shape for a_NTI, _ in recorder.pairs.values()] == [(4, 0, 5), (4, 0, 7)]
    assert not any(recorder.document_gradient(layer, 0).any() for layer in layers)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_activations_are_freed_with_the_pass(kind):
    """The collector is off: whatever survives is held by a reference or a cycle, a leak of a batch a step."""
    chain = make_chain(kind)
    layers = track_layers(chain, random_probe(chain, 5, dtype=torch.float64)).layers
    alive: list[weakref.ref[Tensor]] = []

    class Watcher(Observer):
        def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
            kept = a_NTI * 1
            alive.append(weakref.ref(kept))
            return kept

        def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
            assert not kept.requires_grad and not g_NTO.requires_grad
            alive.append(weakref.ref(g_NTO))

    def losses() -> Tensor:
        output = chain(torch.randn(4, 5, dtype=torch.float64))
        alive.append(weakref.ref(output))
        return output.square().sum(1)

    gc.collect()
    gc.disable()
    try:
        kept_losses = observe(layers, Watcher(), 4, losses)
        assert len(alive) == 5
        assert [ref() for ref in alive] == [None] * 5
    finally:
        gc.enable()
    assert kept_losses.grad_fn is None


@pytest.mark.parametrize("bias", [True, False])
def test_append_one(bias):
    module = nn.Linear(2, 3, bias=bias)
    layer = track_layers(module, random_probe(module, 2)).layers[0]
    a_NTI = torch.tensor([[[2.0, 3.0], [0.0, 0.0]]])
    assert append_one(a_NTI, layer).tolist() == ([[[2, 3, 1], [0, 0, 1]]] if bias else [[[2, 3], [0, 0]]])
