"""Document losses, and labels sampled from the model's own distribution."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from gindex.model.losses import BLOCK_LABELS, CausalLanguageModel, sample_labels
from tests.support.objectives import pad_tokens

JUST_BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


@pytest.fixture(params=["logits", "head"])
def task(llama: nn.Module, request: pytest.FixtureRequest) -> CausalLanguageModel:
    model = copy.deepcopy(llama)
    return CausalLanguageModel(model, model.lm_head if request.param == "head" else None)


def token_losses(model: nn.Module, tokens: list[int], first: int) -> float:
    """Sum the losses of targets from `first` on, one position at a time, each from its own prefix."""
    total = 0.0
    for position in range(max(1, first), len(tokens)):
        logits = model(torch.tensor([tokens[:position]]), use_cache=False).logits[0, -1]
        total -= float(logits[tokens[position]] - logits.logsumexp(0))
    return total


@pytest.mark.parametrize("first", [1, 3])
def test_losses_are_sums_over_the_targets(task, documents, first):
    batch = pad_tokens(documents, range(len(documents)), [first] * len(documents))
    got = task.losses(batch)
    expected = torch.tensor([token_losses(task.model, tokens, first) for tokens in documents])
    # The loss is taken in float32 (2**-24 a token, at most 12 tokens of about 6 nats).
    torch.testing.assert_close(got.detach().float(), expected, rtol=1e-5, atol=1e-5)
    assert got[1] == 0, "a document of one token predicts nothing"


def test_model_is_frozen_and_dropout_is_off(llama):
    model = copy.deepcopy(llama).train().requires_grad_(True)
    CausalLanguageModel(model)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_losses_without_any_target(task):
    batch = pad_tokens([[5], [6]], [0, 1], [1, 1])
    assert task.losses(batch).tolist() == [0, 0]
    assert task.sampled_losses(batch, [1, 2]).tolist() == [0, 0]


def test_losses_do_not_depend_on_the_batch(task, documents):
    together = task.losses(pad_tokens(documents, range(4), [1] * 4))
    for n, tokens in enumerate(documents):
        alone = task.losses(pad_tokens([tokens], [n], [1]))[0]
        torch.testing.assert_close(alone, together[n], rtol=1e-6, atol=1e-6)  # a float32 sum in another order


def test_sampled_losses_do_not_depend_on_the_batch(task, documents):
    seeds = [11, 12, 13, 14]
    together = task.sampled_losses(pad_tokens(documents, range(4), [1] * 4), seeds)
    backwards = task.sampled_losses(pad_tokens(documents[::-1], range(4), [1] * 4), seeds[::-1]).flip(0)
    for n, tokens in enumerate(documents):
        alone = task.sampled_losses(pad_tokens([tokens], [n], [1]), [seeds[n]])[0]
        # Another label would differ by tenths of a nat; this is a float32 sum in another order.
        torch.testing.assert_close(alone, together[n], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(backwards[n], together[n], rtol=1e-6, atol=1e-6)


def test_sampled_losses_depend_on_the_seed(task, documents):
    batch = pad_tokens(documents, range(4), [1] * 4)
    one, same, other = (task.sampled_losses(batch, [seed] * 4) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert (one != other)[[0, 2, 3]].all()


def test_sampled_losses_follow_the_model(task):
    """Many copies of a two-token document, each with a seed of its own: every loss names its label."""
    copies = 4000
    with torch.no_grad():
        task.model.lm_head.weight.mul_(4)  # a less even distribution; also tied to the embedding, which is as good
        losses = task.sampled_losses(
            pad_tokens([[7, 8]] * copies, range(copies), [1] * copies), list(range(copies))
        ).double()
        log_p = task.model(torch.tensor([[7]]), use_cache=False).logits[0, -1].log_softmax(-1)
    distance, labels = (losses[:, None] + log_p[None, :]).abs().min(1)
    assert distance.max() < 1e-5  # float32 rounding of losses of about 6 nats
    counts, p = torch.bincount(labels, minlength=len(log_p)), log_p.exp()
    expected = copies * p
    # 4.5 standard deviations: one in 150,000 for each of 300 labels, for a seed that is fixed.
    assert ((counts - expected).abs() <= 4.5 * (expected * (1 - p)).sqrt() + 1).all()


def test_sampled_labels_match_the_distribution_exactly_on_an_even_grid():
    """Inverting the cumulative distribution on K evenly spaced numbers gives each label K p of them, to within one."""
    logits = torch.tensor([0.3, -1.0, 2.0, 0.0, -4.0, 1.0], dtype=torch.float64)
    points = 20_000
    uniforms = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    counts = torch.bincount(sample_labels(logits.softmax(0).expand(points, -1), uniforms), minlength=6)
    assert ((counts - points * logits.softmax(0)).abs() <= 1).all()


def test_sampled_labels_match_the_distribution_of_float32_logits():
    generator = torch.Generator().manual_seed(0)
    logits, draws = torch.randn(12, generator=generator) * 2, 60_000
    labels = sample_labels(logits.softmax(0).expand(draws, -1), torch.rand(draws, generator=generator))
    p = logits.double().softmax(0)
    chi_square = ((torch.bincount(labels, minlength=12) - draws * p).square() / (draws * p)).sum()
    assert chi_square < 31.3  # the .999 quantile at 11 degrees of freedom


@pytest.mark.parametrize("labels", [9, BLOCK_LABELS, 3 * BLOCK_LABELS, 3 * BLOCK_LABELS + 41])
def test_sampled_labels_are_the_first_past_the_number(labels):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, labels, generator=generator, dtype=torch.float64)
    probabilities = logits.softmax(-1)
    uniforms = torch.rand(300, generator=generator, dtype=torch.float64)
    slow = [
        next(k for k, c in enumerate(row.cumsum(0)) if c > u) for row, u in zip(probabilities, uniforms, strict=True)
    ]
    assert sample_labels(probabilities, uniforms).tolist() == slow


def test_no_positions():
    labels = sample_labels(torch.zeros(0, 5), torch.zeros(0))
    assert labels.shape == (0,) and labels.dtype == torch.long


@pytest.mark.parametrize("uniform", [0.0, JUST_BELOW_ONE])
@pytest.mark.parametrize("labels", [40, 2 * BLOCK_LABELS + 40])
def test_edge_uniforms_give_labels_that_are_possible(labels, uniform):
    """Impossible labels at both ends and between; a cumulative sum that rounds below or above 1."""
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(500, labels, generator=generator)
    logits[:, [0, 1, 20, labels - 2, labels - 1]] = -math.inf
    sampled = sample_labels(logits.softmax(-1), torch.full((500,), uniform))
    assert torch.isfinite(logits)[torch.arange(500), sampled].all()
    if uniform == 0 or labels == 40:
        assert set(sampled.tolist()) == {2 if uniform == 0 else labels - 3}
    cumulative = logits.double().softmax(-1).cumsum(1)
    before, after = cumulative.gather(1, (sampled - 1)[:, None]), cumulative.gather(1, sampled[:, None])
    rounding = 4 * torch.finfo(torch.float32).eps
    assert (before < uniform + rounding).all() and (after > uniform - rounding).all()


@pytest.mark.parametrize("uniform", [0.0, 0.5, JUST_BELOW_ONE])
@pytest.mark.parametrize("certain", [0, 3, 6])
def test_a_certain_label_is_always_drawn(certain, uniform):
    logits = torch.full((1, 7), -200.0)
    logits[0, certain] = 0
    assert sample_labels(logits.softmax(-1), torch.tensor([uniform])).tolist() == [certain]
