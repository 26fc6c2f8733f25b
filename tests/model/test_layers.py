"""Which layers are tracked, and that every other weight is named with the reason."""

from collections.abc import Callable

import pytest
import torch
from probes import random_probe, token_probe
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from gindex.errors import NothingToTrackError
from gindex.model import sides
from gindex.model.layer_choice import LayerChoice
from gindex.model.layers import LayerTable
from gindex.model.tracking import track_layers
from gindex.vectors.influence import document_gradients

PROJECTIONS = [
    *(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")),
    *(f"mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")),
]


def track_language_model(model: nn.Module) -> LayerTable:
    return track_layers(model, token_probe(model))


def track(model: nn.Module, width: int = 6) -> LayerTable:
    return track_layers(model, random_probe(model, 4, width))


def reasons(table: LayerTable) -> dict[str, str]:
    return {weight.name: weight.reason for weight in table.untracked}


def test_llama_layers_in_forward_order(llama):
    table = track_language_model(llama)
    assert [layer.name for layer in table.layers] == [f"model.layers.{n}.{p}" for n in range(2) for p in PROJECTIONS]
    assert table.groups == ("model.layers.0", "model.layers.1")
    shapes = {layer.name: (layer.outputs, layer.inputs, layer.has_bias) for layer in table.layers}
    assert shapes["model.layers.0.self_attn.q_proj"] == (16, 17, True)
    assert shapes["model.layers.0.self_attn.k_proj"] == (8, 17, True)
    assert shapes["model.layers.1.mlp.down_proj"] == (16, 40, False)


def test_llama_layers_that_read_the_same_activations_share_a_source(llama):
    sources = {layer.name: layer.source for layer in track_language_model(llama).layers}
    for block in ("model.layers.0.", "model.layers.1."):
        of = {name.removeprefix(block): s.removeprefix(block) for name, s in sources.items() if name.startswith(block)}
        assert {of[f"self_attn.{name}_proj"] for name in "qkv"} == {"self_attn.q_proj"}
        assert of["mlp.gate_proj"] == of["mlp.up_proj"] == "mlp.gate_proj"
        assert of["self_attn.o_proj"] == "self_attn.o_proj"
        assert of["mlp.down_proj"] == "mlp.down_proj"


def test_llama_weights_left_out_are_named(llama):
    table = track_language_model(llama)
    why = reasons(table)
    assert why["model.embed_tokens.weight"] == (
        "an embedding, the output head's weight too, not of the body: `layers` everything or `track` "
        "model.embed_tokens takes it"
    )
    assert "lm_head.weight" not in why  # the same parameter, listed once
    assert why["model.norm.weight"] == "of LlamaRMSNorm, not a linear layer: `layers` everything takes it"
    assert len(why) == 1 + 5  # the tied embedding and five norms


def test_every_parameter_is_counted_once(llama):
    table = track_language_model(llama)
    tracked = sum(layer.parameters for layer in table.layers)
    total = sum(parameter.numel() for parameter in llama.parameters())
    assert tracked + sum(weight.parameters for weight in table.untracked) == total
    assert table.parameters == total
    embeddings = llama.model.embed_tokens.weight.numel()  # tied: the head's too
    assert (table.body, table.tracked_body) == (total - embeddings, tracked)
    assert table.share == tracked / (total - embeddings)


@pytest.mark.parametrize(("widest", "block"), [(40, None), (39, 14)])
def test_a_side_wider_than_a_matrix_may_be_has_blocks(llama, monkeypatch, widest, block):
    monkeypatch.setattr(sides, "WIDEST_MATRIX", widest)
    monkeypatch.setattr(sides, "WIDEST_BLOCK", 15)
    layers = {layer.name.rpartition(".")[2]: layer for layer in track_language_model(llama).layers}
    assert len(track_language_model(llama).layers) == 14
    assert layers["up_proj"].output_block == layers["down_proj"].input_block == block
    assert layers["up_proj"].input_block is layers["down_proj"].output_block is layers["q_proj"].input_block is None


def test_blocks_of_many_more_values_than_the_weight_give_way_to_unit_vectors():
    assert sides.usual_block(32_768, 1) is None
    assert sides.usual_block(32_769, 911) == 3_641  # nine blocks
    assert sides.usual_block(32_769, 910) == sides.UNIT_VECTORS


def test_layers_that_read_the_same_have_one_structure_of_it(monkeypatch):
    """The second alone would have unit vectors: blocks of 4 have twice the values of its weight, 1.5 are allowed."""
    monkeypatch.setattr(sides, "WIDEST_MATRIX", 6)
    monkeypatch.setattr(sides, "WIDEST_BLOCK", 4)
    monkeypatch.setattr(sides, "BLOCK_EXCESS", 1.5)
    torch.manual_seed(0)

    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 6, bias=False), nn.Linear(8, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.first(x), self.second(x)], -1)

    first, second = track(Split(), 8)
    assert second.source == "first" and first.input_block == second.input_block == 4
    assert (first.output_block, second.output_block) == (None, None)
    assert sides.usual_block(8, 2) == sides.UNIT_VECTORS


def test_gpt2_tracks_conv1d():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_positions=16, n_embd=8, n_layer=2, n_head=2)).eval()
    table = track_language_model(model)
    names = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    assert [layer.name for layer in table.layers] == [f"transformer.h.{n}.{name}" for n in range(2) for name in names]
    by_name = {layer.name: layer for layer in table.layers}
    c_attn = by_name["transformer.h.0.attn.c_attn"]
    assert (c_attn.outputs, c_attn.inputs, c_attn.has_bias) == (24, 9, True)
    assert table.groups == ("transformer.h.0", "transformer.h.1")
    assert reasons(table)["transformer.wte.weight"].startswith("an embedding, the output head's weight too")


