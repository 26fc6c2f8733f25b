"""Methods that are compared, for models in memory: each returns scores [Q, N].

Axes: Q queries, N documents, D dimension.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gindex.config import VectorConfig
from gindex.lab.attribution import DAMPING, Attribution, coded_scores, tracked_layers
from gindex.lab.evaluations.training import Scores
from gindex.lab.refine.config import CgConfig
from gindex.model.tasks import TensorTask
from gindex.model.tensors import TensorBatch
from gindex.vectors.path import VectorPath

RIDGE = 1e-3
"""Added to the second moment of TRAK-like features, as a multiple of its mean eigenvalue."""


class TensorMethods:
    """Methods of attribution for a trained model whose documents are tensors; each curvature is fitted once."""

    def __init__(
        self, task: TensorTask, documents: Sequence[TensorBatch], queries: Sequence[TensorBatch], seed: int = 0
    ) -> None:
        """Take a trained model.

        Args:
            task: The model with its loss.
            documents: What it was trained on.
            queries: What it is asked about.
            seed: Seed of sampled labels and projections.
        """
        self.task, self.documents, self.queries, self.seed = task, documents, queries, seed
        self.layers = tracked_layers(task, documents)
        self._fitted: dict[str, Attribution[TensorBatch]] = {}

    def fitted(self, kind: str) -> Attribution[TensorBatch]:
        """The attribution with a kind of curvature."""
        if kind not in self._fitted:
            self._fitted[kind] = Attribution.fit(self.task, self.layers, self.documents, kind, self.seed)
        return self._fitted[kind]

    def exact(self, kind: str = "ekfac", damping_scale: float = DAMPING) -> Scores:
        """Exact influence [Q, N]."""
        return _scores(self.fitted(kind).influence(self.queries, self.documents, damping_scale))

    def self_influence(self, kind: str = "ekfac", damping_scale: float = DAMPING) -> Scores:
        """Exact self-influence of the documents [N]."""
        return _scores(self.fitted(kind).self_influence(self.documents, damping_scale))

    def projected(
        self,
        config: VectorConfig,
        damping_scale: float,
        kind: str = "ekfac",
        *,
        coded: bool = True,
        mu: float | None = None,
    ) -> Scores:
        """The scores of vectors as an index stores them; at full precision where `coded` is not set.

        Args:
            config: Dimension, bits, rank fraction and projection.
            damping_scale: Damping of the vectors.
            kind: Curvature.
            coded: Whether documents are coded at the bits of the config.
            mu: That of the second level of curvature; None for none.
        """
        path = self.path(config, damping_scale, kind)
        queries_QD, vectors_ND = self.vectors(path, kind)
        if not coded:
            return _scores(queries_QD @ vectors_ND.T)
        return _scores(coded_scores(queries_QD, vectors_ND, config.bits, path.projection.spec, mu))

    def refined(self, damping_scale: float, iterations: int = 20) -> Scores:
        """Influence by conjugate gradients on the exact Gauss-Newton matrix, preconditioned by EK-FAC."""
        attribution, config = self.fitted("ekfac"), CgConfig(iterations=iterations, tolerance=1e-3)
        inverse = attribution.iterative_inverse(self.documents, damping_scale, config)
        return _scores(attribution.influence_by(inverse, self.queries, self.documents))

    def dense(self, damping_scale: float) -> Scores:
        """Influence by the inverse of the exact Gauss-Newton matrix, for models of a few thousand weights."""
        attribution = self.fitted("ekfac")
        inverse = attribution.dense_inverse(self.documents, damping_scale)
        return _scores(attribution.influence_by(inverse, self.queries, self.documents))

    def trak_like(self, config: VectorConfig) -> Scores:
        """Scores in the way of TRAK: projected raw gradients, and the inverse of their own second moment.

        TRAK (arXiv:2303.14186) takes gradients of the margin and averages over models; these are those of the loss, of
        one model.
        """
        queries_QD, vectors_ND = (x.double() for x in self.vectors(self.path(config, 1.0, "identity"), "identity"))
        moment_DD = vectors_ND.T @ vectors_ND
        moment_DD.diagonal().add_(RIDGE * moment_DD.diagonal().mean())
        return _scores(queries_QD @ torch.linalg.solve(moment_DD, vectors_ND.T))

    def path(self, config: VectorConfig, damping_scale: float, kind: str = "ekfac") -> VectorPath:
        """The path from documents to vectors."""
        return self.fitted(kind).vector_path(config, damping_scale, self.seed)

    def vectors(self, path: VectorPath, kind: str = "ekfac") -> tuple[Tensor, Tensor]:
        """The vectors of queries [Q, D] and documents [N, D]."""
        queries, documents = (self.fitted(kind).vectors(path, some) for some in (self.queries, self.documents))
        return queries.vectors, documents.vectors


def _scores(scores: Tensor) -> Scores:
    return scores.cpu().numpy().astype(np.float64)
