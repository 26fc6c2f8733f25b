"""Words with a label each, as token classifiers of transformers are trained on them.

The first token of a word is asked for its label; the others, and words of label -100, are read alone.

Axes: T tokens, M labelled ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gindex.config import WORDS
from gindex.corpus.encoding import EncodedDocument, weighted
from gindex.corpus.labels import Labels
from gindex.corpus.masking import chunks
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.corpus.records import Document
from gindex.corpus.tokens import Encoding, Part, with_offsets
from gindex.errors import CorpusError, TokenizerError

IGNORED = -100
"""Label of a word that does not count."""

OUTSIDE = "O"
"""Name of the class of words that are of no kind, which is not shown."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadWords:
    """Words as a token classifier reads them.

    Attributes:
        ids: Token ids [T].
        words: Number of the word that each token begins or is a part of; None for those that the tokenizer adds [T].
    """

    ids: list[int]
    words: list[int | None]

    def asked(self, labels: Sequence[int | None], places: Sequence[int] | None = None) -> WeightedTokens:
        """The same, asked for the label of each word that has one at its first token.

        Args:
            labels: Number of the class of each word; None where it does not count.
            places: Places of the tokens that are read; all by default.
        """
        chosen = range(len(self.ids)) if places is None else places
        weights, asked = np.zeros(len(chosen), np.float32), []
        for n, place in enumerate(chosen):
            word = self.words[place]
            begins = word is not None and (place == 0 or self.words[place - 1] != word)
            if word is not None and begins and labels[word] is not None:
                weights[n] = 1
                asked.append(labels[word])
        ids = np.array([self.ids[place] for place in chosen], np.uint32)
        return WeightedTokens(ids, weights, np.array(asked, np.float32).reshape(-1, 1))


class WordEncoder:
    """Cuts labelled words into parts, each with the tokens that the tokenizer puts around a text."""

    def __init__(self, tokenizer: Any, labels: Labels, most_tokens: int) -> None:
        """Take the tokenizer and the labels of a model, and the most tokens of a part."""
        self._tokenizer, self._labels, self._most = tokenizer, labels, most_tokens

    def encode(self, documents: Sequence[Document]) -> list[EncodedDocument]:
        """Read words and labels.

        Raises:
            CorpusError: A label is none of the model's.
            TokenizerError: The tokenizer does not take words.
        """
        return [weighted(self._labelled(document)) for document in documents]

    def _labelled(self, document: Document) -> EncodedDocument:
        words, place = document.content["words"], f"document {document.document_id!r}"
        labels = [self.number(label, f"{place}, word {n}") for n, label in enumerate(document.content["labels"], 1)]
        read, shown = read_words(self._tokenizer, words, place), shown_words(words, labels, self._labels)
        inside = [n for n, word in enumerate(read.words) if word is not None]
        before, after = (inside[0], len(read.ids) - inside[-1] - 1) if inside else (0, 0)
        parts: list[Part] = []
        for chosen in chunks(Encoding(read.ids, [], before, after), self._most) if inside else []:
            text = read.asked(labels, chosen)
            if text.counted.any():
                own = [word for n in chosen if (word := read.words[n]) is not None]
                start = len(" ".join(shown[: own[0]])) + (own[0] > 0)
                end = len(" ".join(shown[: own[-1] + 1]))
                parts.append(Part(part=len(parts), start=start, end=end, objective=Objective((text,))))
        return EncodedDocument(document=replace(document, text=" ".join(shown), form=WORDS), parts=parts)

    def number(self, label: object, place: str) -> int | None:
        """Number of a class; None for a label that does not count.

        Raises:
            CorpusError: It is none of the model's.
        """
        return None if label == IGNORED else int(self._labels.read(label, place)[0])


def shown_words(words: Sequence[str], labels: Sequence[int | None], names: Labels) -> list[str]:
    """Labelled words as people read them: `Ada/B-PER`."""
    known = ["" if label is None else names.names[label] for label in labels]
    return [word if name in ("", OUTSIDE) else f"{word}/{name}" for word, name in zip(words, known, strict=True)]


def read_words(tokenizer: Any, words: Sequence[str], place: str) -> ReadWords:
    """Cut words into tokens.

    Args:
        tokenizer: The tokenizer.
        words: The words.
        place: What messages of errors call them.

    Raises:
        CorpusError: No word has a token.
        TokenizerError: The tokenizer does not take words.
    """
    options = {"add_special_tokens": True, "is_split_into_words": True}
    try:
        (encoding,) = with_offsets(tokenizer, [list(words)], **options).encodings  # type: ignore[attr-defined, list-item]
    except AssertionError as error:
        raise TokenizerError(
            field="tokenizer",
            expected="one that takes words",
            found=f"{type(tokenizer).__name__}, which needs add_prefix_space",
            remedy="save it with add_prefix_space=True, as it was in training",
        ) from error
    if all(word is None for word in encoding.word_ids):
        raise CorpusError(field=place, expected="a word with a token", found="none", remedy="remove it")
    return ReadWords(ids=encoding.ids, words=encoding.word_ids)
