"""Which of the layers that can be tracked are tracked."""

import pytest
import torch
from probes import names, reasons, token_probe, track
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from gindex.errors import ConfigError
from gindex.model.layer_choice import WIDE_HEAD, LayerChoice
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


def test_a_wide_output_head_is_off_by_default_and_can_be_had():
    torch.manual_seed(0)
    wide, narrow = headed(WIDE_HEAD + 1), headed(WIDE_HEAD)
    assert "lm_head" in names(track_layers(narrow, token_probe(narrow)))
    table = track_layers(wide, token_probe(wide))
    assert "lm_head" not in names(table)
    assert reasons(table)["lm_head.weight"] == (
        "an output head of 8,193 tokens, off by default for what it costs; `track` lm_head takes it"
    )
    asked = track_layers(wide, token_probe(wide), LayerChoice(track=["lm_head"]))
    assert names(asked) == [*names(table), "lm_head"]
    assert table.share == asked.share == 480 / 504  # three norms of 8 are untracked; the head is not of the body
    assert asked.tracked_body == table.tracked_body
    assert (asked[-1].output_side.is_unit, asked[-1].input_side.is_unit) == (True, False)


def test_a_head_that_is_tied_cannot_be_had():
    model = headed(40, tied=True)
    with pytest.raises(
        ConfigError, match="`track` lm_head: expected a layer that can be tracked, found lm_head: tied to"
    ):
        track_layers(model, token_probe(model), LayerChoice(track=["lm_head"]))
