"""A check that a model is causal: its logits depend on no later token, no padding and no other document.

A document's gradient is that of predicting each token from those before it, and documents are padded on the right
without a mask. A model whose earlier logits move with a later token sees what it is to predict; one that moves with the
padding, or with its neighbours, gives a document another gradient in another batch. A few random tokens show it.

Axes: N sequences, T tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.corpus.batches import TokenBatch
from gindex.errors import ModelError, NonFiniteError
from gindex.model.library_messages import first_line

LENGTH = 24
"""Tokens of the longest sequence that is tried, where the model takes as many."""

ROUNDING = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Largest change of logits when they are computed in a batch of another shape.

Changes are root mean squares over the vocabulary, in units of the logits' own deviation over it. Products are summed in
another order there, which was seen to move logits by up to 4e-7 in float32; long recurrences and routers near a tie
add to that.
"""

ROUNDING_16 = 0.05
"""The same in 16 bits, where one rounding is 2^-9 and some hundred of them add up at random: .01 to .07 was seen. So
more is allowed of a model that is seen to round more, at most `MOST_ROUNDING_16`."""

MOST_ROUNDING_16 = 0.25

SEEN = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Largest change when a later token changes, the shape staying the same: 0 was seen in every causal family."""

SEEN_16 = 0.005
"""The same in 16 bits. Freshly made encoders move by .015 and more in any format, trained ones by far more."""

NOISE = 4.0
"""Ratio of a change to one that rounding alone makes, from which on it counts. Rounding alone changes logits when other
documents change, against which a later token is judged; in 16 bits when there are fewer documents, against which more
tokens and other documents are."""

Logits = Callable[[Tensor], Tensor]
"""Gives the logits [N, T, V] of tokens [N, T]."""


def check_causal(name: str, logits: Logits, tokens: Sequence[int], most: int, device: torch.device) -> None:
    """Check that no logit depends on a later token, on how many follow, or on other documents.

    Sequences that begin alike and end differently are run in one batch; the shared beginnings must have equal logits.
    One of them is run again among others, and its beginning alone. How far rounding moves logits is seen where the
    same sequences run in larger and smaller batches. Of several beginnings the median counts: near a tie, rounding may
    send a token of a mixture of experts to another expert.

    Args:
        name: The model, as messages call it.
        logits: Runs it.
        tokens: Token ids to draw from.
        most: Most tokens that the model takes.
        device: Device of the model.

    Raises:
        ModelError: A logit depends on what it must not depend on.
        NonFiniteError: No logit is finite.
    """
    length = min(LENGTH, most)
    cuts = sorted({cut for cut in (length // 4, length // 2, length - 1) if 0 < cut < length})
    batch_NT, others_NT, short = (
        _sequences(tokens, length, cuts),
        _sequences(tokens, length, cuts, seed=1),
        max(1, length // 2),
    )
    others_NT[0] = batch_NT[0]
    runs = (batch_NT, others_NT, batch_NT[:1], batch_NT[:, :short], batch_NT[:1, :short])
    with torch.no_grad():
        outputs = [logits(torch.from_numpy(run_NT.copy()).to(device)) for run_NT in runs]
    together_NTV, (first_TV, others_TV, single_TV, short_TV, alone_TV) = outputs[0], (run_NTV[0] for run_NTV in outputs)
    seen = SEEN.get(together_NTV.dtype, SEEN_16)
    if not torch.isfinite(first_TV).any():
        raise NonFiniteError(
            field=name,
            expected="finite logits",
            found="NaN or infinity",
            remedy="the weights are damaged or need `dtype` float32",
        )
    mixed = float(_changes(first_TV, others_TV).median())
    noise = max(float(_changes(*pair).median()) for pair in ((first_TV, single_TV), (short_TV, alone_TV)))
    rounding, moved = allowed_rounding(together_NTV.dtype, noise), max(mixed, noise)
    if moved > rounding:
        raise ModelError(
            field=name,
            expected="logits that depend on one document alone",
            found=f"them moved by {moved:.2g} of their deviation when others of the batch change, or by chance",
            remedy="use a model without routing by capacity or noise",
        )
    later = _median(
        [_changes(first_TV[:cut], row_TV[:cut]) for cut, row_TV in zip(cuts, together_NTV[1:], strict=True)]
    )
    if later > max(seen, NOISE * mixed):
        raise ModelError(
            field=name,
            expected="a causal language model",
            found=(
                f"one whose logits move by {later:.2g} of their deviation when a later token changes, as "
                "those of BERT's family and of bidirectional embedders do"
            ),
            remedy="it would see what it is to predict: use a model that was trained to predict the next token",
        )
    padded = float(_changes(first_TV[:short], alone_TV).median())
    if padded > rounding:
        raise ModelError(
            field=name,
            expected="logits that padding leaves as they are",
            found=f"them moved by {padded:.2g} of their deviation when more tokens follow",
            remedy="this model needs an attention mask, which gindex does not give",
        )


def check_long(
    name: str, losses: Callable[[TokenBatch], Tensor], tokens: Sequence[int], length: int, dtype: torch.dtype
) -> None:
    """Check that a model takes sequences of a length, and that their last quarter leaves the losses before it alone.

    Windows, blocks and chunks of attention show only beyond their own lengths.

    Args:
        name: The model, as messages call it.
        losses: Gives the summed loss [N] of each document of a batch.
        tokens: Token ids to draw from.
        length: Tokens of a sequence; nothing is done where that is less than `check_causal` has tried.
        dtype: Number format of the model.

    Raises:
        ModelError: The pass fails, or the losses depend on what comes after them.
    """
    if length <= LENGTH:
        return
    cut, positions = length * 3 // 4, np.arange(length)
    batch = TokenBatch(
        ordinals=np.arange(2),
        tokens=_sequences(tokens, length, [cut]),
        lengths=np.full(2, cut),  # what comes after is padding, and differs
        weights=np.broadcast_to((positions > 0) & (positions < cut), (2, length)).astype(np.float32),
    )
    try:
        with torch.no_grad():
            first, second = (losses(batch) / (cut - 1)).tolist()
    except Exception as error:
        raise ModelError(
            field=name,
            expected=f"to take {length} tokens",
            found=f"that it fails on them ({type(error).__name__}: {first_line(error)})",
            remedy="give fewer with `max_tokens`",
        ) from error
    if abs(first - second) > SEEN.get(dtype, SEEN_16):
        raise ModelError(
            field=name,
            expected="losses that what follows leaves as they are",
            found=f"{first:.4g} and {second:.4g} nats a token of {cut} tokens with different ones after them",
            remedy="give fewer with `max_tokens`, or use a causal model",
        )


def allowed_rounding(dtype: torch.dtype, noise: float) -> float:
    """Return the largest change that counts as rounding, where batches of other sizes change logits by `noise`."""
    return ROUNDING[dtype] if dtype in ROUNDING else min(MOST_ROUNDING_16, max(ROUNDING_16, NOISE * noise))


def random_tokens(tokens: Sequence[int], length: int, count: int) -> npt.NDArray[np.uint32]:
    """Return random texts [count, length] of some tokens, always the same."""
    drawn = np.random.default_rng(0).choice(np.asarray(tokens, np.uint32), (count, length))
    return drawn.astype(np.uint32)


def ordinary_tokens(tokenizer: object, vocabulary: int) -> list[int]:
    """Return the ids of tokens without a meaning of their own: neither special nor added for pictures and sounds.

    Args:
        tokenizer: A tokenizer of transformers.
        vocabulary: Rows of the model's embedding.
    """
    special = {*getattr(tokenizer, "all_special_ids", ()), *getattr(tokenizer, "added_tokens_decoder", {})}
    ordinary = [t for t in range(min(len(tokenizer), vocabulary)) if t not in special]  # type: ignore[arg-type]
    return ordinary if len(ordinary) > 1 else list(range(vocabulary))


def _sequences(tokens: Sequence[int], length: int, cuts: Sequence[int], seed: int = 0) -> npt.NDArray[np.int64]:
    """Return a sequence, and for each cut one that is like it before the cut and differs after: [1 + N, T]."""
    generator = np.random.default_rng(seed)
    places_T = generator.integers(0, len(tokens), length)
    steps_NT = generator.integers(1, max(2, len(tokens)), (len(cuts), length))  # no whole round: the token differs
    after_NT = np.arange(length) >= np.array(cuts, np.int64).reshape(-1, 1)
    places_NT = np.concatenate([places_T[None], (places_T + steps_NT * after_NT) % len(tokens)])
    drawn_NT: npt.NDArray[np.int64] = np.asarray(tokens, np.int64)[places_NT]
    return drawn_NT


def _changes(expected_TV: Tensor, found_TV: Tensor) -> Tensor:
    """Return the change of logits at each token [T], in units of their deviation over the vocabulary.

    Logits that are not finite in either are left out: one token of a model may be damaged.
    """
    finite_TV = torch.isfinite(expected_TV) & torch.isfinite(found_TV)
    wide_TV, count_T = expected_TV.double().where(finite_TV, 0), finite_TV.sum(-1).clamp(min=1)
    mean_T = wide_TV.sum(-1) / count_T
    spread_T = ((wide_TV - mean_T[:, None]).where(finite_TV, 0).square().sum(-1) / count_T).sqrt()
    moved_T = ((found_TV.double().where(finite_TV, 0) - wide_TV).square().sum(-1) / count_T).sqrt()
    return moved_T / spread_T.mean().clamp(min=torch.finfo(torch.float64).tiny)


def _median(changes: Sequence[Tensor]) -> float:
    """Return the median over sequences of the largest change at any token; 0 where there are none."""
    return float(np.median([float(change_T.max()) for change_T in changes])) if changes else 0.0
