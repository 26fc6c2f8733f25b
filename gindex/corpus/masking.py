"""Texts of which some tokens are masked, as masked language models are trained on them.

Which tokens are masked follows from a seed and the tokens of the part, and from nothing else: a document has the same
gradient in any batch, order and index. The model reads the mask in the place of each, and is asked for the token.

Axes: T tokens, M masked ones.
"""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.config import CorpusConfig
from gindex.corpus.encoding import EncodedDocument, weighted
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.corpus.records import Document
from gindex.corpus.tokens import Encoding, Part, encode_texts, span_of
from gindex.errors import ConfigError

MASKED = "masked"
"""Form of a document of which tokens are masked."""

Places = npt.NDArray[np.intp]


class MaskedEncoder:
    """Cuts texts into parts, each with the tokens that the tokenizer puts around a text, and masks some of each."""

    def __init__(self, tokenizer: Any, config: CorpusConfig, most_tokens: int, seed: int) -> None:
        """Take the tokenizer of a model.

        Args:
            tokenizer: The tokenizer, which has a mask token.
            config: How documents are cut, and the share that is masked.
            most_tokens: Most tokens of a part.
            seed: Decides which are masked, with the tokens themselves.
        """
        self._tokenizer, self._config, self._most, self._seed = tokenizer, config, most_tokens, seed

    def encode(self, documents: Sequence[Document]) -> list[EncodedDocument]:
        """Cut documents into parts and mask tokens of each; one without a token that may be masked has no part."""
        encodings = encode_texts(self._tokenizer, [document.text for document in documents])
        return [weighted(self._masked(*pair)) for pair in zip(documents, encodings, strict=True)]

    def _masked(self, document: Document, encoding: Encoding) -> EncodedDocument:
        special = set(self._tokenizer.all_special_ids)
        parts: list[Part] = []
        spans: list[tuple[int, int]] = []
        for chunk in chunks(encoding, self._most):
            ids = np.array([encoding.tokens[place] for place in chunk], np.uint32)
            may_be = np.flatnonzero([token not in special for token in ids.tolist()])
            masked = drawn(ids, may_be, self._config.mask_share, self._seed)
            if not len(masked):
                continue
            start, end = span_of([encoding.offsets[place] for place in chunk], parts[-1].end if parts else 0)
            spans += [encoding.offsets[chunk[place]] for place in masked]
            text = asked_at(ids, masked, self._tokenizer.mask_token_id)
            parts.append(Part(part=len(parts), start=start, end=end, objective=Objective((text,))))
        content = {"masked": [list(span) for span in spans]}
        return EncodedDocument(document=replace(document, form=MASKED, content=content), parts=parts)


def chunks(encoding: Encoding, most_tokens: int) -> list[list[int]]:
    """Places of the tokens of each part: some of the text's, and all that the tokenizer puts around a text.

    Raises:
        ConfigError: A part has no room for a token of the text.
    """
    first, last = encoding.before, len(encoding.tokens) - encoding.after
    before, after = list(range(first)), list(range(last, len(encoding.tokens)))
    room = most_tokens - len(before) - len(after)
    if room < 1:
        raise ConfigError(
            field="max_tokens",
            expected=f"more than {len(before) + len(after)}, which the tokenizer puts around a text",
            found=most_tokens,
        )
    return [[*before, *range(start, min(start + room, last)), *after] for start in range(first, last, room)]


def drawn(ids_T: npt.NDArray[np.uint32], may_be: Places, share: float, seed: int) -> Places:
    """Places of the tokens that are masked, in order: a share of those that may be, at least one of them.

    Args:
        ids_T: Token ids of the part.
        may_be: Places of those that may be masked.
        share: Share of these that is.
        seed: Decides, with the tokens, which.
    """
    count = min(len(may_be), max(1, round(share * len(may_be))))
    generator = np.random.default_rng((seed, zlib.crc32(ids_T.astype("<u4").tobytes())))
    return np.sort(generator.permutation(may_be)[:count])


def asked_at(ids_T: npt.NDArray[np.uint32], masked: Places, mask: int) -> WeightedTokens:
    """A text that is read with the mask in some places, and asked for the tokens that stood there."""
    weights, read = np.zeros(len(ids_T), np.float32), ids_T.copy()
    weights[masked], read[masked] = 1, mask
    return WeightedTokens(read, weights, ids_T[masked].astype(np.float32)[:, None])


def marked(text: str, spans: Sequence[Sequence[int]], start: int, end: int) -> str:
    """A slice of a text in which what is masked reads `[MASK: word]`.

    Args:
        text: The text.
        spans: First character, and that past the last, of what is masked, in order.
        start: First character of the slice.
        end: That past its last.
    """
    pieces, done = [], start
    for first, last in spans:
        if start <= first < last <= end:
            word = text[first:last]
            blank = word[: len(word) - len(word.lstrip())]
            pieces += [text[done:first], blank, f"[MASK: {word.strip()}]"]
            done = last
    return "".join([*pieces, text[done:end]])
