"""How many tokens a model takes."""

from types import SimpleNamespace

import pytest
import torch
from families import FAMILIES
from transformers import (
    CTRLConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    Phi3Config,
    RobertaConfig,
    WhisperConfig,
    XLMRobertaXLConfig,
    XLNetConfig,
)

from gindex.model.context_length import NO_LIMIT, most_tokens


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        (LlamaConfig(max_position_embeddings=64), 64),
        (GPT2Config(n_positions=96), 96),
        (CTRLConfig(n_positions=80), 80),
        (MptConfig(max_seq_len=48), 48),
        (MambaConfig(), NO_LIMIT),
        (Gemma3TextConfig(max_position_embeddings=72), 72),
        (RobertaConfig(max_position_embeddings=514), 512),
        (RobertaConfig(max_position_embeddings=64, pad_token_id=0), 63),
        (XLMRobertaXLConfig(), 512),
        (WhisperConfig(), 448),
        (XLNetConfig(), NO_LIMIT),
        (SimpleNamespace(seq_length=8192, n_ctx=10), 8192),
        (SimpleNamespace(n_ctx=40.0), 40),
        (SimpleNamespace(n_positions=True, model_max_length=30), 30),
    ],
)
def test_the_limit_that_settings_state(settings, most):
    assert most_tokens(settings) == most


def test_positions_that_stretch_with_the_length_end_the_limit_where_they_begin_to():
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    settings = LlamaConfig(max_position_embeddings=64, rope_parameters=rope)
    assert most_tokens(settings) == 64
    settings = LlamaConfig(max_position_embeddings=256, rope_parameters=rope | {"original_max_position_embeddings": 32})
    assert most_tokens(settings) == 32
    long = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4, "rope_theta": 10000.0}
    phi = Phi3Config(
        max_position_embeddings=256, original_max_position_embeddings=32, rope_parameters=long, hidden_size=32,
        num_attention_heads=4, pad_token_id=None,
    )  # fmt: skip
    assert most_tokens(phi) == 32
    linear = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    assert most_tokens(LlamaConfig(max_position_embeddings=256, rope_parameters=linear)) == 256


def test_a_tokenizer_says_what_settings_do_not():
    assert most_tokens(MambaConfig(), {"model_max_length": 2048}) == 2048
    assert most_tokens(MambaConfig(), {"model_max_length": 1e30}) == NO_LIMIT
    assert most_tokens(LlamaConfig(max_position_embeddings=64), {"model_max_length": 32}) == 64


TABLES = (
    "gpt2", "gpt_neo", "gptj", "openai-gpt", "gpt_bigcode", "codegen", "opt", "biogpt", "ctrl", "bert", "roberta",
    "xmod", "git",
)  # fmt: skip
"""Kinds of models with a table of positions, which ends at the limit."""


@pytest.mark.parametrize("kind", TABLES)
def test_a_model_with_a_table_of_positions_takes_as_many_tokens_as_its_limit_says_and_not_one_more(kind):
    model = next(family for family in FAMILIES if family.kind == kind and family.refused is None).model()
    most = most_tokens(model.config)
    tokens_1T = torch.arange(most + 1)[None] % 200 + 1
    with torch.no_grad():
        assert torch.isfinite(model(tokens_1T[:, :most], use_cache=False).logits).all()
        with pytest.raises((IndexError, RuntimeError)):
            model(tokens_1T, use_cache=False)
