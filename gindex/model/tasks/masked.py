"""Masked language models: BERT, RoBERTa, ModernBERT, DeBERTa and others that fill in what is masked."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.config import TEXT, CorpusConfig
from gindex.corpus.encoding import Encoder
from gindex.corpus.masking import MaskedEncoder, asked_at
from gindex.corpus.objectives import Objective
from gindex.errors import TokenizerError
from gindex.model.tasks.labelling import LabellingTask
from gindex.model.tasks.labelling_kind import LabellingKind
from gindex.model.tasks.likelihoods import Categorical
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.filled import filled_texts
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader

_EVERY = 6
"""One of so many tokens is masked where a model is tried."""


class MaskedLanguageModel(LabellingTask):
    """Prediction of masked tokens."""

    def __init__(self, model: Any, mask: int) -> None:
        """Wrap a model, and the token that it reads in the place of what is masked."""
        super().__init__(model, Categorical())
        self._mask = mask

    def trial(self, ids: npt.NDArray[np.uint32]) -> Objective:
        """Return a text of any tokens [T], of which some are masked."""
        return Objective((asked_at(ids, np.arange(min(1, len(ids) - 1), len(ids), _EVERY), self._mask),))


class MaskedKind(LabellingKind):
    """A model whose logits at a mask predict the token that stood there."""

    name = "masked"
    auto_model = "AutoModelForMaskedLM"
    mapping = "MODEL_FOR_MASKED_LM_MAPPING"
    described = "a masked language model"
    document_forms = (TEXT,)
    corpus_settings = ("text_field", "mask_share")
    spare = r"(^|\.)(pooler|seq_relationship)\."
    endings = ("ForMaskedLM",)

    def check(self, most_tokens: int) -> None:
        """Check that the tokenizer has a mask, and that the model's outputs do not depend on padding; see `TaskKind`.

        Raises:
            TokenizerError: It has none.
        """
        if self.tokenizer.mask_token_id is None:
            raise TokenizerError(
                field=self.place,
                expected="a tokenizer with a mask token",
                found="none",
                remedy="set mask_token in its tokenizer_config.json",
            )
        super().check(most_tokens)

    def encoder(self, config: CorpusConfig, most_tokens: int, seed: int) -> Encoder:
        """What cuts texts into parts and masks some tokens of each."""
        return MaskedEncoder(self.tokenizer, config, most_tokens, seed)

    def query_texts(self, query: Query, form: str, reader: QueryReader, limit: TokenLimit) -> Sequence[CountedText]:
        """Texts of a prompt with masks, or of one with a span that is masked."""
        return filled_texts(query, self.tokenizer, limit)

    def task(self) -> MaskedLanguageModel:
        """The model with its loss."""
        return MaskedLanguageModel(self.model, self.tokenizer.mask_token_id)
