"""A layer is what its gradient formula takes it for, or it is left out by name."""

import copy
import logging
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from probes import names, random_probe, reasons, token_probe, track
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint
from transformers import OPTConfig, OPTForCausalLM

from gindex.errors import ModelError, NonFiniteError, ShapeError
from gindex.lab.attribution import tracked_layers
from gindex.model.layer_choice import LayerChoice
from gindex.model.layers import LayerTable
from gindex.model.tensor_batches import tensor_batches
from gindex.model.tensor_tasks import Classification
from gindex.model.tracking import FEWER_DOCUMENTS, PROBE_DOCUMENTS, track_layers
from gindex.vectors.influence import document_gradients

WIDTH, TOKENS = 6, 5


class Scaled(nn.Linear):
    """Its weight is divided by a root before it is used, as equalised learning rates do."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight / 3, self.bias)


class Rounded(nn.Linear):
    """Its weight is rounded to three levels; the gradient passes straight through."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean()
        rounded = (self.weight / scale).round().clamp(-1, 1) * scale
        return F.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


class RoundedInput(nn.Linear):
    """Its input is rounded to 8 bits, which changes the output by less than a hundredth."""

    def forward(self, x: Tensor) -> Tensor:
        scale = 127 / x.abs().amax(-1, keepdim=True)
        return F.linear(x + ((x * scale).round() / scale - x).detach(), self.weight, self.bias)


class Standardised(nn.Conv2d):
    """Its weight is standardised before it is used, as in BiT."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), keepdim=True)
        return F.conv2d(x, (self.weight - mean) / variance.sqrt(), self.bias)


class Detached(nn.Linear):
    """Its output is right, and its weight gets no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.detach(), self.bias)


@pytest.mark.parametrize("kind", [Scaled, Rounded, RoundedInput])
def test_a_layer_whose_output_is_not_its_affine_map_is_left_out(kind):
    torch.manual_seed(0)
    table = track(nn.Sequential(nn.Linear(WIDTH, WIDTH), kind(WIDTH, WIDTH), nn.Linear(WIDTH, 2)))
    assert names(table) == ["0", "2"]
    assert reasons(table)["1.weight"].startswith(
        "its output is not the affine map of its weight and bias (" + kind.__name__
    )


def test_a_standardised_convolution_is_left_out():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), Standardised(3, 4, 2), nn.Flatten(), nn.Linear(36, 2))
    table = track(model, 2, 6, 6)
    assert names(table) == ["0", "3"]
    assert reasons(table)["1.weight"].startswith(
        "its output is not the affine map of its weight and bias (Standardised"
    )


def test_a_subclass_that_only_does_more_is_tracked():
    class Counting(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.calls += 1
            return super().forward(x)

    assert names(track(nn.Sequential(Counting(WIDTH, WIDTH), nn.Linear(WIDTH, 2)))) == ["0", "1"]


class Narrowing(nn.Linear):
    """Narrows what its model keeps in float32 itself."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


def test_a_layer_that_narrows_its_input_itself_is_tracked():
    torch.manual_seed(0)
    model, x = nn.Sequential(Narrowing(WIDTH, 8), nn.Tanh(), nn.Linear(8, 2)).bfloat16(), torch.randn(2, 3, WIDTH)
    table = track(model)
    assert names(table) == ["0", "2"]
    found, _ = document_gradients(table, 2, lambda: model(x).float().sum((1, 2)))
    expected, _ = document_gradients(table, 2, lambda: model(x.bfloat16()).float().sum((1, 2)))
    assert torch.equal(found, expected) and found.any()


def test_gradients_in_float16_that_a_loss_of_a_token_leaves_finite_are_proved():
    """Small numbers are normalised and then read by many outputs: a sum over all of them would overflow going back."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 32), nn.LayerNorm(32, eps=1e-12), nn.Linear(32, 20000, bias=False)).half()
    with torch.no_grad():
        model[0].weight.mul_(0.003)
        model[0].bias.mul_(0.003)
    assert names(track_layers(model, random_probe(model, TOKENS, WIDTH, dtype=torch.float16))) == ["0", "2"]


def test_a_hook_that_changes_an_output_leaves_the_layer_out():
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2))
    model[0].register_forward_pre_hook(lambda _module, args: (args[0] * 2,))  # what the layer reads is seen as it is
    model[1].register_forward_hook(lambda _module, _args, output: output * 2)
    assert names(track(model)) == ["0", "2"]


