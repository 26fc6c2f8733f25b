"""Tokens of texts, and parts of long documents, over which every token is predicted once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gindex.corpus.objectives import Objective
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
    if not tokenizer.is_fast:
        raise TokenizerError(
            field="tokenizer",
            expected="a fast one, which gives character offsets",
            found=type(tokenizer).__name__,
            remedy="use a model with a tokenizer.json",
        )
    # verbose=False: texts longer than the model takes are cut into parts, so its warning would mislead.
    encoded = tokenizer(
        texts,
        add_special_tokens=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        truncation=False,
        padding=False,
        verbose=False,
    )
    columns = (encoded["input_ids"], encoded["offset_mapping"], encoded["special_tokens_mask"])
    return [_once_begun(*row) for row in zip(*columns, strict=True)]


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


def cut(tokens: Sequence[int], offsets: Sequence[tuple[int, int]], max_tokens: int) -> list[Part]:
    """Cut a document into parts of at most `max_tokens` tokens.

    Every part but the first begins with the last token of the one before, as context: over all parts, every token but
    the document's first is predicted exactly once. A document of one token is one part with nothing to predict.

    Args:
        tokens: Token ids of the document [T].
        offsets: Characters [start, end) of each token [T]; special tokens have empty ones.
        max_tokens: Most tokens of a part, at least 2.

    Raises:
        ShapeError: There is not one offset per token.
        ConfigError: max_tokens is below 2, so that no part could predict anything.
    """
    if len(tokens) != len(offsets):
        raise ShapeError(field="offsets", expected=f"one per token, {len(tokens)}", found=len(offsets))
    if max_tokens < 2:
        raise ConfigError(field="max_tokens", expected="at least 2", found=max_tokens)
    parts: list[Part] = []
    for first in range(0, max(1, len(tokens) - 1) if tokens else 0, max_tokens - 1):
        context = min(first, 1)
        own = offsets[first + context : first + max_tokens]
        start, end = _span(own, parts[-1].end if parts else 0)
        objective = Objective.counting(tokens[first : first + max_tokens])
        parts.append(Part(part=len(parts), start=start, end=end, objective=objective))
    return parts


def _span(offsets: Sequence[tuple[int, int]], default: int) -> tuple[int, int]:
    """Return the characters that tokens cover; an empty span at `default` if all of them are special."""
    covered = [(start, end) for start, end in offsets if end > start]
    if not covered:
        return default, default
    return min(start for start, _ in covered), max(end for _, end in covered)
