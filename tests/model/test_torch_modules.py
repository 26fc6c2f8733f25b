"""Attention and recurrences of torch, whose weights have no modules, against autograd one document at a time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from observers import Gradients
from probes import names, random_probe, reasons
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gindex.model.capture import by_module, observe
from gindex.model.gradient_check import affine_parameters
from gindex.model.inner_linears import ExpertLinears, opened
from gindex.model.layer_choice import LayerChoice
from gindex.model.owners import inner_linears
from gindex.model.tracking import track_layers

WIDE = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-11}


class Attention(nn.Module):
    """Attention of a sequence to itself and of two queries to it, as poolings have it; the mask is the model's own."""

    def __init__(self, *, need_weights: bool = False, mask: str = "", width: int = 6, **settings: Any) -> None:
        super().__init__()
        self.to_itself = nn.MultiheadAttention(6, 2, **settings)
        self.pooling = nn.MultiheadAttention(width, 2, batch_first=True, kdim=6, vdim=6)
        self.queries = nn.Linear(6, width)
        self.first, self.need_weights, self.mask = settings.get("batch_first", False), need_weights, mask

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.first else x.transpose(0, 1)
        masks: dict[str, Tensor] = {}
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        if "causal" in self.mask:
            masks["attn_mask"] = causal
        if "heads" in self.mask:
            masks["attn_mask"] = torch.zeros(causal.shape).masked_fill(causal, -1.0).to(x).repeat(2 * len(x), 1, 1)
        if "padding" in self.mask:
            masks["key_padding_mask"] = (torch.arange(x.shape[1]) > 2).expand(len(x), -1)
        y, weights = self.to_itself(y, y, y, need_weights=self.need_weights, average_attn_weights=False, **masks)
        assert (weights is not None) == self.need_weights
        y = y if self.first else y.transpose(0, 1)
        z, _ = self.pooling(self.queries(y[:, :2]).tanh(), y, y + x)
        return z.flatten(1) if weights is None else z.flatten(1) + weights.square().sum((1, 2, 3))[:, None]


ATTENTION: dict[str, dict[str, Any]] = {
    "batch first": {"batch_first": True},
    "sequence first": {},
    "weights": {"need_weights": True, "bias": False},
    "three weights": {"width": 4},
    "causal": {"mask": "causal", "batch_first": True},
    "padded": {"mask": "padding, causal", "need_weights": True},
    "by heads": {"mask": "heads", "batch_first": True},
    "more keys": {"add_bias_kv": True, "add_zero_attn": True, "mask": "causal, padding"},
}

RECURRENT: dict[str, Callable[[], nn.RNNBase]] = {
    "LSTM": lambda: nn.LSTM(6, 4, batch_first=True),
    "two layers, both ways": lambda: nn.LSTM(6, 4, num_layers=2, bidirectional=True),
    "projected": lambda: nn.LSTM(6, 5, proj_size=3, batch_first=True, bidirectional=True),
    "GRU": lambda: nn.GRU(6, 4, num_layers=2, bias=False),
    "GRU both ways": lambda: nn.GRU(6, 4, bidirectional=True, batch_first=True),
    "RNN": lambda: nn.RNN(6, 4, batch_first=True),
    "RNN with ReLU": lambda: nn.RNN(6, 4, nonlinearity="relu"),
}


class Recurrence(nn.Module):
    """A recurrence, some of whose states have a beginning of their own, perhaps on sequences of different lengths."""

    def __init__(self, recurrence: nn.RNNBase, *, packed: bool = False) -> None:
        super().__init__()
        self.recurrence, self.packed = recurrence, packed
        sides = 1 + recurrence.bidirectional
        self.last = nn.Linear((recurrence.proj_size or recurrence.hidden_size) * sides, 2)

    def forward(self, x: Tensor) -> Tensor:
        is_first, gives = self.recurrence.batch_first, isinstance(self.recurrence, nn.LSTM)
        y = x if is_first else x.transpose(0, 1)
        if self.packed:
            lengths = 1 + (x[:, 0, 0] * 7).abs().long() % x.shape[1]
            y = pack_padded_sequence(y, lengths, batch_first=is_first, enforce_sorted=False)
        outputs, last = self.recurrence(y)
        if self.packed:
            outputs, _ = pad_packed_sequence(outputs, batch_first=is_first, total_length=x.shape[1])
        outputs = outputs if is_first else outputs.transpose(0, 1)
        state = last[0] + last[1].sum(-1, keepdim=True) if gives else last
        return self.last(outputs).flatten(1) + state.sum((0, 2))[:, None]