class AlsoFunctional(nn.Module):
    """The first layer's weight is used once more, without the layer; of the second, the bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(self.first(x).tanh(), self.first.weight).tanh()
        return self.last(self.second(x).tanh() + self.second.bias)


def test_weights_that_are_used_elsewhere_too_leave_the_layer_out():
    torch.manual_seed(0)
    table = track(AlsoFunctional())
    assert names(table) == ["last"]
    for name in ("first.weight", "second.bias"):
        assert reasons(table)[name].startswith("the gradient of its weights is not the one that its inputs and outputs")


def test_a_weight_without_a_gradient_of_its_own_leaves_the_layer_out():
    table = track(nn.Sequential(nn.Linear(WIDTH, WIDTH), Detached(WIDTH, WIDTH), nn.Linear(WIDTH, 2)))
    assert names(table) == ["0", "2"]


@pytest.mark.parametrize(
    "normed", [parametrizations.weight_norm, parametrizations.spectral_norm, weight_norm, spectral_norm]
)
@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
def test_weights_that_are_computed_leave_the_layer_out(normed):
    table = track(nn.Sequential(nn.Linear(WIDTH, WIDTH), normed(nn.Linear(WIDTH, WIDTH)), nn.Linear(WIDTH, 2)))
    assert names(table) == ["0", "2"]
    why = {reason for name, reason in reasons(table).items() if name.startswith("1.")}
    assert why == {"its weight is no parameter of its own but computed from others, as by a weight norm"}


class Mixing(nn.Module):
    """Documents are centred over the batch between the first layer and the last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(x - x.mean(0))


def test_layers_before_what_mixes_documents_are_left_out():
    torch.manual_seed(0)
    table = track(Mixing())
    assert names(table) == ["last"]
    assert "or documents mix in it" in reasons(table)["first.weight"]


class SequenceFirst(nn.Module):
    """Turns [N, T, I] to [T, N, I] for the layers in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x).transpose(0, 1)).transpose(0, 1))


@pytest.mark.parametrize("tokens", [TOKENS, PROBE_DOCUMENTS, FEWER_DOCUMENTS])
def test_layers_that_read_the_sequence_first_are_left_out_whatever_its_length(tokens):
    table = track(SequenceFirst(), tokens, WIDTH)
    assert names(table) == ["first", "last"]
    assert reasons(table)["middle.weight"].startswith("its input mixes documents, or has another axis first")


class Shuffled(nn.Module):
    """Gives its middle layer one row of each document, but not in their order, as an expert may be given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        order = torch.arange(len(x)).roll(1)
        return self.last(self.first(x) + self.middle(x[order])[order.argsort()])


def test_rows_that_are_not_in_the_order_of_documents_leave_the_layer_out():
    torch.manual_seed(0)
    assert names(track(Shuffled())) == ["first", "last"]


class Partial(nn.Module):
    """A branch that is stopped, one under no_grad, one in a re-entrant checkpoint, one for large batches alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d, self.e = (nn.Linear(WIDTH, WIDTH) for _ in range(5))
        self.last = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x) + self.b(x).detach()
        with torch.no_grad():
            constant = self.c(x)
        y = y + constant + checkpoint(self.d, x, use_reentrant=True)
        return self.last(y + self.e(x) if len(x) > FEWER_DOCUMENTS else y)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_layers_without_a_gradient_are_left_out_by_name():
    table = track(model := Partial())
    assert names(table) == ["a", "last"]
    why = reasons(table)
    assert why["b.weight"] == "no gradient reaches it"
    assert why["c.weight"] == why["d.bias"] == "run without gradients, as in torch.no_grad or a re-entrant checkpoint"
    assert why["e.weight"] == "not called alike in batches of different sizes"
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


class Flat(nn.Module):
    """The middle layers read the documents one behind the other, [N * T, I], as OPT's feed-forward layers do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(WIDTH, 4), nn.Linear(4, 3), nn.Linear(4, 3, bias=False)
        self.last = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.first(x).tanh().flatten(0, -2)
        return self.last((self.left(flat).tanh() * self.right(flat)).unflatten(0, x.shape[:-1]))


