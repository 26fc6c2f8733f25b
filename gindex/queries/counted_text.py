"""A text of a query as the model reads it, and how long one may be."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gindex.corpus.objectives import WeightedTokens
from gindex.search_options import CUT

SHOWN_CHARACTERS = 40
"""Most characters of a text that a note quotes."""


@dataclass(frozen=True, eq=False)
class CountedText:
    """One text of a query as tokens, and what is to be told of how it became these."""

    tokens: WeightedTokens
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TokenLimit:
    """The most tokens of a text, and what happens to a longer one.

    Attributes:
        most: Most tokens.
        cuts: Whether the beginning of a longer text is left out; else it is refused.
        text: The limit in words, for notes and errors.
    """

    most: int
    cuts: bool
    text: str


def token_limit(model_tokens: int, long_queries: str, max_tokens: int | None) -> TokenLimit:
    """The limit of a model, or a smaller one.

    Args:
        model_tokens: Most tokens that the model takes.
        long_queries: See `SearchOptions`.
        max_tokens: Most tokens, where that is fewer than the model takes.
    """
    most = min(model_tokens, max_tokens or model_tokens)
    which = "the model takes" if most == model_tokens else "are allowed here"
    return TokenLimit(most=most, cuts=long_queries == CUT, text=f"{most} tokens, which {which}")


def encode_alike(encoders: Sequence[Callable[[TokenLimit], CountedText]], limit: TokenLimit) -> list[CountedText]:
    """Encode what follows the same beginning in several ways: where one is too long, all lose as much of it.

    Args:
        encoders: What encodes each text within a limit.
        limit: The limit of the longest.

    Raises:
        QueryError: One is too long and cannot be cut.
    """
    if not limit.cuts or len(encoders) == 1:
        return [encode(limit) for encode in encoders]
    lengths = [len(encode(replace(limit, most=sys.maxsize)).tokens) for encode in encoders]
    spare = [max(lengths) - length for length in lengths]
    return [encode(replace(limit, most=limit.most - less)) for encode, less in zip(encoders, spare, strict=True)]


def quoted(text: str) -> str:
    """The beginning of a text, for notes."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}...")
