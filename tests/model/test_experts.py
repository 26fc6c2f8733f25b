"""Experts by fused weights and routers: found, run, told apart by document, and refused where they are otherwise."""

import copy

import numpy as np
import pytest
import torch
from against_autograd import reference_gradients
from families import EXPERTS, FAMILIES, VOCABULARY
from torch import nn

from gindex.corpus.batches import pad
from gindex.corpus.objectives import Objective
from gindex.errors import ConfigError
from gindex.model.capture import observe
from gindex.model.checkpointing import checkpointed
from gindex.model.experts import route
from gindex.model.inner_linears import ExpertLinears, Pairs
from gindex.model.layer_choice import LayerChoice
from gindex.model.losses import CausalLanguageModel
from gindex.model.observer import Observer
from gindex.model.routes import Routes
from gindex.model.tracked_model import _probe
from gindex.model.tracking import track_layers
from gindex.vectors.influence import document_gradients, exact_influence
from gindex.vectors.token_influence import token_influence

LENGTHS = (9, 2, 14, 5)
FAMILY = {family.name: family for family in FAMILIES}


@pytest.fixture(scope="module")
def mixture():
    """A Mixtral in float64, its reference, and documents."""
    model = FAMILY["Mixtral"].model().double()
    model.set_experts_implementation("eager")
    return model, copy.deepcopy(model)


@pytest.fixture(scope="module")
def tokens():
    generator = np.random.default_rng(0)
    return [generator.integers(1, 250, length).astype(np.uint32) for length in LENGTHS]


def table_of(model, choice=None):
    task = CausalLanguageModel(model)
    return track_layers(model, lambda count: task.logits(_probe(task, count)), choice), task


def batch_of(tokens):
    return pad([Objective.counting(ids) for ids in tokens], np.arange(len(tokens)))


def gradients_of(table, task, tokens):
    batch = batch_of(tokens)
    G_NW, space = document_gradients(table.layers, len(tokens), lambda: task.losses(batch))
    return space.split(G_NW)