class Odd(nn.Module):
    """One layer for each reason against tracking, and five good ones, of which two have two uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.twice = nn.Linear(6, 6)
        self.unused = nn.Linear(6, 6, bias=False)
        self.flat = nn.Linear(6, 6)
        self.expert = nn.Linear(6, 6)
        self.turned = nn.Linear(4, 4)
        self.turned_twice = nn.Linear(4, 4, bias=False)
        self.tied = nn.Linear(6, 6, bias=False)
        self.tied_too = nn.Linear(6, 6, bias=False)
        self.tied_too.weight = self.tied.weight
        self.norm = nn.LayerNorm(6)
        self.free = nn.Parameter(torch.zeros(3))
        self.last = nn.Linear(6, 2)

    def forward(self, x_NTI: Tensor) -> Tensor:
        x = self.norm(self.twice(self.twice(self.first(x_NTI))))
        x = self.flat(x.flatten(0, 1)).view_as(x)  # the documents one behind the other
        rows = x.flatten(0, 1)[:: len(x)]  # as a mixture of experts does: some tokens of some documents
        x = x + 0 * self.expert(rows).sum()
        x = self.turned(x.permute(2, 0, 1)).permute(1, 2, 0)
        x = self.turned_twice(self.turned_twice(x.permute(2, 0, 1))).permute(1, 2, 0)
        return self.last(self.tied_too(self.tied(x)))


def test_reasons_against_tracking():
    table = track(Odd())
    assert [layer.name for layer in table.layers] == ["first", "twice", "flat", "tied", "last"]
    why = reasons(table)
    assert [layer.calls for layer in table.layers] == [1, 2, 1, 2, 1]
    assert why["turned_twice.weight"] == "called 2 times in one forward pass, on other axes than documents or in parts"
    assert why["unused.weight"] == "not called in a forward pass"
    assert why["expert.weight"].startswith("its input mixes documents")
    assert why["turned.weight"].startswith("its input mixes documents")
    assert [len(layer.copies) for layer in table.layers] == [0, 0, 0, 1, 0]
    assert why["norm.weight"] == "of LayerNorm, not a linear layer: `layers` everything takes it"
    assert why["free"] == "of Odd, not a linear layer: `layers` everything takes it"
    assert "first.weight" not in why


class SharedInput(nn.Module):
    """Four layers on the same activations, two of them with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 3, bias=bias) for bias in (True, False, True, False))

    def forward(self, x_NTI: Tensor) -> Tensor:
        return sum(layer(x_NTI) for layer in self.layers)


def test_a_source_is_shared_only_with_the_same_use_of_the_bias():
    """A bias appends a 1 to the activations, so the covariances of the two kinds have different sizes."""
    sources = {layer.name: layer.source for layer in track(SharedInput()).layers}
    assert sources == {"layers.0": "layers.0", "layers.1": "layers.1", "layers.2": "layers.0", "layers.3": "layers.1"}


def test_equal_but_distinct_activations_are_not_shared():
    class Copied(SharedInput):
        def forward(self, x_NTI: Tensor) -> Tensor:
            return sum(layer(x_NTI.clone()) for layer in self.layers)

    table = track(Copied())
    assert [layer.source for layer in table.layers] == [layer.name for layer in table.layers]


def test_a_layer_outside_any_numbered_block_is_a_group_of_its_own():
    assert track(Odd()).groups == ("first", "twice", "flat", "tied", "last")


@pytest.mark.parametrize("wrapper", [lambda m: m, lambda m: nn.Sequential(m)])
def test_nothing_to_track(wrapper: Callable[[nn.Module], nn.Module]):
    with pytest.raises(NothingToTrackError, match="expected at least one Linear, Conv1D or convolution layer"):
        track(wrapper(nn.LayerNorm(6)))


def test_nothing_to_track_names_the_reasons():
    with pytest.raises(NothingToTrackError, match=r"found none \(0: left out by `untrack`"):
        model = nn.Sequential(nn.Linear(6, 6))
        track_layers(model, random_probe(model, 4, 6), LayerChoice(untrack=["0"]))


def test_probing_freezes_the_weights_and_leaves_no_hook():
    model = Odd()
    track(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_probe_that_fails_leaves_no_hook():
    model = nn.Sequential(nn.Linear(6, 6))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        track(model, width=5)
    assert not model[0]._forward_hooks


@pytest.mark.parametrize("count", [1, 3])
def test_layers_of_several_uses_have_the_gradient_of_all_of_them(count):
    """A layer that runs twice, and two modules with one weight; each document against autograd in float64."""
    torch.manual_seed(0)
    model = Odd().double()
    table = track_layers(model, random_probe(model, 4, 6, dtype=torch.float64))
    x_NTI = torch.randn(count, 4, 6, dtype=torch.float64)
    G_NW, space = document_gradients(table.layers, count, lambda: model(x_NTI).square().sum((1, 2)))
    model.requires_grad_(True)
    for n in range(count):
        loss = model(x_NTI[n : n + 1]).square().sum()
        for name, G_NOI in space.split(G_NW).items():
            layer = model.get_submodule(name)
            expected = torch.autograd.grad(loss, list(layer.parameters()), retain_graph=True)
            columns = [of.reshape(len(of), -1) for of in expected]
            torch.testing.assert_close(G_NOI[n], torch.cat(columns, 1), rtol=1e-9, atol=1e-12)
