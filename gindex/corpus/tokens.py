"""Tokens of texts, and parts of long documents, over which every token is predicted once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.errors import ConfigError, ShapeError, TokenizerError

Offsets = list[tuple[int, int]]


class Tokenizer(Protocol):
    """The interface of a Hugging Face tokenizer, as far as it is used."""

    @property
    def is_fast(self) -> bool:
        """Whether it gives the characters of every token."""
        ...

    def __call__(self, text: list[str], /, **options: Any) -> Mapping[str, Any]:
        """Encode texts."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A piece of a document that is run through the model at once.

    Attributes:
        part: Its number within the document, from 0.
        start: Offset in characters at which its own text begins in the document; its context is left out.
        end: Offset in characters past its last one.
        objective: Its tokens, those of the part before that it begins with first, and how much each counts.
    """

    part: int
    start: int
    end: int
    objective: Objective


@dataclass(frozen=True, slots=True)
class Encoding:
    """A whole text as tokens.

    Attributes:
        tokens: Token ids, special ones included.
        offsets: Characters [start, end) that each token stands for; (0, 0) for those that the tokenizer adds.
        before: How many tokens begin a text: those that the tokenizer puts in front, or that stand in the text already.
        after: How many tokens the tokenizer adds at the end.
    """

    tokens: list[int]
    offsets: Offsets
    before: int
    after: int


def tokenize(tokenizer: Tokenizer, texts: list[str]) -> list[tuple[list[int], Offsets]]:
    """Encode whole texts with the tokenizer's special tokens; see `encode_texts`.

    Returns:
        For each text its token ids, and for each token the characters [start, end) that it stands for; (0, 0) for
        special tokens.

    Raises:
        TokenizerError: The tokenizer cannot tell offsets.
    """
    return [(encoding.tokens, encoding.offsets) for encoding in encode_texts(tokenizer, texts)]


def encode_texts(tokenizer: Tokenizer, texts: list[str]) -> list[Encoding]:
    """Encode whole texts with the tokenizer's special tokens.

    A text that is written with its beginning, as a chat template writes it, gets no second one.

    Raises:
        TokenizerError: The tokenizer cannot tell offsets.
    """
    encoded = with_offsets(tokenizer, texts, add_special_tokens=True, return_special_tokens_mask=True)
    columns = (encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"])
    return [_once_begun(*row) for row in zip(*columns, strict=True)]


def with_offsets(tokenizer: Tokenizer, texts: list[str], **options: Any) -> Mapping[str, Any]:
    """Encode whole texts, with the characters of every token.

    Args:
        tokenizer: The tokenizer.
        texts: The texts.
        options: What else it is asked, as whether special tokens are added.

    Raises:
        TokenizerError: The tokenizer cannot tell offsets.
    """
    if not tokenizer.is_fast:
        raise TokenizerError(
            field="tokenizer",
            expected="a fast one, which gives character offsets",
            found=type(tokenizer).__name__,
            remedy="use a model with a tokenizer.json",
        )
    # verbose=False: texts longer than the model takes are cut into parts, so its warning would mislead.
    return tokenizer(texts, return_offsets_mapping=True, truncation=False, padding=False, verbose=False, **options)


def _once_begun(tokens: list[int], offsets: Offsets, added: Sequence[int]) -> Encoding:
    """Leave out the beginning that the tokenizer adds, where the text begins with the same tokens."""
    before = added.index(0) if 0 in added else len(added)
    after = 0 if before == len(added) else list(reversed(added)).index(0)
    if before and tokens[before : 2 * before] == tokens[:before]:
        tokens, offsets = tokens[before:], offsets[before:]
    return Encoding(tokens=tokens, offsets=offsets, before=before, after=after)


def decode_each(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Return the characters that each token adds to a text; of a character of several tokens, all with the last one."""
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(skip_special_tokens=False)
    return [stream.step(tokenizer.backend_tokenizer, int(token)) or "" for token in ids]


@dataclass(frozen=True, slots=True)
class Window:
    """A run of a document's tokens that is a part.

    Attributes:
        start: Its first token.
        first: The first of its tokens that no part before has: those in front are its context.
        end: The token past its last.
    """

    start: int
    first: int
    end: int


def cut(
    tokens: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    weights: npt.NDArray[np.float32],
    max_tokens: int,
    overlap: int = 1,
) -> list[Part]:
    """Cut a document into parts of at most `max_tokens` tokens.

    Every token that counts does so in exactly one part. Parts but the first begin with tokens of the one before, as
    context; where the tokens before do not count, as those of a prompt, as many of them as there is room for.

    Args:
        tokens: Token ids of the document [T].
        offsets: Characters [start, end) of each token [T]; special tokens have empty ones.
        weights: How much each token counts [T], 0 for the first.
        max_tokens: Most tokens of a part, at least 2.
        overlap: Tokens of context, at least 1, below `max_tokens`.

    Returns:
        The parts; none where no token counts.

    Raises:
        ShapeError: There is not one offset and one weight per token.
        ConfigError: max_tokens is below 2, so that no part could predict anything, or overlap is out of its range.
    """
    if not len(tokens) == len(offsets) == len(weights):
        found = f"{len(offsets)} and {len(weights)}"
        raise ShapeError(field="offsets and weights", expected=f"one per token, {len(tokens)}", found=found)
    if max_tokens < 2:
        raise ConfigError(field="max_tokens", expected="at least 2", found=max_tokens)
    if not 1 <= overlap < max_tokens:
        raise ConfigError(field="overlap", expected=f"1 to {max_tokens - 1}, below `max_tokens`", found=overlap)
    parts: list[Part] = []
    for window in windows(weights != 0, max_tokens, overlap):
        own = weights[window.start : window.end].copy()
        own[: max(1, window.first - window.start)] = 0
        ids = np.array(tokens[window.start : window.end], dtype=np.uint32)
        start, end = span_of(offsets[window.first : window.end], parts[-1].end if parts else 0)
        objective = Objective((WeightedTokens(ids, own),))
        parts.append(Part(part=len(parts), start=start, end=end, objective=objective))
    return parts


def windows(counted: npt.NDArray[np.bool_], max_tokens: int, overlap: int) -> list[Window]:
    """The parts of a document: see `cut`.

    Args:
        counted: Which tokens count [T]; not the first.
        max_tokens: Most tokens of a part.
        overlap: Tokens of context.
    """
    places = np.flatnonzero(counted)
    found: list[Window] = []
    done = 0
    while len(ahead := places[places >= done]):
        first, last = int(ahead[0]), int(ahead[-1])
        earliest = max(0, done - overlap)
        ahead_of = last + 1 - first
        # What does not count before it, as a prompt, has the room that is left, or half where not all can be read.
        room = max_tokens - (ahead_of if ahead_of <= max_tokens - overlap else max_tokens // 2)
        start = max(earliest, first - room) if first > done else earliest
        reached = ahead[ahead < start + max_tokens]
        end = int(reached[-1]) + 1
        found.append(Window(start=start, first=max(start, done), end=end))
        done = end
    return found


def span_of(offsets: Sequence[tuple[int, int]], default: int) -> tuple[int, int]:
    """Return the characters that tokens cover; an empty span at `default` if all of them are special."""
    covered = [(start, end) for start, end in offsets if end > start]
    if not covered:
        return default, default
    return min(start for start, _ in covered), max(end for _, end in covered)
