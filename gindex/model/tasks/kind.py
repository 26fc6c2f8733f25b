"""A task: all that gindex needs to know of what a model was trained to do.

Everything behind it (fit, vectors, exact influence, explanations, scores) takes objectives, and losses of batches of
them, whatever the task.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gindex.config import AUTO, COMPLETION, USUAL_TOKENS, CorpusConfig
from gindex.corpus.batches import TokenBatch
from gindex.corpus.encoding import Encoder
from gindex.corpus.objectives import Objective
from gindex.errors import ConfigError, ModelError
from gindex.model.fingerprints import fingerprint_tokenizer
from gindex.model.layers import LayerTable
from gindex.options import options_of
from gindex.queries.counted_text import CountedText, TokenLimit
from gindex.queries.query import Query
from gindex.queries.reader import QueryReader

_ANY_TASK = ("form", "weight_field", "id_field", "max_tokens", "limit", "sample", "index_field")
"""Fields of `CorpusConfig` that every task has a use for."""


class ModelTask(Protocol):
    """A model with the loss of its task: `OutputTask[TokenBatch]`, and what tries it out."""

    model: nn.Module
    probe_tokens: int
    """Tokens of each document that a model is tried on."""

    reads_tokens: bool
    """Whether the model reads tokens; else `trial` gives another picture, or other tensors, for each first id."""

    @property
    def device(self) -> torch.device:
        """Device of the model's weights."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many tokens the model reads."""
        ...

    def logits(self, batch: TokenBatch) -> Tensor:
        """Return all that the model gives for a batch, its first axis that of the texts, differentiable."""
        ...

    def outputs(self, batch: TokenBatch) -> Tensor:
        """Return the outputs [M, V] of all positions that carry a loss, float32 or wider, differentiable."""
        ...

    def output_hessian(self, outputs_MV: Tensor, v_MV: Tensor) -> Tensor:
        """Return the Hessian of the loss in the outputs, at each position, times v [M, V]."""
        ...

    def losses(self, batch: TokenBatch) -> Tensor:
        """Return the weighted sum of losses [N] of each objective, in nats, differentiable."""
        ...

    def sampled_losses(self, batch: TokenBatch, seeds: Sequence[int]) -> Tensor:
        """Return the same [N] with labels sampled from the model, one seed [N] an objective."""
        ...

    def trial(self, ids: npt.NDArray[np.uint32]) -> Objective:
        """Return an objective of the task over any tokens [T], to try the model on."""
        ...

    def trial_alone(self) -> Objective | None:
        """Return an objective with pictures beside its tokens, where the model reads these; it is alone in a batch."""
        ...

    def settled(self, table: LayerTable, batch: TokenBatch) -> Self:
        """Return the task as it is used once the tracked layers are known; the batch is one to try."""
        ...

    def on(self, model: nn.Module, copies: Mapping[int, Any]) -> Self:
        """Return the task of a copy of the model, given the copies of its modules by the originals' identity."""
        ...


