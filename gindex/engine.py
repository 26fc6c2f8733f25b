"""A loaded model with its tracked layers: what takes gradients of parts and queries.

Builds and searches share it, so both go down one path from text to vector.

Axes: N parts, D dimension, Q queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from gindex.config import ModelConfig
from gindex.corpus.batches import TokenBatch, form_batches, pad
from gindex.errors import CorruptStoreError
from gindex.gradient.projection import LayerShape, ProjectionSpec
from gindex.gradient.projections import make_projection
from gindex.gradient.vector import VectorBatch, VectorPath
from gindex.model.layers import PROBE_DOCUMENTS, LayerTable, track_layers
from gindex.model.load import LoadedModel, load_model, load_tokenizer
from gindex.model.losses import CausalLanguageModel
from gindex.store.factors import FactorReader
from gindex.store.layout import REMEDY, Layout
from gindex.store.manifest import LayerRecord, Manifest

Tokens = npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Engine:
    """A model, its loss, and its tracked layers."""

    loaded: LoadedModel
    task: CausalLanguageModel
    table: LayerTable

    @classmethod
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
        return cls(loaded=loaded, task=task, table=track_layers(loaded.model, lambda: task.logits(probe)))

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.task.device

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
        factors = FactorReader(layout, layers, self.device).truncated()
        return VectorPath(self.table.layers, factors, damping, make_projection(projection, self.device))

    def encode(self, path: VectorPath, batch: TokenBatch) -> VectorBatch:
        """Return the vectors of one batch."""
        return path.encode(len(batch.ordinals), lambda: self.task.losses(batch))

    def encode_all(
        self,
        path: VectorPath,
        tokens: Sequence[Tokens],
        first_targets: npt.NDArray[np.int64],
        batch_tokens: int,
        done: Callable[[int], None] = lambda _parts: None,
    ) -> VectorBatch:
        """Return the vectors [N, D] of any number of parts or queries, in the order given.

        Args:
            path: The prepared path.
            tokens: Token ids of each.
            first_targets: First token of each that counts in the loss [N].
            batch_tokens: Most tokens in a batch.
            done: Called after each batch with its number of parts.
        """
        batches = token_batches(tokens, np.arange(len(tokens)), first_targets, batch_tokens)
        all_parts = VectorBatch(
            vectors=torch.empty(len(tokens), path.projection.spec.dimension, device=self.device),
            self_influence=torch.empty(len(tokens), device=self.device),
            losses=torch.empty(len(tokens), device=self.device),
        )
        for batch in batches:
            encoded, where = self.encode(path, batch), torch.from_numpy(batch.ordinals).to(self.device)
            all_parts.vectors[where] = encoded.vectors
            all_parts.self_influence[where] = encoded.self_influence
            all_parts.losses[where] = encoded.losses
            done(len(batch.ordinals))
        return all_parts


def token_batches(
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
        batch_tokens: Most tokens in a batch, padding included.
    """
    lengths = np.array([len(part) for part in tokens], np.int64)
    groups = form_batches(np.arange(len(tokens)), lengths, batch_tokens)
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
