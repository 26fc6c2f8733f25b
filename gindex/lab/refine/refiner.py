"""Refined queries of an exact re-rank: conjugate gradients or LiSSA on the Gauss-Newton matrix itself.

EK-FAC knows nothing of correlations across layers, nor of what is not Kronecker-shaped. Here it only preconditions: the
curvature is the exact Gauss-Newton matrix of a sample of the index's parts, applied by products. Parts outside of the
sample enter by the damping alone, so the sample should be as large as the time allows.

Axes: Q queries, W tracked weights.
"""

import time
from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.corpus.batches import one_text_each
from gindex.curvature.ekfac import FactorLoader
from gindex.documents.table import DocumentTable
from gindex.exact.refinement import Refinement
from gindex.lab.refine.config import CgConfig, SolverConfig
from gindex.lab.refine.gauss_newton import GaussNewton
from gindex.lab.refine.inverse import Damping, FactoredInverse, SplitCurvature, iterative_inverse
from gindex.model.isolation import plain, throughout
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Progress
from gindex.queries.tokens import QueryTokens
from gindex.vectors.influence import WeightSpace, document_gradients

SOLVER_VECTORS = 6
"""Vectors of the size of the weights, in float32, that are held for each query while it is solved for."""

LOGITS = 1 << 24
"""Most logits of a batch of products, 64 MiB in float32; several times that is held."""


@throughout(plain)
class SolverRefiner:
    """Preconditions queries by the exact Gauss-Newton matrix of some parts of an index: `exact.refiner.Refiner`."""

    def __init__(
        self,
        model: TrackedModel,
        factors: FactorLoader,
        damping_scale: float,
        table: DocumentTable,
        config: SolverConfig,
    ) -> None:
        """Prepare for one index.

        Args:
            model: The model.
            factors: Loads a layer's factors, which precondition the solver.
            damping_scale: Multiple of each layer's mean eigenvalue.
            table: Where the parts' tokens are.
            config: The solver.
        """
        self._model, self._factors, self._damping_scale = model, factors, damping_scale
        self._table, self._config = table, config

    @property
    def query_bytes(self) -> int:
        """Bytes that are held for each query."""
        return 4 * SOLVER_VECTORS * sum(layer.parameters for layer in self._model.table.layers)

    def solve(
        self, queries: Sequence[QueryTokens], parts: npt.NDArray[np.int64], progress: Progress
    ) -> tuple[dict[str, Tensor], list[Refinement]]:
        """X = (C + damping)^-1 G [Q, O, I] of the queries by layer name, and how it was found for each.

        Args:
            queries: Q queries.
            parts: Part ordinals that the curvature C is a mean over.
            progress: Where the work is reported.

        Raises:
            DivergenceError: LiSSA diverges.
            NonFiniteError: A part has outputs that are not finite.
        """
        objectives = [objective.unweighted() for objective in self._table.objectives(parts)]
        most = max(1, min(self._model.usual_batch_tokens, LOGITS // self._model.task.vocabulary))
        batches = self._model.batches(objectives, parts, most)
        total = None  # LiSSA takes a batch an iteration, and some more to find its scale
        if isinstance(self._config, CgConfig):
            total = len(queries) * len(parts) * max(1, self._config.iterations)
        with progress.phase("refine queries", total, "parts") as phase:
            curvature = GaussNewton(self._model.table.layers, self._model.task, batches, phase.advance)
            return self.solve_on(curvature, queries, len(parts))

    def solve_on(
        self, curvature: SplitCurvature, queries: Sequence[QueryTokens], parts: int
    ) -> tuple[dict[str, Tensor], list[Refinement]]:
        """The same as `solve` for any curvature of the tracked weights, said to be of so many parts."""
        start = time.perf_counter()
        layers = self._model.table.layers
        gradients_QW, space = self._gradients(queries)
        damping = Damping(layers, self._factors, self._damping_scale)
        preconditioner = FactoredInverse(layers, self._factors, self._damping_scale)
        solution = iterative_inverse(curvature, damping, self._config, preconditioner).solve(gradients_QW)
        seconds = time.perf_counter() - start
        reports = [
            Refinement(
                method=self._config.method,
                parts=parts,
                iterations=iterations,
                residual=residual,
                converged=converged,
                seconds=seconds,
            )
            for iterations, residual, converged in zip(
                solution.iterations, solution.residuals, solution.converged, strict=True
            )
        ]
        found = {name: x_QOI.to(self._model.factor_formats[name]) for name, x_QOI in space.split(solution.x_QW).items()}
        return found, reports

    def _gradients(self, queries: Sequence[QueryTokens]) -> tuple[Tensor, WeightSpace]:
        """The gradients [Q, W] of queries, and the weights as one axis."""
        layers, model = self._model.table.layers, self._model
        texts, owners = one_text_each([query.objective for query in queries])
        space = WeightSpace(layers)
        dtype = torch.promote_types(model.dtype, torch.float32)
        gradients_QW = torch.zeros(len(queries), space.size, dtype=dtype, device=model.device)
        for batch in model.batches(texts, np.arange(len(texts)), 0):
            found_RW, _ = document_gradients(
                layers, len(batch.ordinals), partial(model.task.losses, batch), batch.texts
            )
            gradients_QW.index_add_(0, torch.from_numpy(owners[batch.ordinals]).to(model.device), found_RW)
        return gradients_QW, space
