"""Encoder-decoders: T5, BART, Marian, Pegasus and others that predict one text from another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.config import COMPLETION, CorpusConfig
from gindex.corpus.batches import Side, TokenBatch, pad
from gindex.corpus.encoding import Encoder
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.corpus.text_pairs import PairEncoder
from gindex.errors import ModelError, ShapeError
from gindex.model.causality import LENGTH, allowed_rounding, random_tokens
from gindex.model.devices import to_device
from gindex.model.owners import inner_linears
from gindex.model.tasks.invariance import relative_change
from gindex.model.tasks.labelling import Asked, LabellingTask
from gindex.model.tasks.labelling_kind import LabellingKind
from gindex.model.tasks.likelihoods import Categorical
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.decoded import decoded_texts
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader

_NO_LABEL = -100
"""What stands for padding among labels, for transformers to find the end of a target."""


class EncoderDecoder(LabellingTask):
    """Prediction of the tokens of a target from a source and those before them."""

    def __init__(self, model: Any) -> None:
        """Wrap a model."""
        super().__init__(model, Categorical())

    def trial(self, ids: npt.NDArray[np.uint32]) -> Objective:
        """Return the first half of any tokens [T] as a source, and the rest as its target; of one token both are it."""
        both = ids if len(ids) > 1 else np.repeat(ids, 2)
        middle = (len(both) + 1) // 2
        weights = (np.arange(len(both)) >= middle).astype(np.float32)
        return Objective((WeightedTokens(both, weights, second=middle),))

    def asked(self, batch: TokenBatch) -> Asked:
        """Return what a batch is asked for: the tokens of its targets that count."""
        target = _sides(batch)[1]
        texts_M, positions_M = np.nonzero(target.weights)
        return Asked(
            texts=texts_M,
            positions=positions_M,
            weights=target.weights[texts_M, positions_M],
            labels=target.tokens[texts_M, positions_M][:, None].astype(np.float32),
        )

    def inputs(self, batch: TokenBatch) -> dict[str, Tensor]:
        """Return the arguments of the model: a decoder reads the target shifted, as the model itself shifts labels."""
        source, target = _sides(batch)
        labels = to_device(np.where(target.mask, target.tokens, _NO_LABEL), self.device)
        given = {
            "input_ids": self.padded(source.tokens, source.mask),
            "attention_mask": to_device(source.mask.astype(np.int64), self.device),
        }
        shift = getattr(self.model, "prepare_decoder_input_ids_from_labels", None)
        if shift is None:  # the model shifts labels itself, and computes a loss besides
            return given | {"labels": labels}
        mask = to_device(target.mask.astype(np.int64), self.device)
        return given | {"decoder_input_ids": shift(labels=labels), "decoder_attention_mask": mask}


def _sides(batch: TokenBatch) -> tuple[Side, Side]:
    if batch.sides is None:
        raise ShapeError(field="batch", expected="sources with their targets", found="single texts")
    return batch.sides


class Seq2SeqKind(LabellingKind):
    """A model whose encoder reads a prompt, and whose decoder predicts the completion."""

    name = "seq2seq"
    auto_model = "AutoModelForSeq2SeqLM"
    mapping = "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING"
    described = "an encoder-decoder of texts"
    document_forms = (COMPLETION,)
    corpus_settings = ("prompt_field", "completion_field")

    @classmethod
    def fits(cls, architecture: str, settings: Mapping[str, Any]) -> bool:
        """Whether an architecture is one of transformers' encoder-decoders of texts."""
        from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES as NAMES

        return bool(settings.get("is_encoder_decoder")) and architecture in NAMES.values()

    def check(self, most_tokens: int) -> None:
        """Check that the model runs, that padding and other texts change nothing, and that its decoder is causal.

        Raises:
            ModelError: It does not, they do, it is not, or it has experts.
            NonFiniteError: Its outputs are NaN or infinite.
        """
        if inner_linears(self.model):
            raise ModelError(
                field=self.place,
                expected="an encoder-decoder without experts",
                found=f"{type(self.model).__name__}, which has some",
                remedy="use one without",
            )
        super().check(most_tokens)
        self._check_causal(min(LENGTH, most_tokens))

    def _check_causal(self, length: int) -> None:
        """Check that no output depends on a later token of the target but the last, which may stand for a language."""
        (ids, other), task, cut = random_tokens(self.tokens(), length, 2), self.task(), length * 3 // 4
        with torch.no_grad():
            pair = [np.concatenate([ids[:cut], rest[cut:-1], ids[-1:]]) for rest in (ids, other)]
            outputs_MV = task.outputs(pad([task.trial(each) for each in pair], np.arange(2)))
        first_MV, second_MV = outputs_MV.split(len(outputs_MV) // 2)
        before = cut - (length + 1) // 2
        later = relative_change(first_MV[:before], second_MV[:before]) if before > 0 else 0.0
        if later > allowed_rounding(next(self.model.parameters()).dtype, 0.0):
            raise ModelError(
                field=self.place,
                expected="a decoder whose outputs depend on no later token",
                found=f"them moved by {later:.2g} of their size when one changes",
                remedy="it would see what it is to predict: use another model",
            )

    def encoder(self, config: CorpusConfig, most_tokens: int, seed: int) -> Encoder:
        """What makes one part of a prompt and its completion."""
        del config, seed
        return PairEncoder(self.tokenizer, most_tokens)

    def query_texts(self, query: Query, form: str, reader: QueryReader, limit: TokenLimit) -> Sequence[CountedText]:
        """The prompt with its completion, and with the contrast."""
        del form, reader
        return decoded_texts(query, self.tokenizer, limit)

    def task(self) -> EncoderDecoder:
        """The model with its loss."""
        return EncoderDecoder(self.model)
