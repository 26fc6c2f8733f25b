"""Classifiers of words: named entities, parts of speech, and other labels of the tokens that a text is made of."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gindex.config import WORDS, CorpusConfig
from gindex.corpus.batches import pad
from gindex.corpus.encoding import Encoder
from gindex.corpus.labelled_words import ReadWords, WordEncoder, read_words
from gindex.corpus.labels import Labels, as_list, labels_of
from gindex.corpus.objectives import Objective
from gindex.errors import QueryError
from gindex.model.isolation import alone
from gindex.model.tasks.labelling import LabellingTask
from gindex.model.tasks.labelling_kind import LabellingKind
from gindex.model.tasks.likelihoods import Categorical
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.forms import name_of
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader

_WORD = re.compile(r"\S+")


class WordClassifier(LabellingTask):
    """One label for each word of a text."""

    def __init__(self, model: Any) -> None:
        """Wrap a model."""
        super().__init__(model, Categorical())

    def trial(self, ids: npt.NDArray[np.uint32]) -> Objective:
        """Return a text of any tokens [T], all with the first label."""
        read = ReadWords(ids=ids.tolist(), words=list(range(len(ids))))
        return Objective((read.asked([0] * len(ids)),))

    def answers(self, read: ReadWords, chosen: Sequence[int]) -> dict[int, int]:
        """Return the number of the class that the model itself gives to each of some words."""
        asked = read.asked([0 if word in chosen else None for word in range(max(chosen) + 1)])
        with alone(self.model), torch.no_grad():
            outputs_MV = self.outputs(pad([Objective((asked,))], [0]))
        return dict(zip(sorted(chosen), outputs_MV.argmax(1).tolist(), strict=True))


class TokenClassificationKind(LabellingKind):
    """A model that gives a label for each word of a text, at its first token."""

    name = "token-classification"
    auto_model = "AutoModelForTokenClassification"
    mapping = "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING"
    described = "a classifier of tokens"
    document_forms = (WORDS,)
    corpus_settings = ("words_field", "label_field")
    has_labels = True
    endings = ("ForTokenClassification",)

    @property
    def labels(self) -> Labels:
        """The classes of the model."""
        config: Any = self.model.config
        return labels_of(config.id2label)

    def encoder(self, config: CorpusConfig, most_tokens: int, seed: int) -> Encoder:
        """What cuts words with their labels into parts."""
        del config, seed
        return WordEncoder(self.tokenizer, self.labels, most_tokens)

    def query_texts(self, query: Query, form: str, reader: QueryReader, limit: TokenLimit) -> Sequence[CountedText]:
        """The words of the prompt, those of the span alone where there is one, with their labels or the model's own.

        Raises:
            QueryError: A completion or pair is given, no word is chosen, there is not one label for each, or there are
                too many tokens.
        """
        del form, reader
        name = name_of(query)
        beside = next((each for each in ("completion", "pair") if getattr(query, each) is not None), None)
        if beside is not None:
            raise QueryError(
                field=f"{name}, {beside}", expected="a text with `label`", found=f"`{beside}`", remedy="leave it out"
            )
        words = list(_WORD.finditer(query.prompt))
        start, end = query.span or (0, len(query.prompt))
        chosen = [n for n, word in enumerate(words) if word.start() < end and start < word.end()]
        if not chosen:
            raise QueryError(
                field=name, expected="a word" + (" in the span" if query.span else ""), found="none", remedy="give one"
            )
        read = read_words(self.tokenizer, [word.group() for word in words], name)
        chosen = [word for word in chosen if word in read.words]
        if len(read.ids) > limit.most:
            raise QueryError(field=name, expected=f"at most {limit.text}", found=len(read.ids), remedy="shorten it")
        notes: tuple[str, ...] = ()
        if query.label is not None:
            labels = self._given(query.label, chosen, f"{name}, label")
        else:
            labels = self.task().answers(read, chosen)
            said = ", ".join(f"{words[n].group()} {self.labels.names[label]}" for n, label in labels.items())
            notes = (f"the labels are what the model says: {said}",)
        texts = [CountedText(read.asked([labels.get(n) for n in range(len(words))]), notes)]
        if query.contrast is not None:
            other = self._given(query.contrast, chosen, f"{name}, contrast")
            texts.append(CountedText(read.asked([other.get(n) for n in range(len(words))])))
        return texts

    def _given(self, label: object, chosen: Sequence[int], place: str) -> dict[int, int]:
        """Number of the class of each word that is chosen."""
        given = as_list(label)
        if len(given) not in (1, len(chosen)):
            raise QueryError(
                field=place, expected=f"a label, or one for each of {len(chosen)} words", found=f"{len(given)}"
            )
        numbers = [int(self.labels.read(each, place)[0]) for each in given]
        return dict(zip(chosen, numbers * (len(chosen) // len(numbers)), strict=True))

    def task(self) -> WordClassifier:
        """The model with its loss."""
        return WordClassifier(self.model)
