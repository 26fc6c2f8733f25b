"""Prediction of the next token from text and pictures: what vision-language models are trained to do."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from gindex.config import COMPLETION, MESSAGES, CorpusConfig
from gindex.corpus.batches import TokenBatch
from gindex.corpus.contents import OBJECT
from gindex.corpus.encoding import DocumentEncoder, Encoder
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.corpus.picture_texts import PictureText, PictureTexts
from gindex.corpus.pictures import picture_content
from gindex.errors import CorpusError, MissingDependencyError, ModelError
from gindex.model.devices import to_device
from gindex.model.fingerprints import fingerprint_tokenizer
from gindex.model.losses import CausalLanguageModel
from gindex.model.processors import MissingProcessor, PictureProcessor
from gindex.model.tasks.causal import CausalKind
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.pictures import ChatReader, has_pictures, pictured_texts
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader

TRIED_PIXELS, TRIED_TOKENS = (48, 64), 8
"""Height and width of the picture that a model is tried on, and tokens of text behind it."""


class VisionLanguageModel(CausalLanguageModel):
    """Next-token prediction from text and pictures.

    A text with pictures is alone in its batch, and runs on all that the processor makes of it. Texts without pictures
    run together, as those of any language model.
    """

    def __init__(self, model: nn.Module, processor: PictureProcessor | None) -> None:
        """Wrap a model of transformers and its processor, where that can be used."""
        super().__init__(model)
        self._processor = processor

    def trial_alone(self) -> Objective | None:
        """Return random pixels with a few tokens behind them; None without a processor."""
        if self._processor is None:
            return None
        text = _tried_text()
        return Objective((replace(WeightedTokens.counting(self._processor.expand(text).ids), content=text.content()),))

    def run(self, module: nn.Module, batch: TokenBatch) -> Any:
        """Return what the model, or its body without the head, gives for a batch."""
        if batch.contents is None or self._processor is None:
            return super().run(module, batch)
        (content,), ids = batch.contents, to_device(batch.tokens, self.device)
        dtype = next(self.model.parameters()).dtype
        return module(**self._processor.inputs(PictureText.of(content), ids, dtype), use_cache=False)


def _tried_text() -> PictureText:
    """Random pixels with a few tokens behind them."""
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (*TRIED_PIXELS, 3), dtype=np.uint8)
    picture = picture_content(pixels_HWC, "the picture that a model is tried on")
    return PictureText(text=f"{OBJECT}{' a' * TRIED_TOKENS}", pictures=(picture,))


class VisionLanguageKind(CausalKind):
    """A causal language model that reads pictures among its tokens."""

    name = "image-text-to-text"
    auto_model = "AutoModelForImageTextToText"
    mapping = "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING"
    described = "a language model that reads pictures"
    corpus_settings = (*CausalKind.corpus_settings, "image_field", "images_field")
    usual_tokens = 4096

    texts: PictureTexts
    """What reads conversations and pictures, once it is loaded."""

    @classmethod
    def fits(cls, architecture: str, settings: Mapping[str, Any]) -> bool:
        """Whether transformers has an architecture among those that read text and pictures."""
        from transformers.models.auto import modeling_auto

        known: Mapping[str, Any] = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        return (
            super().fits(architecture, settings)
            and architecture in known.values()
            and any(str(name).startswith(("vision", "vit", "perceiver")) for name in settings)
        )

    @classmethod
    def corpus_config(cls, config: CorpusConfig) -> CorpusConfig:
        """The settings of documents: their pictures are in the field `images`, where none is named."""
        return replace(super().corpus_config(config), images_field=config.images_field or "images")

    def equip(self, folder: Path) -> None:
        """Load the processor; without one that can be used the model reads text alone, and pictures are refused."""
        try:
            self.texts = PictureProcessor.load(folder, self.tokenizer)
            self.texts.expand(_tried_text())
        except (ModelError, MissingDependencyError, CorpusError) as error:
            self.texts = MissingProcessor(self.tokenizer, error)

    def tokenizer_fingerprint(self) -> str:
        """Fingerprint of the tokenizer and the processor."""
        both = f"{fingerprint_tokenizer(self.tokenizer)} {self.texts.fingerprint}"
        return hashlib.sha256(both.encode()).hexdigest()

    def encoder(self, config: CorpusConfig, most_tokens: int, seed: int) -> Encoder:
        """What cuts documents of any form into parts; one with pictures is one part."""
        del most_tokens, seed  # the parts go by the settings alone
        return DocumentEncoder(self.tokenizer, config, self.task().vocabulary, self.texts)

    def query_texts(self, query: Query, form: str, reader: QueryReader, limit: TokenLimit) -> Sequence[CountedText]:
        """Texts of a query of any form; a prompt with a picture is what the user says first."""
        if form in (COMPLETION, MESSAGES) and has_pictures(query):
            return pictured_texts(query, self.texts, limit)
        if form == MESSAGES:
            reader = ChatReader(reader, self.texts.tokenizer)
        return super().query_texts(query, form, reader, limit)

    def task(self) -> VisionLanguageModel:
        """The model with its loss."""
        return VisionLanguageModel(self.model, self.texts if isinstance(self.texts, PictureProcessor) else None)