def models() -> dict[str, Callable[[], nn.Module]]:
    found: dict[str, Callable[[], nn.Module]] = {}
    for name, settings in ATTENTION.items():
        found[f"attention, {name}"] = lambda settings=settings: Attention(**settings)
    for name, make in RECURRENT.items():
        found[name] = lambda make=make: Recurrence(make())
    for name in ("two layers, both ways", "GRU both ways", "projected"):
        found[f"packed {name}"] = lambda name=name: Recurrence(RECURRENT[name](), packed=True)
    return found


@pytest.fixture(params=models())
def made(request) -> nn.Module:
    torch.manual_seed(0)
    model = models()[request.param]().to(WIDE).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def losses(model: nn.Module, x: Tensor) -> Tensor:
    outputs = model(x).square()
    return outputs @ torch.linspace(-1, 2, outputs.shape[1], dtype=WIDE)


def test_stand_ins_compute_what_the_module_does(made):
    x = torch.randn(4, 5, 6, dtype=WIDE)
    expected = made(x)
    with opened(inner_linears(made).values()):
        found = made(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(made(x), expected)


@pytest.mark.parametrize("documents", [1, 4])
def test_document_gradients_match_autograd(made, documents):
    """Reference: one backward pass a document through the modules as they are."""
    table = track_layers(made, random_probe(made, 5, 6, dtype=WIDE))
    left = [name for name in reasons(table) if not name.endswith(("bias_k", "bias_v", "in_proj_bias"))]
    assert not left
    x, observer = torch.randn(documents, 5, 6, dtype=WIDE), Gradients()
    observe(table.layers, observer, documents, lambda: losses(made, x))
    made.requires_grad_(True)
    for layers in by_module(table.layers):
        module = layers[0].module
        parameters = affine_parameters(module)
        for n in range(documents):
            weight, *bias = torch.autograd.grad(losses(made, x[n : n + 1]).sum(), parameters)
            parts = module.by_expert if isinstance(module, ExpertLinears) else lambda gradient: gradient[None]
            expected = torch.cat([parts(weight), *(parts(b)[..., None] for b in bias)], 2)
            found = torch.stack([observer.found[layer.name][n] for layer in layers])
            torch.testing.assert_close(found, expected, **EXACT)


def test_biases_of_keys_that_are_no_layers_are_tracked_with_everything():
    torch.manual_seed(0)
    model = Attention(**ATTENTION["more keys"], width=4).to(WIDE).eval()
    table = track_layers(model, random_probe(model, 5, 6, dtype=WIDE), LayerChoice(layers="everything"))
    assert {"to_itself.bias_k", "to_itself.bias_v", "pooling.in_proj_bias"} <= set(names(table))
    assert table.share == 1


def test_one_document_without_an_axis_for_it_runs_as_it_is():
    torch.manual_seed(0)
    lstm, attention, x = nn.LSTM(6, 4).eval(), nn.MultiheadAttention(6, 2).eval(), torch.randn(5, 6)
    expected = lstm(x)[0], attention(x, x, x)[0]
    with opened([*inner_linears(lstm).values(), *inner_linears(attention).values()]):
        found = lstm(x)[0], attention(x, x, x)[0]
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_a_subclass_of_its_own_is_not_taken_for_a_recurrence():
    class Doubled(nn.GRU):
        def forward(self, x: Tensor, hx: Tensor | None = None) -> Any:
            return super().forward(2 * x, hx)

    assert not inner_linears(nn.ModuleList([Doubled(6, 4)]))