def assert_gradients_are_those_of_autograd(model: nn.Module, table: LayerTable, x: Tensor) -> None:
    """Reference: one backward pass for each document alone, in float64."""
    found, space = document_gradients(table, len(x), lambda: model(x).square().flatten(1).sum(1))
    trainable = copy.deepcopy(model).requires_grad_(True)
    for n in range(len(x)):
        trainable.zero_grad()
        trainable(x[n : n + 1]).square().sum().backward()
        for name, G_QOI in space.split(found).items():
            module = trainable.get_submodule(name)
            parts = [module.weight.grad] + ([] if module.bias is None else [module.bias.grad[:, None]])
            # float64, sums of few terms
            torch.testing.assert_close(G_QOI[n], torch.cat(parts, 1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("tokens", [1, 4, 7])
def test_layers_that_read_all_tokens_in_a_row_are_tracked(tokens):
    torch.manual_seed(0)
    model = Flat().double()
    table = track_layers(model, random_probe(model, TOKENS, WIDTH, dtype=torch.float64))
    assert names(table) == ["first", "left", "right", "last"]
    assert [layer.beside is model.first for layer in table] == [False, True, True, False]
    assert_gradients_are_those_of_autograd(model, table, torch.randn(4, tokens, WIDTH, dtype=torch.float64))


def test_rows_of_another_number_than_tokens_are_refused():
    model = Flat()
    table = track(model)
    with pytest.raises(ShapeError, match=r"^left: expected activations of 4 documents, found shape \(8, 4\)"):
        document_gradients(table, 4, lambda: model.left(model.first(torch.randn(4, 3, WIDTH))[:, :2].flatten(0, 1)))


def test_opt_tracks_its_feed_forward_layers():
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=40, hidden_size=8, ffn_dim=12, num_hidden_layers=2, num_attention_heads=2, word_embed_proj_dim=8,
        max_position_embeddings=32,
    )  # fmt: skip
    table = track_layers(model := OPTForCausalLM(config).eval(), token_probe(model))
    assert [name.split(".")[-1] for name in names(table)] == 2 * [
        "q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2",
    ]  # fmt: skip
    assert table.share > 0.9


def test_encoder_layers_of_torch_are_tracked():
    """In evaluation, torch passes by the modules of such layers in one operation where nothing needs a gradient."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 2)).double().eval()
    table = track_layers(model, random_probe(model, TOKENS, 8, dtype=torch.float64))
    own = ["self_attn.in_proj.0", "self_attn.in_proj.1", "self_attn.in_proj.2", "self_attn.out_proj"]
    assert names(table) == [f"0.layers.{n}.{of}" for n in (0, 1) for of in (*own, "linear1", "linear2")] + ["1"]
    assert {layer.group for layer in table} == {"0.layers.0", "0.layers.1", "1"}
    whole = replace(table, layers=tuple(layer for layer in table if layer.expert is None))
    assert_gradients_are_those_of_autograd(model, whole, torch.randn(3, 4, 8, dtype=torch.float64))


class Recurrent(nn.Module):
    """A cell of an LSTM that runs step by step and a layer that reads its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.LSTMCell(WIDTH, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = self.cell(x[:, 0])
        for t in range(1, x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.last(state[0])


def test_what_attribution_does_not_track_is_told(caplog):
    task = Classification(Recurrent())
    documents = tensor_batches(torch.randn(3, TOKENS, WIDTH), torch.tensor([0, 1, 1]))
    with caplog.at_level(logging.WARNING, "gindex"):
        table = tracked_layers(task, documents)
    assert names(table) == ["last"] and len(table) == 1 and table[0].name == "last"
    assert reasons(table)["cell.weight_ih"] == "of LSTMCell, not a linear layer: `layers` everything takes it"
    cell = sum(parameter.numel() for parameter in task.model.cell.parameters())
    assert table.share == 18 / (18 + cell)
    (record,) = caplog.records
    assert f"only {100 * table.share:.1f}% of the weights are tracked" in record.message
    assert "cell.weight_hh: of LSTMCell, not a linear layer" in record.message


def test_a_model_that_is_not_finite_is_refused():
    model = nn.Linear(WIDTH, 2)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="expected finite outputs of 11 documents that it was tried on"):
        track(model)


class Overwriting(nn.Module):
    """Writes over what its first layer has read, before its second layer reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.last = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        a = self.a(x)
        return self.last(a + self.b(x.relu_()))


def test_an_activation_that_is_written_over_is_refused():
    with pytest.raises(ModelError, match=r"autograd fails \(one of the variables needed .* in-?place .*with `untrack`"):
        track(Overwriting())
    table = track(Overwriting(), choice=LayerChoice(untrack=["a"]))
    assert [(layer.name, layer.source) for layer in table] == [("b", "b"), ("last", "last")]


class Adapted(nn.Module):
    """A layer with an adapter beside it, as LoRA has it: the layer is called from within."""

    def __init__(self) -> None:
        super().__init__()
        self.base_layer = nn.Linear(WIDTH, WIDTH, bias=False)
        self.lora_A, self.lora_B = nn.Linear(WIDTH, 2, bias=False), nn.Linear(2, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + 0.5 * self.lora_B(self.lora_A(x))


def test_adapters_and_what_they_adapt_are_tracked():
    torch.manual_seed(0)
    model = nn.Sequential(Adapted(), nn.Tanh(), nn.Linear(WIDTH, 2)).double()
    table = track_layers(model, random_probe(model, TOKENS, WIDTH, dtype=torch.float64))
    assert names(table) == ["0.base_layer", "0.lora_A", "0.lora_B", "2"]
    assert table[1].source == "0.base_layer"
    assert_gradients_are_those_of_autograd(model, table, torch.randn(3, 4, WIDTH, dtype=torch.float64))
