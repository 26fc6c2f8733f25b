"""Lookup tables: gradients of embeddings, tied or not, against autograd in float64; those that are refused."""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from probes import random_probe, token_probe
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from gindex.errors import ConfigError
from gindex.lab.refine.gauss_newton import GaussNewton
from gindex.model.layer_choice import LayerChoice
from gindex.model.layers import LayerTable
from gindex.model.losses import CausalLanguageModel
from gindex.model.tracking import track_layers
from gindex.vectors.influence import document_gradients, precondition_queries
from gindex.vectors.token_influence import token_influence
from tests.support.objectives import pad_tokens

EXACT = {"rtol": 1e-9, "atol": 1e-12}
SIZES = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 50, "max_position_embeddings": 32, "pad_token_id": 1, "bos_token_id": None,
    "eos_token_id": None,
}  # fmt: skip
MODELS = {
    "tied": ("llama", {"tie_word_embeddings": True}, ["model.embed_tokens"]),
    "untied": ("llama", {"tie_word_embeddings": False}, ["model.embed_tokens", "lm_head"]),
    "scaled and tied": ("gemma3_text", {"tie_word_embeddings": True, "head_dim": 8}, ["model.embed_tokens"]),
    "positions": ("gpt2", {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32}, ["transformer.w?e"]),
    "positions behind an offset": ("opt", {"ffn_dim": 24, "word_embed_proj_dim": 16}, ["model.decoder.embed_*"]),
}
DOCUMENTS = [
    np.random.default_rng(n).integers(1, 48, length).astype(np.uint32) for n, length in enumerate((9, 2, 14, 5))
]


