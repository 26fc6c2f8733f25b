"""Attention in float32 for models in 16 bits on a CPU."""

import copy

import pytest
import torch

from gindex.model import attention
from gindex.model.attention import ATTENTION, use_fast_attention
from gindex.model.losses import CausalLanguageModel
from tests.support.objectives import pad_tokens

BATCH = pad_tokens([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5]], [0, 1], [1, 1])


def hidden_gradient(model: torch.nn.Module) -> torch.Tensor:
    """Return the gradient of the losses with respect to the embeddings of the batch, of real tokens alone."""
    seen: list[torch.Tensor] = []

    def keep(_module, _inputs, output):
        seen.append(output.requires_grad_(True))
        return seen[-1]

    handle = model.get_input_embeddings().register_forward_hook(keep)
    try:
        losses = CausalLanguageModel(model).losses(BATCH)
    finally:
        handle.remove()
    (gradient,) = torch.autograd.grad(losses.sum(), seen)
    return gradient[torch.from_numpy(BATCH.mask)].double()


def prepared(llama: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    model = copy.deepcopy(llama).to(dtype)
    use_fast_attention(model)
    return model


def test_what_is_no_model_of_transformers_stays_as_it_is():
    model = torch.nn.Linear(2, 2).bfloat16()
    use_fast_attention(model)
    assert not hasattr(model, "config")


@pytest.mark.parametrize("own", ["sdpa", "eager"])
def test_float32_models_and_eager_attention_stay_as_they_are(llama, own):
    model = copy.deepcopy(llama)
    model.set_attn_implementation(own)
    use_fast_attention(model)
    assert model.config._attn_implementation == own
    model = model.bfloat16()
    use_fast_attention(model)
    assert model.config._attn_implementation == (ATTENTION if own == "sdpa" else own)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_come_as_near_to_float64_as_those_of_16_bits(llama, dtype):
    rounded = copy.deepcopy(llama).to(dtype)  # all three have the same weights
    exact = hidden_gradient(copy.deepcopy(rounded).double())
    plain, fast = ((hidden_gradient(m) - exact).norm() / exact.norm() for m in (rounded, prepared(llama, dtype)))
    assert fast < 1.2 * plain < 0.1


def test_it_is_taken_for_short_documents_alone(llama, monkeypatch):
    model, formats = prepared(llama, torch.bfloat16), []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def spy(query, *args, **kwargs):
        formats.append(query.dtype)
        return kernel(query, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    short = model(torch.from_numpy(BATCH.tokens)).logits
    assert formats and set(formats) == {torch.float32} and short.dtype == torch.bfloat16
    formats.clear()
    monkeypatch.setattr(attention, "LONGEST_DOCUMENT", 6)
    long = model(torch.from_numpy(BATCH.tokens)).logits
    assert set(formats) == {torch.bfloat16}
    torch.testing.assert_close(short, long, atol=0.05, rtol=0.05)


def test_a_mask_is_kept(llama):
    model, tokens = prepared(llama, torch.bfloat16), torch.from_numpy(BATCH.tokens)
    mask = torch.from_numpy(BATCH.mask).long().flip(1)  # padding on the left, which no causal mask hides
    other = tokens.clone()
    other[mask == 0] += 1
    seen = mask.bool()
    first, second = (model(t, attention_mask=mask).logits[seen] for t in (tokens, other))
    assert torch.equal(first, second)
    assert not torch.equal(model(tokens).logits[seen], first)
