"""Influence of training documents on queries for any torch model, in memory.

The path is that of an index (`gindex.curvature`, `gindex.vectors`), for models whose factors and documents fit into
memory:

    task = Classification(model)
    documents, queries = tensor_batches(x_train, y_train), tensor_batches(x_test, y_test)
    attribution = Attribution.fit(task, tracked_layers(task, documents), documents)
    influence_QN = attribution.influence(queries, documents)

Axes: Q queries, N documents, D dimension.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic

import torch
from torch import Tensor

from gindex.config import ALL_LINEAR, CURVATURES, LEAST_SHARE, CurvatureConfig, VectorConfig
from gindex.curvature.ekfac import LayerFactors
from gindex.curvature.fit import Batch, label_seeds
from gindex.curvature.kinds import curvature_kind, fit_in_memory
from gindex.curvature.ranks import ranks
from gindex.errors import NonFiniteError
from gindex.lab.refine.config import CgConfig, SolverConfig
from gindex.lab.refine.gauss_newton import GaussNewton
from gindex.lab.refine.inverse import (
    CgInverse,
    Damping,
    DenseInverse,
    FactoredInverse,
    InverseCurvature,
    LissaInverse,
    iterative_inverse,
)
from gindex.lab.second_level.curvature import fit_second_level
from gindex.model.isolation import neutral, throughout
from gindex.model.layer_choice import LayerChoice
from gindex.model.layers import LayerTable, TrackedLayer, with_sources
from gindex.model.losses import OutputTask
from gindex.model.tensor_batches import TensorBatch
from gindex.model.tensor_tasks import TensorTask
from gindex.model.tracking import track_layers
from gindex.options import default_of
from gindex.progress import Progress, Silent
from gindex.vectors.codes import decode, encode
from gindex.vectors.held_gradients import HeldGradients, joined
from gindex.vectors.influence import document_gradients, exact_influence, precondition_queries
from gindex.vectors.norms import whitened_norms
from gindex.vectors.path import VectorBatch, VectorPath
from gindex.vectors.projection import LayerShape, ProjectionSpec, make_projection
from gindex.vectors.scores import slice_scores

logger = logging.getLogger(__name__)

DAMPING = float(default_of(CurvatureConfig, "damping_scale"))

VECTOR_STREAM = 3
"""Keeps the labels sampled for vectors independent of those of the fit's two passes."""


@neutral()
def tracked_layers(
    task: TensorTask,
    documents: Sequence[TensorBatch],
    *,
    layers: str = ALL_LINEAR,
    track: Sequence[str] = (),
    untrack: Sequence[str] = (),
) -> LayerTable:
    """Find the layers of a task's model to track.

    Args:
        task: The task; its model is tried on a few documents of the largest batch, over again where it has fewer than
            eleven.
        documents: Batches of documents.
        layers: Kinds of layers to track: attention, mlp, all-linear or everything.
        track: Patterns of names of layers to track although `layers` or `untrack` leaves them out.
        untrack: Patterns of names of layers to leave out, such as `encoder.0.*`.

    Returns:
        A sequence of the layers. Its `untracked` names every weight that takes no part, with the reason; its `share` is
        the tracked share of the model's body, and below one half a warning is logged.

    Raises:
        ConfigError: A pattern does nothing, or the model has no layers of the kind.
        NothingToTrackError: No layer can be tracked.
        NonFiniteError: The model's outputs are not finite.
    """
    choice = LayerChoice(layers=layers, track=track, untrack=untrack)
    largest_batch = max(documents, key=lambda batch: len(batch.ordinals))
    table = track_layers(task.model, lambda count: task.run(largest_batch.some(count)), choice)
    if table.share < LEAST_SHARE:
        largest = max(table.untracked, key=lambda weight: weight.parameters)
        logger.warning(
            "only %.1f%% of the weights are tracked: influence through the others is not seen; the largest, %s: %s",
            100 * table.share, largest.name, largest.reason,
        )  # fmt: skip
    return table