class TaskKind(ABC):
    """A kind of task, with the model that it is about.

    What stands in the class is used before a model is loaded.

    Attributes:
        name: Its name, as `task` chooses it.
        auto_model: Class of transformers that loads the model.
        mapping: Configurations that it knows, by their name in transformers' modeling_auto.
        described: What the model must be, for errors.
        document_forms: Forms that its documents may have; of several, one is recognised from each record.
        corpus_settings: Fields of `CorpusConfig` that it has a use for, beside those that any task has.
        query_forms: Forms of queries that it takes.
        variants: Names of tasks that go by its name too, of models that read something else than text.
        reads_tokens: Whether the model reads tokens, with a tokenizer beside it.
        usual_tokens: Tokens of the longest part, where the settings say nothing and the model takes as many.
        spare: Weights of a checkpoint that the model has no use for, as a regular expression; "" for none.
        has_labels: Whether its head has a row for each label, and may come with an adapter.
    """

    name: ClassVar[str]
    auto_model: ClassVar[str]
    mapping: ClassVar[str]
    described: ClassVar[str]
    document_forms: ClassVar[tuple[str, ...]]
    corpus_settings: ClassVar[tuple[str, ...]]
    query_forms: ClassVar[tuple[str, ...]] = (COMPLETION,)
    spare: ClassVar[str] = ""
    variants: ClassVar[tuple[str, ...]] = ()
    reads_tokens: ClassVar[bool] = True
    has_labels: ClassVar[bool] = False
    usual_tokens: ClassVar[int] = USUAL_TOKENS

    def __init__(self, place: str, model: nn.Module, tokenizer: Any) -> None:
        """Take a loaded model.

        Args:
            place: What messages call it.
            model: The model.
            tokenizer: Its tokenizer, or what else `load_reader` gives.
        """
        self.place, self.model, self.tokenizer = place, model, tokenizer

    @classmethod
    @abstractmethod
    def fits(cls, architecture: str, settings: Mapping[str, Any]) -> bool:
        """Whether a model of an architecture, with such a config.json, is trained to do this."""

    @classmethod
    def check_architecture(cls, settings: Mapping[str, Any], place: str) -> None:
        """Check what a config.json says before anything is loaded.

        Raises:
            ModelError: The model's head is not that of the task.
        """
        named = settings.get("architectures") or []
        if named and not any(cls.fits(str(each), settings) for each in named):
            raise ModelError(
                field=place,
                expected=f"{cls.described}, for `task` {cls.name}",
                found=", ".join(map(str, named)),
                remedy="leave `task` out, or give a model that was trained to do that",
            )

    @classmethod
    def knows(cls, settings: object) -> bool:
        """Whether transformers has a model of the task for a configuration of its classes."""
        from transformers.models.auto import modeling_auto

        return type(settings) in getattr(modeling_auto, cls.mapping)

    def prepare(self, examples: Callable[[], Sequence[Objective]]) -> None:  # noqa: B027  most models are tried on tokens
        """Try the model on documents, where nothing else can be made up for it.

        Args:
            examples: Gives a few documents.

        Raises:
            ModelError: It fails on them.
        """

    @classmethod
    def corpus_config(cls, config: CorpusConfig) -> CorpusConfig:
        """The settings of documents, as the task needs them.

        Raises:
            ConfigError: The task has no use for the form that was given.
        """
        return replace(config, form=cls.corpus_form(config))

    @classmethod
    def load_reader(cls, folder: Path) -> Any:
        """Load what prepares documents, where the model reads no tokens."""
        del folder
        return None

    def equip(self, folder: Path) -> None:  # noqa: B027  few models have more than a tokenizer
        """Load what prepares documents beside the tokenizer."""

    def tokenizer_fingerprint(self) -> str:
        """Fingerprint of the tokenizer, and of what else prepares documents beside it."""
        return fingerprint_tokenizer(self.tokenizer)

    @classmethod
    def reader_fingerprint(cls, reader: Any) -> str:
        """Fingerprint of what `load_reader` gave; empty for nothing."""
        del reader
        return ""

    @classmethod
    def corpus_form(cls, config: CorpusConfig) -> str:
        """The form of documents: the one that was given, or that of the task.

        Raises:
            ConfigError: The task has no use for the form, or for another setting that was given.
        """
        for name, of in options_of(CorpusConfig).items():
            value = getattr(config, name)
            if value != of.default and name not in (*_ANY_TASK, *cls.corpus_settings):
                raise ConfigError(
                    field=name, expected=f"none for `task` {cls.name}", found=value, remedy=f"leave `{name}` out"
                )
        if config.form not in (AUTO, *cls.document_forms):
            expected = f"{' or '.join(cls.document_forms)}, for `task` {cls.name}"
            raise ConfigError(field="form", expected=expected, found=config.form, remedy="leave `form` out")
        return cls.document_forms[0] if len(cls.document_forms) == 1 else config.form

    @abstractmethod
    def check(self, most_tokens: int) -> None:
        """Run the model on a few tokens: it must do what the task needs.

        Raises:
            ModelError: It does not.
            NonFiniteError: Its outputs are NaN or infinite.
        """

    @abstractmethod
    def check_length(self, tokens: int) -> None:
        """Check that the model takes so many tokens, and does with them what the task needs.

        Raises:
            ModelError: It does not.
        """

    @abstractmethod
    def encoder(self, config: CorpusConfig, most_tokens: int, seed: int) -> Encoder:
        """What makes objectives of documents.

        Args:
            config: How documents are read.
            most_tokens: Most tokens of a text.
            seed: Decides what is drawn, where anything is.
        """

    @abstractmethod
    def query_texts(self, query: Query, form: str, reader: QueryReader, limit: TokenLimit) -> Sequence[CountedText]:
        """Texts of a query; see `QueryReader.query_texts`."""

    @abstractmethod
    def task(self) -> ModelTask:
        """The model with its loss."""
