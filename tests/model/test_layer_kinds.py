"""Kinds of layers by what they do, for models of transformers and others, and the choice among layers by kind."""

import re

import pytest
from families import FAMILIES
from probes import names, random_probe, reasons, track
from torch import Tensor, nn

from gindex.errors import ConfigError
from gindex.model.layer_choice import LayerChoice, output_head
from gindex.model.layer_kinds import ATTENTION, EMBEDDINGS, HEAD, MLP, NORMS, OTHER, LayerKinds
from gindex.model.layers import affine_shape
from gindex.model.owners import inner_linears
from gindex.model.tracking import track_layers

EXPECTED = {
    "Llama 2, head untied": ("q_proj k_proj v_proj o_proj", "gate_proj up_proj down_proj", ""),
    "GPT-2": ("attn.c_attn attn.c_proj", "mlp.c_fc mlp.c_proj", ""),
    "OPT": ("q_proj k_proj v_proj out_proj", "fc*", ""),
    "GPT-OSS": ("q_proj k_proj v_proj o_proj", "router gate_up_proj down_proj", ""),
    "JetMoE": (
        "kv_proj attention.experts.input_linear attention.experts.output_linear attention.experts.router.layer",
        "mlp.input_linear mlp.output_linear mlp.router.layer",
        "",
    ),
    "Mamba": ("in_proj x_proj dt_proj out_proj", "", ""),
    "Nemotron-H": (
        "in_proj out_proj q_proj k_proj v_proj o_proj", "gate up_proj down_proj shared_experts.up_proj "
        "shared_experts.down_proj experts.up_proj experts.down_proj", "",
    ),
    "Qwen3-Next": (
        "in_proj_qkvz in_proj_ba out_proj q_proj k_proj v_proj o_proj",
        "gate shared_expert.gate_proj shared_expert.up_proj shared_expert.down_proj shared_expert_gate "
        "experts.gate_up_proj experts.down_proj",
        "",
    ),
    "BERT as a decoder": (
        "query key value attention.output.dense", "intermediate.dense output.dense", "transform.dense",
    ),
}  # fmt: skip
"""Ends of the names of linear layers by kind: attention, MLP, other."""


@pytest.mark.parametrize("name", EXPECTED)
def test_linear_layers_of_families(name):
    model = next(family for family in FAMILIES if family.name == name).model()
    kinds, head = LayerKinds(model, output_head(model)), output_head(model)
    modules = dict(model.named_modules()) | inner_linears(model)
    linear = {name for name, module in modules.items() if affine_shape(module) is not None and module is not head}
    for kind, ends in zip((ATTENTION, MLP, OTHER), EXPECTED[name], strict=True):
        found = {re.sub(r"\d+", "*", name) for name in linear if kinds.of(name) == kind}
        expected = ends.split()
        missed = [end for end in expected if not any(name.endswith(end) for name in found)]
        assert not missed and all(name.endswith(tuple(expected)) for name in found), (kind, found)
    assert kinds.of(next(name for name, module in modules.items() if isinstance(module, nn.Embedding))) == EMBEDDINGS
    if name.startswith("Llama"):
        assert kinds.of("lm_head") == kinds.of("lm_head.weight") == HEAD
        assert kinds.of("model.norm.weight") == kinds.of("model.layers.0.input_layernorm.weight") == NORMS


class Block(nn.Module):
    """Attention without a module of its own, found by the names of its projections."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.q, self.k, self.v = nn.LayerNorm(6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        x = (self.q(x) @ self.k(x).mT).softmax(-1) @ self.v(x)
        return self.second(self.first(x).relu())


def blocks() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.Sequential(Block(), Block()))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("attention", "qkv"),
        ("mlp", ("first", "second")),
        ("all-linear", (*"qkv", "first", "second")),
        ("everything", (*"qkv", "first", "second", "norm.weight", "norm.bias")),
    ],
)
def test_layers_are_chosen_by_kind(layers, expected):
    table = track(blocks(), choice=LayerChoice(layers=layers))
    chosen = {f"1.{block}.{name}" for block in range(2) for name in expected}
    assert set(names(table)) == chosen | ({"0"} if layers in ("all-linear", "everything") else set())
    if layers == "mlp":
        assert reasons(table)["1.0.q.weight"] == "not of the mlp, which `layers` asks for"
        also = track(blocks(), choice=LayerChoice(layers=layers, track=["*.q"], untrack=["1.0.*"]))
        assert set(names(also)) == {"1.0.q", "1.1.q", "1.1.first", "1.1.second"}


def test_a_kind_that_a_model_has_not_is_refused_and_what_there_is_is_told():
    message = "`layers` attention: expected a model with attention layers, found none among its linear layers "
    with pytest.raises(ConfigError, match=re.escape(f"{message}(2 of kind other)")):
        track(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), choice=LayerChoice(layers="attention"))
    model = nn.Sequential(nn.LayerNorm(6))
    with pytest.raises(ConfigError, match="no linear layers at all"):
        track_layers(model, random_probe(model, 6), LayerChoice(layers="mlp"))