def made(kind: str, settings: dict) -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES | settings)
    model = AutoModelForCausalLM.from_config(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def tables(table: LayerTable, model: nn.Module) -> list[str]:
    modules = dict(model.named_modules())
    return [layer.name for layer in table if isinstance(modules.get(layer.name), nn.Embedding)]


def loss_of(model: nn.Module, tokens: np.ndarray) -> Tensor:
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    return nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum")


def batch_of(documents: list[np.ndarray]):
    return pad_tokens(documents, np.arange(len(documents)), np.ones(len(documents), np.int64))


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_autograds(name):
    """Together in one padded batch and alone; autograd adds up all uses of the weight."""
    kind, settings, patterns = MODELS[name]
    model = made(kind, settings)
    reference = copy.deepcopy(model)
    table = track_layers(model, token_probe(model), LayerChoice(track=patterns))
    task, names = CausalLanguageModel(model), tables(table, model)
    assert len(names) == 2 if "positions" in name else 1
    assert not any(layer.body for layer in table if layer.name in names)
    groups = [list(range(4)), *([n] for n in range(4))]
    for group in groups:
        batch = batch_of([DOCUMENTS[n] for n in group])
        G_NW, space = document_gradients(table.layers, len(group), partial(task.losses, batch))
        for layer, G in space.split(G_NW).items():
            if layer not in names:
                continue
            for row, n in zip(G, group, strict=True):
                (expected,) = torch.autograd.grad(
                    loss_of(reference, DOCUMENTS[n]), [reference.get_submodule(layer).weight]
                )
                torch.testing.assert_close(row, expected, **EXACT)
                assert expected.norm() > 0


def test_every_weight_of_a_model_is_tracked_where_all_are_asked_for():
    model = made("llama", {"tie_word_embeddings": True})
    total = sum(parameter.numel() for parameter in model.parameters())
    table = track_layers(model, token_probe(model), LayerChoice(layers="everything"))
    assert sum(layer.parameters for layer in table) == total and not table.untracked


def test_influence_of_tokens_is_told_apart_by_the_token_that_is_read():
    """The head's part of a tied table belongs to the token at whose position the logits are."""
    model = made("llama", {"tie_word_embeddings": True})
    table = track_layers(model, token_probe(model), LayerChoice(track=["model.embed_tokens"]))
    task, batch = CausalLanguageModel(model), batch_of(DOCUMENTS[:1])
    X = {layer.name: torch.randn(1, layer.outputs, layer.inputs, dtype=torch.float64) for layer in table}
    influence_LNT = token_influence(table.layers, X, 1, partial(task.losses, batch))
    assert influence_LNT.shape == (len(table), 1, len(DOCUMENTS[0]))
    G_NW, space = document_gradients(table.layers, 1, partial(task.losses, batch))
    for row, (name, G) in zip(influence_LNT, space.split(G_NW).items(), strict=True):
        torch.testing.assert_close(row.sum(), (X[name] * G).sum(), **EXACT)
    # The last token's logits predict nothing, and nothing is read after it: it has no gradient at all.
    assert influence_LNT[0, 0, -1] == 0 and influence_LNT[0, 0, 0] != 0


def test_gauss_newton_products_see_both_uses():
    """Reference: J^T H J v by autograd through the plain model."""
    model = made("llama", {"tie_word_embeddings": True})
    reference = copy.deepcopy(model)
    table = track_layers(model, token_probe(model), LayerChoice(track=["model.embed_tokens"], untrack=["*proj"]))
    (layer,) = table
    product = GaussNewton(table.layers, CausalLanguageModel(model), [batch_of(DOCUMENTS)])
    v = torch.randn(1, layer.parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = product.product(v)[0]
    weight, V = reference.model.embed_tokens.weight, v.view(layer.outputs, layer.inputs)
    expected = torch.zeros_like(V)
    for tokens in DOCUMENTS:
        ids = torch.from_numpy(tokens.astype(np.int64))[None]

        def logits(moved: Tensor, ids: Tensor = ids) -> Tensor:
            names = {"model.embed_tokens.weight": moved, "lm_head.weight": moved}
            return torch.func.functional_call(reference, names, (ids,)).logits[0, :-1]

        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            outputs, tangent = torch.func.jvp(logits, (weight.detach(),), (V,))
            p = outputs.softmax(-1)
            pulled = p * (tangent - (p * tangent).sum(-1, keepdim=True))
            expected += torch.func.vjp(logits, weight.detach())[1](pulled)[0] / len(DOCUMENTS)
    torch.testing.assert_close(found.view_as(expected), expected, rtol=1e-7, atol=1e-10)


class Reader(nn.Module):
    """Looks entries up in the way that it is given, and sums them with weights of their place."""

    def __init__(self, look_up: Callable[["Reader", Tensor], Tensor], **settings) -> None:
        super().__init__()
        self.entries = nn.Embedding(20, 6, **settings)
        self.last = nn.Linear(6, 3)
        self._look_up = look_up

    def forward(self, x: Tensor) -> Tensor:
        ids = (x.abs() * 7).long() % 20
        return self.last(torch.tanh(self._look_up(self, ids)).sum(1))


def once(reader: Reader, ids: Tensor) -> Tensor:
    return reader.entries(ids)


def twice(reader: Reader, ids: Tensor) -> Tensor:
    return reader.entries(ids) + reader.entries((ids + 1) % 20)


def positions(reader: Reader, ids: Tensor) -> Tensor:
    return reader.entries(torch.arange(ids.shape[1])) + 0.1 * ids[:, :, None]


def sliced(reader: Reader, ids: Tensor) -> Tensor:
    return reader.entries.weight[: ids.shape[1]] + 0.1 * ids[:, :, None]


def ungraded(reader: Reader, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return reader.entries(ids)


def turned(reader: Reader, ids: Tensor) -> Tensor:
    return reader.entries(ids.T).transpose(0, 1)


def elsewhere(reader: Reader, ids: Tensor) -> Tensor:
    return reader.entries(ids) + reader.entries.weight.sum()


@pytest.mark.parametrize(
    ("look_up", "settings", "reason"),
    [
        (once, {"max_norm": 1.0}, "max_norm"),
        (once, {"scale_grad_by_freq": True}, "scale_grad_by_freq"),
        (once, {"sparse": True}, "sparse gradients"),
        (sliced, {}, "its entries are not looked up with gradients, or in a way of their own"),
        (ungraded, {}, "its entries are not looked up with gradients"),
        (turned, {}, "its lookups have another axis first"),
        (elsewhere, {}, "its weights are used elsewhere too"),
    ],
    ids=["scaled entries", "by frequency", "sparse", "sliced", "without gradients", "turned", "elsewhere"],
)
def test_tables_that_cannot_be_tracked_are_refused_by_name(look_up, settings, reason):
    torch.manual_seed(0)
    model = Reader(look_up, **settings)
    with pytest.raises(ConfigError, match=reason):
        track_layers(model, random_probe(model, 5), LayerChoice(track=["entries"]))


@pytest.mark.parametrize("look_up", [once, twice, positions])
def test_a_table_has_the_gradient_of_all_its_lookups(look_up):
    """Two in a pass, or one of positions that all documents share; also where there are as many as documents."""
    torch.manual_seed(0)
    model = Reader(look_up).double()
    table = track_layers(model, random_probe(model, 5, dtype=torch.float64), LayerChoice(track=["entries"]))
    for count in (3, 5):
        x = torch.randn(count, 5, dtype=torch.float64)
        G_NW, space = document_gradients(table.layers, count, lambda x=x: model(x).square().sum(1))
        model.requires_grad_(True)
        for n, G in enumerate(space.split(G_NW)["entries"]):
            (expected,) = torch.autograd.grad(model(x[n : n + 1]).square().sum(), [model.entries.weight])
            torch.testing.assert_close(G, expected, **EXACT)
        model.requires_grad_(False)


def test_an_entry_for_padding_gets_no_gradient_from_lookups():
    torch.manual_seed(0)
    model = Reader(once, padding_idx=3)
    table = track_layers(model, random_probe(model, 5), LayerChoice(track=["entries"]))
    assert "entries" in [layer.name for layer in table]


def test_preconditioning_of_a_tied_table():
    """H^-1 of the summed gradient in bases of any kind is that of dense matrices."""
    from gindex.curvature.basis import DenseBasis, UnitBasis
    from gindex.curvature.ekfac import LayerFactors

    model = made("llama", {"tie_word_embeddings": True})
    table = track_layers(model, token_probe(model), LayerChoice(track=["model.embed_tokens"], untrack=["*proj"]))
    (layer,) = table
    generator = torch.Generator().manual_seed(0)
    Lambda = torch.rand(layer.outputs, layer.inputs, dtype=torch.float64, generator=generator)
    Q = torch.linalg.qr(torch.randn(layer.inputs, layer.inputs, dtype=torch.float64, generator=generator)).Q
    order = torch.randperm(layer.outputs, generator=generator)
    factors = LayerFactors(
        Q_A=DenseBasis(Q), Q_S=UnitBasis(layer.outputs, order, torch.float64), Lambda=Lambda, mean_eigenvalue=0.5
    )
    task, batch = CausalLanguageModel(model), batch_of(DOCUMENTS[:1])
    losses = partial(task.losses, batch)
    found = precondition_queries(table.layers, lambda _name: factors, 0.1, 1, losses)[layer.name][0]
    G_NW, space = document_gradients(table.layers, 1, losses)
    G, P = space.split(G_NW)[layer.name][0], torch.eye(layer.outputs, dtype=torch.float64)[:, order]
    torch.testing.assert_close(found, P @ ((P.T @ G @ Q) / (Lambda + 0.05)) @ Q.T, **EXACT)
