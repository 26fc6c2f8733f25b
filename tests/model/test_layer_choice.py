"""Which of the layers that can be tracked are tracked."""

import pytest
import torch
from probes import names, reasons, token_probe, track
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from gindex.errors import ConfigError
from gindex.model.layer_choice import LayerChoice
from gindex.model.layer_costs import WIDE_HEAD, LayerCosts, head_share, reason_against_head, structured_head
from gindex.model.layers import TrackedLayer
from gindex.model.sides import UNIT_VECTORS
from gindex.model.tracking import track_layers

WIDTH = 6


def three() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2))


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (LayerChoice(), ["0", "1", "2"]),
        (LayerChoice(untrack=["1"]), ["0", "2"]),
        (LayerChoice(untrack=["[01]"]), ["2"]),
        (LayerChoice(untrack=["*"], track=["1"]), ["1"]),
        (LayerChoice(untrack=["0", "2"], track=["?"]), ["0", "1", "2"]),
        (LayerChoice(names=["2", "0"]), ["0", "2"]),
    ],
)
def test_patterns_choose_layers(choice, expected):
    table = track(three(), choice=choice)
    assert names(table) == expected
    left = "left out by `untrack`" if choice.names is None else "not among the layers that the index was built with"
    assert set(reasons(table).values()) <= {left}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            LayerChoice(untrack=["3"]),
            "`untrack` 3: expected the name of a layer or a pattern of names, found none that",
        ),
        (LayerChoice(track=["lm_*"]), "`track` lm_.: expected the name of a layer or a pattern of names, found none"),
        (LayerChoice(track=["1"]), "`track` 1: expected a layer that can be tracked, found 1: its output is not"),
    ],
)
def test_patterns_that_do_nothing_are_refused(choice, message):
    model = three()
    model[1].register_forward_hook(lambda _module, _args, output: 2 * output)
    with pytest.raises(ConfigError, match=message):
        track(model, choice=choice)


def headed(vocabulary: int, *, tied: bool = False) -> nn.Module:
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


BROAD = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 2, "tie_word_embeddings": False}


def test_a_dear_output_head_is_off_by_default_and_can_be_had():
    torch.manual_seed(0)
    dear, cheap = headed(60), LlamaForCausalLM(LlamaConfig(vocab_size=60, **BROAD, num_hidden_layers=1)).eval()
    assert "lm_head" in names(track_layers(cheap, token_probe(cheap)))
    table = track_layers(dear, token_probe(dear))
    assert "lm_head" not in names(table)
    # A token's logits and hidden state, 68 values held twice, against the 92 of the body's layers.
    assert reasons(table)["lm_head.weight"] == (
        "an output head of 60 tokens, off by default for what it costs, 1.5 times what the body does; "
        "`track` lm_head takes it"
    )
    asked = track_layers(dear, token_probe(dear), LayerChoice(track=["lm_head"]))
    assert names(asked) == [*names(table), "lm_head"]
    assert table.share == asked.share == 480 / 504  # three norms of 8 are untracked; the head is not of the body
    assert asked.tracked_body == table.tracked_body
    assert (asked[-1].output_side.is_unit, asked[-1].input_side.is_unit) == (True, False)


def layer(name: str, inputs: int, outputs: int, source: str | None = None, **more) -> TrackedLayer:
    return TrackedLayer(
        name=name, module=nn.Identity(), inputs=inputs, outputs=outputs, has_bias=False, group="0",
        source=source or name, **more,
    )  # fmt: skip


def test_costs_are_those_of_the_shapes_and_what_is_shared_counts_once():
    """By hand: q and k read the same 4 values; blocks of 2 of the 6 outputs of k, unit vectors of the 8 of v."""
    q, k = layer("q", 4, 5), layer("k", 4, 6, "q", output_block=2)
    v = layer("v", 3, 8, output_block=UNIT_VECTORS, token_share=0.5)
    costs = LayerCosts.of([q, k, v])
    assert costs.factors == (16 + 25 + 20) + (3 * 4 + 24) + (9 + 24)
    assert costs.decompositions == (64 + 125) + 3 * 8 + 27
    assert costs.multiplications == costs.factors - (9 + 24) / 2
    assert costs.kept == (4 + 5) + 6 + (3 + 8) / 2


def test_a_wide_head_is_tracked_up_to_half_of_what_the_body_costs():
    """The head of 16,384 tokens keeps 16,448 values a token, twice; the body of n layers 128 n."""
    head = layer("head", 64, 16384, output_block=UNIT_VECTORS, body=False)
    bodies = {n: [layer(f"{n}.{i}", 64, 64) for i in range(n)] for n in (513, 514)}
    assert head_share(head, [*bodies[514], head]) == 0.5
    assert reason_against_head(head, [*bodies[514], head]) is None
    assert "0.5 times what the body does; `track` head takes it" in str(reason_against_head(head, bodies[513]))
    assert reason_against_head(head, [head]) is None  # nothing else is tracked


@pytest.mark.parametrize(
    ("tokens", "width", "unit"),
    [(64, 256, False), (64, 255, True), (WIDE_HEAD, 1 << 20, False), (WIDE_HEAD + 1, 1 << 20, True)],
)
def test_a_head_has_a_matrix_for_its_tokens_where_it_may_cost_as_much(tokens, width, unit):
    """A head of 64 tokens keeps 2 (64 + 64) values a token; a layer of `width` twice its width, half of it from 256."""
    head = layer("head", 64, tokens, body=False)
    assert structured_head(head, [layer("0", width, width)]).output_side.is_unit is unit
    assert not structured_head(layer("head", 64, 64), [layer("0", 8, 8)]).output_side.is_unit  # of an adapter's body


@pytest.mark.parametrize(
    ("vocabulary", "blocks", "basis"),
    [(8_500, 30, UNIT_VECTORS), (900, 4, UNIT_VECTORS), (300, 4, None), (8_000, 2, "untracked")],
)
def test_a_default_costs_at_most_half_as_much_again_as_the_body(vocabulary, blocks, basis):
    """Untied Llamas of many and few tokens, with bodies that are large enough for a head and one that is not."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, num_hidden_layers=blocks, **BROAD)).eval()
    table = track_layers(model, token_probe(model))
    heads = [layer for layer in table if layer.name == "lm_head"]
    assert [head.output_block for head in heads] == ([] if basis == "untracked" else [basis])
    body = [layer for layer in table if layer.body]
    assert LayerCosts.of(table).share_of(LayerCosts.of(body)) <= 1.5


@pytest.mark.parametrize("pattern", ["lm_head", "*head", "model.embed_tokens"])
def test_a_tied_head_goes_by_its_own_name_and_its_embedding_s(pattern):
    model = headed(40, tied=True)
    assert "model.embed_tokens" not in names(track_layers(model, token_probe(model)))
    table = track_layers(model, token_probe(model), LayerChoice(track=[pattern]))
    assert "model.embed_tokens" in names(table) and "lm_head" not in names(table)
    left = track_layers(model, token_probe(model), LayerChoice(layers="everything", untrack=[pattern]))
    assert "model.embed_tokens" not in names(left) and "model.norm.weight" in names(left)
