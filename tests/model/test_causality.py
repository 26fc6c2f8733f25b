"""What moves logits that should stand still is seen; what rounding does is not taken for it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gindex.corpus.batches import TokenBatch
from gindex.errors import ModelError, NonFiniteError
from gindex.model.causality import (
    LENGTH,
    ROUNDING,
    ROUNDING_16,
    SEEN,
    SEEN_16,
    check_causal,
    check_long,
    ordinary_tokens,
)

VOCABULARY = 50
TOKENS = list(range(VOCABULARY))


@pytest.fixture
def table() -> Tensor:
    """Logits [token, V] of a model that looks at the last token alone."""
    return torch.randn(VOCABULARY, VOCABULARY, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def check(logits: Callable[[Tensor], Tensor], most: int = 1000) -> None:
    check_causal("model", logits, TOKENS, most, torch.device("cpu"))


@pytest.mark.parametrize("most", [1, 2, 3, 10, 1000])
def test_a_causal_model_passes_whatever_its_length(table, most):
    check(lambda tokens: table[tokens].cumsum(1), most)


@pytest.mark.parametrize("reach", [1, 3, 20])
@pytest.mark.parametrize("share", [1.0, 0.05])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_later_token_is_seen_near_and_far(table, reach, share, dtype):
    """One that sees only the token `reach` after its own, and little of it, is found as well as one that sees all."""

    def logits(tokens: Tensor) -> Tensor:
        x = table[tokens]
        x[:, :-reach] += share * table[tokens[:, reach:]]
        return x.to(dtype)

    with pytest.raises(ModelError, match="when a later token changes"):
        check(logits)


def test_the_number_of_tokens_that_follow_is_seen(table):
    """No token is looked at, only how many there are: as with a mask that is made from the whole batch."""
    with pytest.raises(ModelError, match="needs an attention mask"):
        check(lambda tokens: table[tokens] * tokens.shape[1] / LENGTH)


def test_other_documents_are_seen(table):
    with pytest.raises(ModelError, match="when others of the batch change"):
        check(lambda tokens: table[tokens] + 0.2 * table[tokens].mean((0, 1), keepdim=True) * (len(tokens) > 1))


@pytest.mark.parametrize(
    ("dtype", "rounding"), [(torch.float32, ROUNDING[torch.float32]), (torch.bfloat16, ROUNDING_16)]
)
def test_what_rounding_does_passes(table, dtype, rounding):
    """Noise of a fifth of the bound, other in every pass: what regrouped experts and other kernels do."""
    generator = torch.Generator().manual_seed(1)

    def logits(tokens: Tensor) -> Tensor:
        x = table[tokens].cumsum(1)
        return (x + rounding / 5 * x.std() * torch.randn(x.shape, generator=generator)).to(dtype)

    check(logits)
    assert SEEN_16 > 0 and SEEN[torch.float32] <= ROUNDING[torch.float32]


@pytest.mark.parametrize("rounding", [0.0, 0.01, 0.05])
def test_a_model_of_16_bits_may_round_as_much_as_it_is_seen_to(table, rounding):
    """Noise that depends on the shape of a batch: a small trained model of 30 layers has .03 to .06 in bfloat16."""

    def logits(tokens: Tensor) -> Tensor:
        x = table[tokens].cumsum(1)
        noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(tokens.numel()))
        return (x + rounding * x.std() * noise).bfloat16()

    check(logits)


@pytest.mark.parametrize("rounding", [0.0, 0.05])
def test_padding_is_seen_in_16_bits_beside_rounding(table, rounding):
    def logits(tokens: Tensor) -> Tensor:
        x = table[tokens]
        noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(tokens.numel()))
        return (x * tokens.shape[1] / LENGTH + rounding * noise).bfloat16()

    with pytest.raises(ModelError, match="needs an attention mask"):
        check(logits)


def test_one_damaged_token_hides_nothing(table):
    table[:, 7] = float("nan")
    check(lambda tokens: table[tokens].cumsum(1))
    with pytest.raises(ModelError, match="when a later token changes"):
        check(lambda tokens: table[tokens] + table[tokens].flip(1).cumsum(1).flip(1))


def test_a_model_without_a_finite_logit_is_refused(table):
    with pytest.raises(NonFiniteError, match="expected finite logits"):
        check(lambda tokens: table[tokens] * float("nan"))


def losses_of(logits: Callable[[Tensor], Tensor]) -> Callable[[TokenBatch], Tensor]:
    """Summed losses [N] over the targets of a batch."""

    def losses(batch: TokenBatch) -> Tensor:
        tokens, targets = torch.from_numpy(batch.tokens), torch.from_numpy(batch.targets)
        found = torch.nn.functional.cross_entropy(logits(tokens)[:, :-1].mT, tokens[:, 1:], reduction="none")
        return (found * targets[:, 1:]).sum(1)

    return losses


def test_what_shows_at_length_alone_is_seen(table):
    """A window that is centred, but only in documents of more than 100 tokens."""

    def windowed(tokens: Tensor) -> Tensor:
        x = table[tokens]
        return x + x.roll(-50, 1) if tokens.shape[1] > 100 else x

    check(windowed)
    check_long("model", losses_of(windowed), TOKENS, 90, torch.float32)
    with pytest.raises(ModelError, match="150 tokens with different ones after them"):
        check_long("model", losses_of(windowed), TOKENS, 200, torch.float32)
    check_long("model", losses_of(lambda tokens: table[tokens]), TOKENS, 200, torch.float32)


def test_a_length_that_a_model_fails_on_is_named(table):
    def limited(tokens: Tensor) -> Tensor:
        return table[tokens] + torch.ones(100, 1)[torch.arange(tokens.shape[1])]

    with pytest.raises(ModelError, match=r"fails on them \(IndexError.*`max_tokens`"):
        check_long("model", losses_of(limited), TOKENS, 200, torch.float32)


def test_tokens_to_try_have_no_meaning_of_their_own(small_tokenizer):
    assert small_tokenizer.unk_token_id not in (found := ordinary_tokens(small_tokenizer, 40)) and max(found) == 39
    assert ordinary_tokens(small_tokenizer, 1) == [0]
