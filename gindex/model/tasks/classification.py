"""Classifiers of texts and of pairs of them: one class, several, or values (regression), as config.json says."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch

from gindex.config import LABEL, CorpusConfig
from gindex.corpus.batches import pad
from gindex.corpus.encoding import Encoder
from gindex.corpus.labelled_texts import LabelEncoder, ReadText, read_text
from gindex.corpus.labels import ONE_CLASS, SEVERAL_CLASSES, VALUES, Label, Labels, labels_of
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.errors import QueryError
from gindex.model.isolation import alone
from gindex.model.tasks.labelling import LabellingTask
from gindex.model.tasks.labelling_kind import LabellingKind
from gindex.model.tasks.likelihoods import Binary, Categorical, Gaussian, Likelihood
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.forms import name_of
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader

LIKELIHOODS: dict[str, type[Likelihood]] = {ONE_CLASS: Categorical, SEVERAL_CLASSES: Binary, VALUES: Gaussian}
"""The loss of each kind of labels, as transformers has it, summed in the place of averaged."""


class Asking(Protocol):
    """What is labelled: a text or a picture."""

    def asked(self, label: Label) -> WeightedTokens:
        """The same, asked for one label [K] of the whole."""
        ...


class TextClassifier(LabellingTask):
    """One label for a whole text."""

    def __init__(self, model: Any, labels: Labels) -> None:
        """Wrap a model and its labels."""
        super().__init__(model, LIKELIHOODS[labels.kind]())
        self._labels = labels

    def trial(self, ids: npt.NDArray[np.uint32]) -> Objective:
        """Return a text of any tokens [T] with the first label; of an encoder-decoder one that ends as texts do."""
        tokens, config = ids.tolist(), self.model.config
        end = getattr(config, "eos_token_id", None)
        if getattr(config, "is_encoder_decoder", False) and end is not None:
            tokens = [*(token if token != end else (end + 1) % self.vocabulary for token in tokens[:-1]), end]
        read = ReadText(ids=tokens, second=None, tokens=len(tokens))
        return Objective((read.asked(np.zeros(self._labels.size, np.float32)),))

    def answer(self, read: Asking) -> Label:
        """Return the label that the model itself gives a text: its likeliest, or its values."""
        objective = Objective((read.asked(np.zeros(self._labels.size, np.float32)),))
        with alone(self.model), torch.no_grad():
            outputs_V = self.outputs(pad([objective], [0]))[0].cpu()
        if self._labels.kind == ONE_CLASS:
            return np.array([int(outputs_V.argmax())], np.float32)
        label: Label = (outputs_V > 0 if self._labels.kind == SEVERAL_CLASSES else outputs_V).float().numpy()
        return label


class ClassificationKind(LabellingKind):
    """A model that gives one label for a text or a pair of texts."""

    name = "classification"
    auto_model = "AutoModelForSequenceClassification"
    mapping = "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING"
    described = "a classifier of texts"
    document_forms = (LABEL,)
    corpus_settings: ClassVar[tuple[str, ...]] = ("text_field", "pair_field", "label_field")
    has_labels = True
    endings = ("ForSequenceClassification",)
    remedy = "set pad_token_id in its config.json, where it has none"
    variants: ClassVar[tuple[str, ...]] = ("image-classification",)

    @property
    def labels(self) -> Labels:
        """The labels of the model."""
        config: Any = self.model.config
        kind = config.problem_type or (VALUES if config.num_labels == 1 else ONE_CLASS)
        return labels_of(config.id2label, kind)

    def encoder(self, config: CorpusConfig, most_tokens: int, seed: int) -> Encoder:
        """What makes one part of a text and its label."""
        del config, seed
        return LabelEncoder(self.tokenizer, self.labels, most_tokens)

    def query_texts(self, query: Query, form: str, reader: QueryReader, limit: TokenLimit) -> Sequence[CountedText]:
        """The text with the label that is asked about, or the model's own; and with the contrast, another label.

        Raises:
            QueryError: Both a label and a completion are given, or a span; or it has too many tokens.
        """
        del form, reader
        name = name_of(query)
        given = query.completion if query.label is None else query.label
        if query.span is not None or (query.label is not None and query.completion is not None):
            raise QueryError(
                field=name,
                expected="a text, and one label as `label` or `completion`",
                found="a span" if query.span is not None else "both",
                remedy="leave one of them out",
            )
        read, told = self.read(query, limit)
        notes = [*told]
        if given is None:
            label = self.task().answer(read)
            notes.append(f"the label is what the model says: {self.labels.text(label)}")
        else:
            label = self.labels.read(given, f"{name}, label")
        said = [CountedText(read.asked(label), tuple(notes))]
        if query.contrast is None:
            return said
        return [*said, CountedText(read.asked(self.labels.read(query.contrast, f"{name}, contrast")))]

    def read(self, query: Query, limit: TokenLimit) -> tuple[Asking, Sequence[str]]:
        """What is labelled of a query, and what is to be told of it.

        Raises:
            QueryError: It has too many tokens, or a picture.
        """
        name = name_of(query)
        if query.image is not None:
            raise QueryError(field=name, expected="a text: the model reads no pictures", found="a picture")
        read = read_text(self.tokenizer, query.prompt, query.pair, limit.most if limit.cuts else 1 << 30)
        if len(read.ids) > limit.most:
            raise QueryError(field=name, expected=f"at most {limit.text}", found=read.tokens, remedy="shorten it")
        note = f"of {read.tokens} tokens the last {read.tokens - len(read.ids)} are left out"
        return read, [note] * (read.tokens > len(read.ids))

    def task(self) -> TextClassifier:
        """The model with its loss."""
        return TextClassifier(self.model, self.labels)
