"""The loss of an output head: that of all logits, gradient too, whatever the chunks; and which heads are plain."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    PretrainedConfig,
)

from gindex.model import head as head_module
from gindex.model.head import head_losses, plain_head
from gindex.model.losses import CausalLanguageModel
from gindex.model.tracked_model import TrackedModel
from tests.support.objectives import pad_tokens

SMALL = {
    "vocab_size": 40, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
TOKENS = torch.tensor([[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("positions", [0, 1, 4, 5, 11])
def test_loss_and_gradient_are_those_of_cross_entropy(bias, positions, monkeypatch):
    """Reference: autograd through all logits at once, in float64; chunks of 4 positions."""
    monkeypatch.setattr(head_module, "CHUNK", 4)
    torch.manual_seed(positions)
    head = nn.Linear(6, 9, bias=bias).double().requires_grad_(False)
    hidden = torch.randn(positions, 6, dtype=torch.float64, requires_grad=True)
    labels, weights = torch.randint(9, (positions,)), torch.randn(positions, dtype=torch.float64)
    losses = head_losses(hidden, head, lambda _probabilities, chunk: labels[chunk])
    expected = F.cross_entropy(head(hidden), labels, reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    (got,) = torch.autograd.grad((losses * weights).sum(), hidden)
    (reference,) = torch.autograd.grad((expected * weights).sum(), hidden)
    torch.testing.assert_close(got, reference, rtol=1e-12, atol=1e-12)


def test_labels_see_the_probabilities(monkeypatch):
    monkeypatch.setattr(head_module, "CHUNK", 2)
    torch.manual_seed(0)
    head, hidden, seen = nn.Linear(4, 7).requires_grad_(False), torch.randn(5, 4), []

    def labels(probabilities, chunk):
        seen.append(probabilities.clone())  # it is worked on afterwards
        return probabilities.argmax(1)

    losses = head_losses(hidden, head, labels)
    expected = head(hidden).softmax(1)
    torch.testing.assert_close(torch.cat(seen), expected)
    torch.testing.assert_close(losses, -expected.max(1).values.log())


def test_impossible_label_is_an_infinite_loss_without_a_nan():
    head = nn.Linear(2, 2, bias=False).requires_grad_(False)
    head.weight.data = torch.tensor([[1e30, 0.0], [-1e30, 0.0]])
    hidden = torch.ones(1, 2, requires_grad=True)
    losses = head_losses(hidden, head, lambda _probabilities, _chunk: torch.tensor([1]))
    assert losses.item() > 1e30


def test_nan_stays_in_its_position():
    torch.manual_seed(0)
    head = nn.Linear(3, 5).requires_grad_(False)
    hidden = torch.randn(4, 3)
    hidden[2] = torch.nan
    hidden.requires_grad_(True)
    losses = head_losses(hidden, head, lambda _probabilities, chunk: torch.zeros(4, dtype=torch.long)[chunk])
    (gradient,) = torch.autograd.grad(losses.sum(), hidden)
    assert torch.isfinite(losses).tolist() == [True, True, False, True]
    assert torch.isfinite(gradient).all(1).tolist() == [True, True, False, True]


def test_losses_are_the_same_with_and_without_the_head(llama):
    model = copy.deepcopy(llama)
    batch = pad_tokens([[3, 1, 4, 1, 5], [9, 2, 6]], [0, 1], [1, 2])
    whole, by_head = CausalLanguageModel(model), CausalLanguageModel(model, plain_head(model, TOKENS))
    torch.testing.assert_close(by_head.losses(batch), whole.losses(batch), rtol=1e-5, atol=1e-5)
    seeds = [1, 2]  # another label would differ by tenths of a nat
    torch.testing.assert_close(
        by_head.sampled_losses(batch, seeds), whole.sampled_losses(batch, seeds), rtol=1e-5, atol=1e-5
    )


def test_plain_heads(llama):
    assert plain_head(llama, TOKENS) is llama.lm_head
    small = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=8, n_layer=1, n_head=2, n_positions=16)).eval()
    assert plain_head(small, TOKENS) is small.lm_head


def test_scaled_or_capped_logits_have_no_plain_head(llama):
    model = copy.deepcopy(llama)

    class Capped(type(model)):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = torch.tanh(output.logits / 2) * 2
            return output

    model.__class__ = Capped
    assert plain_head(model, TOKENS) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("config", "plain"),
    [
        (Gemma2Config(**SMALL, head_dim=4, final_logit_softcapping=30.0), False),
        (Gemma2Config(**SMALL, head_dim=4, final_logit_softcapping=None), True),
        (CohereConfig(**SMALL, logit_scale=0.0625), False),
        (CohereConfig(**SMALL, logit_scale=1.0), True),
        (GraniteConfig(**SMALL, logits_scaling=8.0), False),
        (GraniteConfig(**SMALL, logits_scaling=1.0), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, PretrainedConfig) else str(value),
)
def test_a_cap_or_scale_is_seen_though_logits_are_small(config, plain, dtype):
    """Random weights give logits of tenths, from which a cap of 30 takes less than rounding does."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    assert (plain_head(model, TOKENS) is not None) == plain
    assert not any(module._forward_hooks for module in model.modules())


def test_a_capped_models_losses_are_those_of_its_logits():
    """Reference: the model's own loss, which transformers takes in float32."""
    torch.manual_seed(0)
    config = Gemma2Config(**SMALL, head_dim=4, final_logit_softcapping=0.5)
    model = AutoModelForCausalLM.from_config(config).double().eval()
    task = CausalLanguageModel(model, plain_head(model, TOKENS))
    expected = model(TOKENS, labels=TOKENS).loss * 4
    found = task.losses(pad_tokens(TOKENS.tolist(), [0, 1], [1, 1])).sum()
    torch.testing.assert_close(found.float(), expected, rtol=1e-6, atol=0)


def test_engine_passes_by_the_logits_only_where_the_head_is_not_tracked(make_config, tmp_path, small_tokenizer):
    assert TrackedModel.load(make_config().model).task.head is not None
    config = GPT2Config(vocab_size=len(small_tokenizer), n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=False)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    small_tokenizer.save_pretrained(tmp_path)
    engine = TrackedModel.load(make_config(name=str(tmp_path), track=("lm_head",)).model)
    assert "lm_head" in [layer.name for layer in engine.table.layers]
    assert engine.task.head is None
