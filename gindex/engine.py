"""A loaded model with its tracked layers: what takes gradients of parts and queries.

Builds and searches share it, so both go down one path from text to vector.

Axes: N parts, D dimension, Q queries.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
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
from gindex.corpus.batches import TokenBatch, form_batches, pad
from gindex.errors import CorruptStoreError
from gindex.gradient.projection import LayerShape, ProjectionSpec
from gindex.gradient.projections import make_projection
from gindex.gradient.vector import VectorBatch, VectorPath
from gindex.model.devices import to_device
from gindex.model.head import plain_head
from gindex.model.layers import PROBE_DOCUMENTS, LayerTable, track_layers
from gindex.model.load import LoadedModel, load_model, load_tokenizer
from gindex.model.losses import CausalLanguageModel
from gindex.model.passes import alone, plain, share_turns
from gindex.store.factors import FactorReader
from gindex.store.layout import REMEDY, Layout
from gindex.store.manifest import LayerRecord, Manifest

Tokens = npt.NDArray[np.uint32]

CPU_BATCH_TOKENS, ACCELERATOR_BATCH_TOKENS = 1024, 16384

TWIN_BATCH_TOKENS = 2048
"""Most tokens of a batch of a twin: on an accelerator a pass stands still between batches alone."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Engine:
    """A model, its loss, and its tracked layers."""

    loaded: LoadedModel
    task: CausalLanguageModel
    table: LayerTable
    most_batch_tokens: int = ACCELERATOR_BATCH_TOKENS

    @classmethod
    @plain()
    def load(cls, config: ModelConfig) -> "Engine":
        """Load a model and find its layers.

        Raises:
            ModelError: The model cannot be loaded.
            TokenizerError: It has no usable tokenizer.
            NothingToTrackError: It has no layer to track.
        """
        loaded = load_model(config, load_tokenizer(config.name))
        task = CausalLanguageModel(loaded.model)
        probe = pad(
            [np.ones(4, np.uint32)] * PROBE_DOCUMENTS, np.arange(PROBE_DOCUMENTS), np.ones(PROBE_DOCUMENTS, np.int64)
        )
        table = track_layers(loaded.model, lambda: task.logits(probe))
        with alone(loaded.model):
            head = plain_head(loaded.model, to_device(probe.tokens, task.device))
        if head is not None and all(layer.module is not head for layer in table.layers):
            task = CausalLanguageModel(loaded.model, head)
        return cls(loaded=loaded, task=task, table=table)

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.task.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the tracked weights."""
        return next(self.table.layers[0].module.parameters()).dtype

    @property
    def usual_batch_tokens(self) -> int:
        """Tokens of a batch that keep the device busy; more only take memory, which a CPU's caches don't reward."""
        return CPU_BATCH_TOKENS if self.device.type == "cpu" else self.most_batch_tokens

    @cached_property
    def twin(self) -> "Engine":
        """The same weights in modules of their own, whose passes may stand still while one of this engine runs."""
        model = self.loaded.model
        copies: dict[int, Any] = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
        with self.alone():  # or it would take the hooks of a pass along
            twin = deepcopy(model, copies)
        share_turns(twin, ours=True)
        layers = tuple(replace(layer, module=copies[id(layer.module)]) for layer in self.table.layers)
        return replace(
            self,
            loaded=replace(self.loaded, model=twin),
            task=CausalLanguageModel(twin, None if self.task.head is None else copies[id(self.task.head)]),
            table=replace(self.table, layers=layers),
            most_batch_tokens=TWIN_BATCH_TOKENS,
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """The blocks that can be checkpointed: the layer groups that hold more than one layer."""
        own = {layer.name for layer in self.table.layers}
        return [self.loaded.model.get_submodule(group) for group in self.table.groups if group not in own]

    def alone(self) -> AbstractContextManager[None]:
        """Run the model otherwise than by the methods here: while no other thread does, in a neutral state."""
        return alone(self.loaded.model)

    def factors(self, layout: Layout, layers: Sequence[LayerRecord]) -> FactorReader:
        """Return what loads the factors of an index, for this model's device and number format.

        Args:
            layout: The index.
            layers: Its tracked layers with their ranks.
        """
        return FactorReader(layout, layers, self.device, self.dtype)

    @plain()
    def vector_path(
        self, layout: Layout, layers: Sequence[LayerRecord], projection: ProjectionSpec, damping: float
    ) -> VectorPath:
        """Prepare the path from passes to vectors with the factors of an index.

        Args:
            layout: The index.
            layers: Its tracked layers with their ranks.
            projection: The projection.
            damping: Multiple of each layer's mean eigenvalue.
        """
        factors = self.factors(layout, layers).truncated()
        return VectorPath(self.table.layers, factors, damping, make_projection(projection, self.device))

    def encode(self, path: VectorPath, batch: TokenBatch) -> VectorBatch:
        """Return the vectors of one batch."""
        return path.encode(len(batch.ordinals), lambda: self.task.losses(batch))

    @plain()
    def encode_all(
        self,
        path: VectorPath,
        tokens: Sequence[Tokens],
        first_targets: npt.NDArray[np.int64],
        batch_tokens: int,
    ) -> VectorBatch:
        """Return the vectors [N, D] of any number of parts or queries, in the order given.

        Args:
            path: The prepared path.
            tokens: Token ids of each.
            first_targets: First token of each that counts in the loss [N].
            batch_tokens: Most tokens in a batch; 0 takes what suits the device.
        """
        all_parts = VectorBatch(
            vectors=self._empty(len(tokens), path.projection.spec.dimension),
            self_influence=self._empty(len(tokens)),
            losses=self._empty(len(tokens)),
        )
        for positions, encoded in self.encode_batches(path, tokens, first_targets, batch_tokens):
            where = to_device(positions, self.device)
            all_parts.vectors[where] = encoded.vectors
            all_parts.self_influence[where] = encoded.self_influence
            all_parts.losses[where] = encoded.losses
        return all_parts

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def encode_batches(
        self, path: VectorPath, tokens: Sequence[Tokens], first_targets: npt.NDArray[np.int64], batch_tokens: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], VectorBatch]]:
        """Yield the vectors of any number of parts batch by batch, with the positions [N] of the batch's parts.

        Args:
            path: The prepared path.
            tokens: Token ids of each.
            first_targets: First token of each that counts in the loss [N].
            batch_tokens: Most tokens in a batch; 0 takes what suits the device.
        """
        for batch in self.batches(tokens, np.arange(len(tokens)), first_targets, batch_tokens):
            yield batch.ordinals, self.encode(path, batch)

    def batches(
        self,
        tokens: Sequence[Tokens],
        ordinals: npt.NDArray[np.int64],
        first_targets: npt.NDArray[np.int64],
        batch_tokens: int,
    ) -> list[TokenBatch]:
        """Cut parts into batches of like lengths.

        Args:
            tokens: Token ids of each part.
            ordinals: What each part is called in its batch [N].
            first_targets: First token of each that counts in the loss [N].
            batch_tokens: Most tokens in a batch, padding included; 0 takes what suits the device.
        """
        lengths = np.array([len(part) for part in tokens], np.int64)
        groups = form_batches(np.arange(len(tokens)), lengths, batch_tokens or self.usual_batch_tokens)
        return [pad([tokens[n] for n in group], ordinals[group], first_targets[group]) for group in groups]


def projection_of(layers: Sequence[LayerRecord], kind: str, dimension: int, seed: int) -> ProjectionSpec:
    """Return the projection of an index with these layers."""
    shapes = tuple(
        LayerShape(name=layer.name, group=layer.group, rows=layer.gradient_rank, columns=layer.activation_rank)
        for layer in layers
    )
    return ProjectionSpec(layers=shapes, kind=kind, dimension=dimension, seed=seed)


def recorded_projection(layout: Layout, manifest: Manifest) -> ProjectionSpec:
    """Return the projection of an index.

    Raises:
        CorruptStoreError: It is not the one whose fingerprint the manifest records.
    """
    recorded = manifest.projection
    spec = projection_of(manifest.layers, recorded["kind"], recorded["dimension"], recorded["seed"])
    if spec.fingerprint != recorded["fingerprint"]:
        raise CorruptStoreError(
            f"{layout.manifest(manifest.version)}: expected projection {recorded['fingerprint'][:12]}, found "
            f"{spec.fingerprint[:12]}; the manifest was altered: {REMEDY}"
        )
    return spec