def test_every_expert_and_the_router_are_layers(mixture):
    table, _ = table_of(mixture[0])
    names = [layer.name for layer in table]
    for block in (0, 1):
        assert f"model.layers.{block}.mlp.gate" in names
        for weight, shape in (("gate_up_proj", (32, 96)), ("down_proj", (48, 32))):
            experts = [layer for layer in table if layer.whole == f"model.layers.{block}.mlp.experts.{weight}"]
            assert [layer.expert for layer in experts] == list(range(EXPERTS["num_experts"]))
            assert {(layer.inputs, layer.outputs) for layer in experts} == {shape}
            assert {layer.group for layer in experts} == {f"model.layers.{block}"}
            assert {layer.token_share for layer in experts} == {0.5}  # two experts of four
    assert table.share > 0.99


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2], [2]])
def test_gradients_of_experts_are_autograds_one_document_at_a_time(order, mixture, tokens):
    """Float64 sums of a few tokens: 1e-15 of the largest gradient, whatever the batch."""
    (model, reference), some = mixture, [tokens[n] for n in order]
    table, task = table_of(model)
    found = gradients_of(table, task, some)
    for n, ids in enumerate(some):
        expected = reference_gradients(reference, [layer.name for layer in table], ids)
        for name, G_OI in expected.items():
            torch.testing.assert_close(found[name][n], G_OI, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("implementation", ["eager", "grouped_mm", "batched_mm"])
def test_any_implementation_of_experts_gives_the_same(implementation, tokens):
    """In float32, in which all of them run: rounding."""
    model = FAMILY["Qwen3-MoE"].model()
    reference = copy.deepcopy(model).double()
    reference.set_experts_implementation("eager")
    model.set_experts_implementation(implementation)
    table, task = table_of(model)
    assert table.share > 0.98
    found = gradients_of(table, task, tokens)
    names = [layer.name for layer in table]
    expected = [reference_gradients(reference, names, ids) for ids in tokens]
    for name in names:
        largest = max(float(G[name].norm()) for G in expected)
        for n, G in enumerate(expected):
            assert float((found[name][n] - G[name]).norm()) <= 1e-4 * largest


def test_checkpointed_blocks_give_the_same_gradients(mixture, tokens):
    table, task = table_of(mixture[0])
    plain = gradients_of(table, task, tokens)
    with checkpointed(list(mixture[0].model.layers)):
        again = gradients_of(table, task, tokens)
    for name, G_NOI in plain.items():
        torch.testing.assert_close(again[name], G_NOI, rtol=1e-12, atol=1e-14)


def test_outside_of_a_pass_the_model_is_as_it_was(mixture):
    model, reference = mixture
    table_of(model)
    assert all("forward" not in vars(module) for module in model.modules())
    assert model.state_dict().keys() == reference.state_dict().keys()
    ids = torch.arange(1, 9)[None]
    torch.testing.assert_close(model(ids).logits, reference(ids).logits, rtol=0, atol=0)


def test_influence_by_tokens_lies_at_the_positions_of_the_tokens(mixture, tokens):
    """Their sum is the influence, padding has none, and an expert's influence is where its tokens were read."""
    table, task = table_of(mixture[0])
    X = {name: G_NOI[:1] for name, G_NOI in gradients_of(table, task, tokens).items()}
    batch = batch_of(tokens)
    by_token_LNT = token_influence(table.layers, X, len(tokens), lambda: task.losses(batch))
    wanted_QN = torch.ones(1, len(tokens), dtype=torch.bool)
    whole_QN = exact_influence(table.layers, X, wanted_QN, lambda: task.losses(batch))
    torch.testing.assert_close(by_token_LNT.sum((0, 2)), whole_QN[0], rtol=1e-10, atol=1e-12)
    for n, length in enumerate(LENGTHS):
        assert not by_token_LNT[:, n, length:].any()
    layer = next(n for n, of in enumerate(table) if of.name.endswith("gate_up_proj.0"))
    seen = Positions(table[layer].name)
    observe(table.layers, seen, len(tokens), lambda: task.losses(batch))
    for n, length in enumerate(LENGTHS):
        routed = set(seen.positions_NT[n].tolist()) & set(range(length - 1))  # the last token predicts nothing
        assert set(by_token_LNT[layer, n].nonzero()[:, 0].tolist()) == routed


class Positions(Observer):
    """Keeps the positions of one expert's tokens."""

    def __init__(self, name):
        self.name, self.positions_NT = name, None

    def routed(self, layer, positions_NT):
        if layer.name == self.name:
            self.positions_NT = positions_NT

    def activations(self, layer, a_NTI):
        pass

    def gradients(self, layer, kept, g_NTO):
        pass


def test_routed_tokens_are_padded_by_document():
    """Tokens 0 to 2 are the first document's, 3 to 5 the second's; expert 1 gets one and three of them."""
    experts_RK = torch.tensor([[0, 1], [0, 2], [0, 2], [1, 2], [1, 0], [1, 9]])
    pairs, order = route(experts_RK, 3)
    assert pairs.sizes == (4, 4, 3) and len(order) == 11  # 9 is no expert
    routes = Routes.of(pairs, 2, torch.device("cpu"))
    assert routes.positions(1).tolist() == [[0, -1, -1], [0, 1, 2]]
    assert routes.positions(2).tolist() == [[1, 2], [0, -1]]
    x_SX = (10.0 * pairs.rows)[:, None]
    spread = routes.spread(x_SX)
    assert routes.by_document(1, spread)[..., 0].tolist() == [[0, 0, 0], [30, 40, 50]]
    assert routes.by_document(0, spread)[..., 0].tolist() == [[0, 10, 20], [40, 0, 0]]


@pytest.mark.parametrize("is_transposed", [False, True])
def test_the_maps_of_experts_are_those_of_linear_layers(is_transposed):
    E, inputs, outputs = 3, 5, 4
    weight = nn.Parameter(torch.randn(E, *((inputs, outputs) if is_transposed else (outputs, inputs))).double())
    linears = ExpertLinears(weight, nn.Parameter(torch.randn(E, outputs).double()), E, is_transposed=is_transposed)
    assert (linears.inputs, linears.outputs) == (inputs, outputs)
    x_SI, sizes = torch.randn(6, inputs).double(), (2, 0, 4)
    found = linears(x_SI, Pairs(torch.arange(6), sizes, 6))
    for row, expert in enumerate([0, 0, 2, 2, 2, 2]):
        W = weight[expert].T if is_transposed else weight[expert]
        torch.testing.assert_close(found[row], W @ x_SI[row] + linears.bias[expert])


def test_experts_are_chosen_by_their_fused_weight(mixture):
    model = mixture[0]
    table, _ = table_of(model, LayerChoice(untrack=["*.experts.down_proj"]))
    assert not any("down_proj" in layer.name for layer in table)
    reasons = {weight.name: weight.reason for weight in table.untracked}
    assert reasons["model.layers.0.mlp.experts.down_proj"] == "left out by `untrack`"
    with pytest.raises(ConfigError, match="none that it matches"):
        table_of(model, LayerChoice(untrack=["*.experts.down_proj.3"]))


class Routed(nn.Module):
    """A mixture of two experts on [N * T, 8], with routing of its own."""

    def __init__(self, experts, route):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, 8)
        self.first = nn.Linear(8, 8)
        self.experts, self.route = experts, route

    def forward(self, ids):
        x = self.first(self.embed(ids))
        flat = x.reshape(-1, 8)
        index = self.route(flat)
        return x + self.experts(flat, index, torch.ones_like(index, dtype=flat.dtype)).view(x.shape)


class LoopingExperts(nn.Module):
    """Experts that run one token at a time."""

    scale = 1

    def __init__(self):
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(2, 12, 8))
        self.down_proj = nn.Parameter(torch.randn(2, 8, 6))

    def _apply_gate(self, x):
        gate, up = x.chunk(2, -1)
        return gate.tanh() * up

    def forward(self, hidden_states, top_k_index, top_k_weights):
        pairs = zip(hidden_states, top_k_index[:, 0], strict=True)
        outputs = [self._apply_gate(x @ self.gate_up_proj[e].T) @ self.down_proj[e].T for x, e in pairs]
        return torch.stack(outputs) * top_k_weights * self.scale


class ScaledExperts(LoopingExperts):
    """Experts whose forward does more than their weights and gate say."""

    scale = 2


def by_sign(flat):
    return (flat[:, :1] > 0).long()


def table_of_routed(experts, route):
    torch.manual_seed(0)
    model = Routed(experts, route).double()
    return track_layers(model, lambda count: model(torch.arange(count * 3).view(count, 3)))


def test_experts_of_another_library_are_tracked_where_they_are_like_those_of_transformers():
    table = table_of_routed(LoopingExperts(), by_sign)
    assert [layer.name for layer in table if layer.expert is not None] == [
        f"experts.{weight}.{expert}" for weight in ("gate_up_proj", "down_proj") for expert in (0, 1)
    ]
    assert not [weight for weight in table.untracked if weight.body]


def test_experts_that_compute_something_else_are_left_out_and_harm_no_other_layer():
    table = table_of_routed(ScaledExperts(), by_sign)
    reasons = {weight.name: weight.reason for weight in table.untracked}
    assert reasons["experts.gate_up_proj"] == "ScaledExperts computes something else than its weights say"
    assert [layer.name for layer in table] == ["first"]