@throughout(neutral)
class Attribution(Generic[Batch]):
    """A task with fitted curvature.

    Attributes:
        task: The model with its loss.
        layers: Tracked layers.
        factors: Untruncated factors by layer name.
    """

    def __init__(
        self, task: OutputTask[Batch], layers: Sequence[TrackedLayer], factors: Mapping[str, LayerFactors]
    ) -> None:
        """Take what was fitted: see `fit`."""
        self.task, self.layers, self.factors = task, with_sources(layers), factors

    @classmethod
    def fit(
        cls,
        task: OutputTask[Batch],
        layers: Sequence[TrackedLayer],
        documents: Sequence[Batch],
        kind: str = CURVATURES.default,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> "Attribution[Batch]":
        """Fit the curvature.

        Args:
            task: The model with its loss.
            layers: Tracked layers: `tracked_layers`, or some of them.
            documents: Batches of the documents to fit on.
            kind: Name of the kind of curvature.
            seed: Seed of the sampled labels.
            progress: Where the passes are reported.

        Raises:
            ConfigError: The kind is unknown.
            LabelError: A document's label is outside the model's range.
            NonFiniteError: No document has a finite loss.
        """
        curvature, layers = curvature_kind(kind), with_sources(layers)
        return cls(task, layers, fit_in_memory(layers, task, documents, curvature, seed, progress or Silent()))

    def influence(self, queries: Sequence[Batch], documents: Sequence[Batch], damping_scale: float = DAMPING) -> Tensor:
        """Exact influence [Q, N]: positive where training on the document lowers the query's loss.

        Args:
            queries: Batches of queries; the gradients of all are held at once.
            documents: Batches of documents.
            damping_scale: Damping, as a multiple of each layer's mean eigenvalue.

        Raises:
            NonFiniteError: A query or document has a gradient that is not finite.
        """
        found = [
            precondition_queries(self.layers, self.factors.__getitem__, damping_scale, count, losses)
            for count, losses in self._passes(queries)
        ]
        return self.influence_of(joined(found), documents)

    def influence_of(self, preconditioned: Mapping[str, HeldGradients], documents: Sequence[Batch]) -> Tensor:
        """The influence [Q, N] of documents on queries that were preconditioned in any way.

        Args:
            preconditioned: H^-1 G [Q, O, I] of the queries' summed losses by layer name.
            documents: Batches of documents.

        Raises:
            NonFiniteError: A query or document has a gradient that is not finite.
        """
        queries = next(iter(preconditioned.values())).shape[0]
        influence_QN = torch.cat(
            [
                exact_influence(self.layers, preconditioned, _all(queries, count), losses)
                for count, losses in self._passes(documents)
            ],
            1,
        )
        if not torch.isfinite(influence_QN).all():
            query, document = torch.nonzero(~torch.isfinite(influence_QN))[0].tolist()
            raise NonFiniteError(
                field="influence",
                expected="finite gradients",
                found=f"NaN or infinity in document {document} or query {query} (counted from 0)",
                remedy="leave it out",
            )
        return influence_QN

    def factored_inverse(self, damping_scale: float = DAMPING) -> FactoredInverse:
        """The inverse of the fitted curvature, which `influence` applies."""
        return FactoredInverse(self.layers, self.factors.__getitem__, damping_scale)

    def dense_inverse(self, documents: Sequence[Batch], damping_scale: float = DAMPING) -> DenseInverse:
        """The inverse of the exact Gauss-Newton matrix of some documents: the reference, for small models.

        Args:
            documents: Batches of documents, as a rule those that the curvature was fitted on.
            damping_scale: Damping, as a multiple of each fitted layer's mean eigenvalue.

        Raises:
            ConfigError: There are too many weights.
            NonFiniteError: A document has outputs that are not finite.
        """
        curvature = GaussNewton(self.layers, self.task, documents)
        like = self.factors[self.layers[0].name].Lambda.new_empty(0, curvature.space.size)
        return DenseInverse(curvature, self._damping(damping_scale), like)

    def iterative_inverse(
        self,
        documents: Sequence[Batch],
        damping_scale: float = DAMPING,
        config: SolverConfig | None = None,
        done: Callable[[int], None] = lambda _documents: None,
    ) -> CgInverse | LissaInverse:
        """The inverse of the exact Gauss-Newton matrix of some documents, preconditioned by the fitted one.

        Args:
            documents: Batches of documents, as a rule those that the curvature was fitted on.
            damping_scale: Damping, as a multiple of each fitted layer's mean eigenvalue.
            config: The solver; conjugate gradients where None.
            done: Called with a number of documents after each batch of each product.
        """
        curvature = GaussNewton(self.layers, self.task, documents, done)
        preconditioner = self.factored_inverse(damping_scale)
        return iterative_inverse(curvature, self._damping(damping_scale), config or CgConfig(), preconditioner)

    def influence_by(self, inverse: InverseCurvature, queries: Sequence[Batch], documents: Sequence[Batch]) -> Tensor:
        """Influence [Q, N] by an inverse of the curvature that one of the methods above gives.

        Args:
            inverse: The inverse.
            queries: Batches of queries; the gradients of all are held at once.
            documents: Batches of documents.

        Raises:
            NonFiniteError: A query or document has a gradient that is not finite.
            DivergenceError: LiSSA diverges.
        """
        found = [document_gradients(self.layers, count, losses) for count, losses in self._passes(queries)]
        x_QW = inverse.apply(torch.cat([gradients for gradients, _ in found]))
        return self.influence_of(found[0][1].split(x_QW), documents)

    def _damping(self, scale: float) -> Damping:
        return Damping(self.layers, self.factors.__getitem__, scale)

    def self_influence(self, documents: Sequence[Batch], damping_scale: float = DAMPING) -> Tensor:
        """The influence [N] of each document on itself: mislabelled and odd documents come out high.

        Args:
            documents: Batches of documents.
            damping_scale: Damping, as a multiple of each layer's mean eigenvalue.
        """
        norms = [
            whitened_norms(self.layers, self.factors.__getitem__, damping_scale, count, losses)
            for count, losses in self._passes(documents)
        ]
        return torch.cat(norms).square()

    def vector_path(self, config: VectorConfig, damping_scale: float, seed: int = 0) -> VectorPath:
        """The path that turns documents into vectors.

        Args:
            config: Dimension, rank fraction (None keeps all) and projection.
            damping_scale: Damping of the vectors, as a multiple of each layer's mean eigenvalue.
            seed: Seed of the projection.

        Raises:
            ConfigError: The dimension is too small for the model's layer groups.
        """
        kept = {layer.name: ranks(layer, config.rank_fraction or 1.0) for layer in self.layers}
        shapes = tuple(
            LayerShape(name=layer.name, group=layer.group, rows=kept[layer.name][1], columns=kept[layer.name][0])
            for layer in self.layers
        )
        spec = ProjectionSpec(layers=shapes, dimension=config.dimension, seed=seed, kind=config.projection)
        factors = {name: self.factors[name].truncated(*kept[name]) for name in kept}
        device = next(iter(factors.values())).Q_A.device
        return VectorPath(self.layers, factors, damping_scale, make_projection(spec, device))

    def vectors(self, path: VectorPath, documents: Sequence[Batch], sampled: int | None = None) -> VectorBatch:
        """The vectors [N, D] of documents or queries.

        Args:
            path: From `vector_path`.
            documents: Batches of them.
            sampled: Seed of labels to sample from the model in place of the data's: vectors of pseudo-gradients.
        """
        found = [path.encode(count, losses) for count, losses in self._passes(documents, sampled)]
        return VectorBatch(
            vectors=torch.cat([part.vectors for part in found]),
            self_influence=torch.cat([part.self_influence for part in found]),
            losses=torch.cat([part.losses for part in found]),
        )

    def _passes(
        self, batches: Sequence[Batch], sampled: int | None = None
    ) -> Iterator[tuple[int, Callable[[], Tensor]]]:
        """The size of each batch, and a function that runs the model on it."""
        for batch in batches:
            if sampled is None:
                yield len(batch.ordinals), lambda b=batch: self.task.losses(b)  # type: ignore[misc]
            else:
                seeds = label_seeds(sampled, VECTOR_STREAM, batch.ordinals)
                yield len(batch.ordinals), lambda b=batch, s=seeds: self.task.sampled_losses(b, s)  # type: ignore[misc]


def _all(queries: int, documents: int) -> Tensor:
    return torch.ones(queries, documents, dtype=torch.bool, device="cpu")


@neutral()
def coded_scores(
    queries_QD: Tensor, vectors_ND: Tensor, bits: int, spec: ProjectionSpec, mu: float | None = None
) -> Tensor:
    """The scores [Q, N], on the CPU, of vectors as an index stores them, coded, for queries that are not.

    Args:
        queries_QD: Vectors of queries [Q, D].
        vectors_ND: Vectors of documents [N, D].
        bits: Bits a coordinate: 1, 2, 4, 8 or 16.
        spec: The projection, whose slices are scaled each by itself.
        mu: That of the second level of curvature, which is fitted on what the codes stand for; None for none.
    """
    slices = list(spec.slices.values())
    codes, scales_NS = (of.cpu() for of in encode(vectors_ND, bits, slices))
    queries_QD = queries_QD.cpu()
    if mu is not None:
        decoded_ND = decode(codes, scales_NS, bits, slices)
        level = fit_second_level(lambda: [decoded_ND], spec.dimension, mu, count=len(decoded_ND))
        queries_QD = level.apply(queries_QD, 2)
    return slice_scores(codes, scales_NS, bits, slices, queries_QD).sum(0)
