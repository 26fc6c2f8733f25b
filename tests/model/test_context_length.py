"""How many tokens a model takes."""

import pytest
from transformers import CTRLConfig, Gemma3TextConfig, GPT2Config, LlamaConfig, MambaConfig, MptConfig, Phi3Config

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
