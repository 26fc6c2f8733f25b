"""A loaded model with its tracked layers: what gradients of parts and queries are taken of.

Axes: N parts.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gindex.config import ModelConfig
from gindex.corpus.batches import TokenBatch, batch_objectives, pad
from gindex.corpus.objectives import Objective
from gindex.errors import MismatchError
from gindex.model.isolation import alone, plain, share_turns
from gindex.model.layer_choice import LayerChoice
from gindex.model.layer_records import LayerRecord
from gindex.model.layers import LayerTable
from gindex.model.load import LoadedModel, load_model
from gindex.model.number_formats import Formats, factor_formats
from gindex.model.tasks.kind import ModelTask
from gindex.model.tracking import track_layers

PROBE_VOCABULARY = 1024
"""How many of a model's tokens, the first ones, those are taken from that it is tried on."""

CPU_BATCH_TOKENS, ACCELERATOR_BATCH_TOKENS = 1024, 16384

TWIN_BATCH_TOKENS = 2048
"""Most tokens of a batch of a twin: on an accelerator a pass stands still between batches alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackedModel:
    """A model, its loss, and its tracked layers. Builds and searches use the same."""

    loaded: LoadedModel
    task: ModelTask
    table: LayerTable
    most_batch_tokens: int = ACCELERATOR_BATCH_TOKENS

    @classmethod
    @plain()
    def load(
        cls,
        config: ModelConfig,
        recorded: Sequence[LayerRecord] | None = None,
        check: Callable[[LoadedModel], None] = lambda _loaded: None,
        examples: Callable[[LoadedModel], Sequence[Objective]] = lambda _loaded: (),
        known: Mapping[str, str] | None = None,
    ) -> "TrackedModel":
        """Load a model and find its layers.

        Args:
            config: Which model, and which of its layers to track.
            recorded: The layers of an index, which are taken in the place of those that `config` chooses.
            check: Called with the model before its layers are looked for: raises where it is not the one wanted.
            examples: Gives a few documents, where the task of the model is a user's own and is tried on them.
            known: What is known of a model that needs no trial; see `load_model`.

        Raises:
            ModelError: The model cannot be loaded.
            TokenizerError: It has no usable tokenizer.
            ConfigError: A pattern of layers to track or not to track does nothing.
            NothingToTrackError: It has no layer to track.
            MismatchError: A layer of the index can not be tracked.
        """
        loaded = load_model(config, known)
        check(loaded)
        loaded.kind.prepare(lambda: examples(loaded))
        return cls.of(loaded, config, recorded, tried=recorded is not None and loaded.run_identity == known)

    @classmethod
    @plain()
    def of(
        cls,
        loaded: LoadedModel,
        config: ModelConfig,
        recorded: Sequence[LayerRecord] | None = None,
        *,
        tried: bool = False,
    ) -> "TrackedModel":
        """Find the layers of a loaded model; see `load`.

        Args:
            loaded: The model.
            config: Which of its layers to track.
            recorded: The layers of an index.
            tried: Whether the gradients of these were right before, so that they need no trial.
        """
        task = loaded.kind.task()
        names = None if recorded is None else tuple(layer.name for layer in recorded)
        choice = LayerChoice(
            layers=config.layers,
            track=config.track,
            untrack=config.untrack,
            names=names,
            trained=loaded.trained,
            tried=tried,
        )
        widths = {mask.shape[1] for mask in _probe(task, 1).masks}
        table = track_layers(
            loaded.model,
            lambda documents: task.logits(_probe(task, documents)),
            choice,
            None if widths == {1} else widths | {1},
            _alone_probe(task),
        )
        if recorded is not None:
            table = _as_recorded(table, recorded)
            _check_layers(config.name, table, recorded)
        return cls(loaded=loaded, task=task.settled(table, _probe(task, 1)), table=table)

    def check_length(self, tokens: int) -> None:
        """Check that the model takes parts of so many tokens, and does with them what its task needs.

        Raises:
            ModelError: It does not.
        """
        with self.alone():
            self.loaded.kind.check_length(tokens)

    @contextmanager
    def from_embeddings(self) -> Iterator[None]:
        """Let gradients flow from the embeddings of tokens, or the first tracked layer, up, as under observation."""
        model = self.loaded.model
        reading = [self.table.layers[0].module]
        if self.task.reads_tokens:
            own = model.get_input_embeddings()  # type: ignore[operator]
            # An encoder and a decoder have one each, of the same weight.
            embeddings = (m for m in model.modules() if isinstance(m, nn.Embedding))
            reading = [own, *(m for m in embeddings if m is not own and m.weight is own.weight)]
        handles = [module.register_forward_hook(_needing_gradients) for module in reading]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def trial(self, tokens: int, vocabulary: int | None = None) -> TokenBatch:
        """A part of so many tokens to measure the model on.

        Args:
            tokens: Its length.
            vocabulary: How many different tokens are in it; all that the model has by default.
        """
        ids = np.arange(tokens, dtype=np.uint32) % min(self.task.vocabulary, vocabulary or self.task.vocabulary)
        return pad([self.task.trial(ids)], [0])

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.task.device

    @cached_property
    def dtype(self) -> torch.dtype:
        """Number format of most tracked weights: some models keep routers or norms in float32 beside 16 bits."""
        formats = Counter[torch.dtype]()
        for layer in self.table.layers:
            formats[next(layer.module.parameters()).dtype] += layer.parameters
        return formats.most_common(1)[0][0]

    @property
    def dtype_name(self) -> str:
        """The same by its name in settings."""
        return str(self.dtype).removeprefix("torch.")

    @cached_property
    def factor_formats(self) -> Formats:
        """Number format of each layer's products with its factors, by layer name."""
        return factor_formats(self.table.layers)

    @property
    def usual_batch_tokens(self) -> int:
        """Tokens of a batch that keep the device busy; more only take memory, which a CPU's caches don't reward."""
        return CPU_BATCH_TOKENS if self.device.type == "cpu" else self.most_batch_tokens

    @cached_property
    def twin(self) -> "TrackedModel":
        """The same weights in modules of their own, whose passes may stand still while one of this model runs."""
        model = self.loaded.model
        copies: dict[int, Any] = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
        with self.alone():  # or it would take the hooks of a pass along
            twin = deepcopy(model, copies)
            layers = tuple(
                replace(
                    layer,
                    module=deepcopy(layer.module, copies),
                    copies=deepcopy(layer.copies, copies),
                    beside=deepcopy(layer.beside, copies),
                )
                for layer in self.table.layers
            )
        share_turns(twin, ours=True)
        return replace(
            self,
            loaded=replace(self.loaded, model=twin),
            task=self.task.on(twin, copies),
            table=replace(self.table, layers=layers),
            most_batch_tokens=TWIN_BATCH_TOKENS,
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks that can be checkpointed: the layer groups that hold more than one layer."""
        own = {layer.whole for layer in self.table.layers}
        return [self.loaded.model.get_submodule(group) for group in self.table.groups if group not in own]

    def alone(self) -> AbstractContextManager[None]:
        """Run the model otherwise than by the methods here: while no other thread does, in a neutral state."""
        return alone(self.loaded.model)

    def batches(
        self, objectives: Sequence[Objective], ordinals: npt.NDArray[np.int64], batch_tokens: int
    ) -> list[TokenBatch]:
        """Cut objectives into batches of like lengths; see `batch_objectives`.

        Args:
            objectives: N objectives.
            ordinals: What each is called in its batch [N].
            batch_tokens: Most tokens in a batch, padding included; 0 takes what suits the device.
        """
        return batch_objectives(objectives, ordinals, batch_tokens or self.usual_batch_tokens)


def _probe(task: ModelTask, documents: int) -> TokenBatch:
    """Documents of a few different tokens to try a model on; none whose embedding is not finite."""
    usable, length = np.arange(PROBE_VOCABULARY), task.probe_tokens
    if task.reads_tokens:
        weight_VH = task.model.get_input_embeddings().weight  # type: ignore[operator]
        usable = torch.isfinite(weight_VH[:PROBE_VOCABULARY]).all(1).nonzero()[:, 0].cpu().numpy()
        usable = usable if len(usable) else np.arange(1)
    tokens = usable[np.arange(documents * length) % len(usable)].astype(np.uint32)
    return pad([task.trial(ids) for ids in tokens.reshape(documents, length)], np.arange(documents))


def _alone_probe(task: ModelTask) -> Callable[[int], Tensor] | None:
    """What runs a document with pictures by itself; None where the model reads none."""
    trial = task.trial_alone()
    if trial is None:
        return None
    batch = pad([trial], [0])
    return lambda _documents: task.logits(batch)


def _needing_gradients(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
    return output.requires_grad_(True).clone()  # what follows may work in place, which a leaf does not allow


def _as_recorded(table: LayerTable, recorded: Sequence[LayerRecord]) -> LayerTable:
    """Let the factors have the structure that they had when the index was built, and experts share as they did."""
    found = []
    records = {layer.name: layer for layer in recorded}
    for layer in table:
        if (record := records.get(layer.name)) is not None:
            layer = replace(layer, input_block=record.input_block, output_block=record.output_block)
            layer = layer if record.factors is None else layer.sharing()
        found.append(layer)
    return replace(table, layers=tuple(found))


def _check_layers(name: str, table: LayerTable, recorded: Sequence[LayerRecord]) -> None:
    """See that the layers of an index are there as they were when it was built."""
    found = {layer.name: (layer.group, layer.source, layer.inputs, layer.outputs) for layer in table.layers}
    why = {name: w.reason for w in table.untracked for name in (w.name.rpartition(".")[0], w.name)}
    for layer in recorded:
        expected = layer.group, layer.source, layer.inputs, layer.outputs
        if found.get(layer.name) != expected:
            reason = why.get(layer.name, "other layers read the same activations, or its shape is another")
            raise MismatchError(
                field=name,
                expected=f"the layer {layer.name} that the index was built with",
                found=f"that it cannot be used: {reason}",
                remedy="take the versions of gindex and transformers that it was built with, or build it anew",
            )
