"""Refine the queries of an exact re-rank: conjugate gradients or LiSSA on the Gauss-Newton matrix itself.

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
from torch import Tensor

from gindex.config import SolverConfig
from gindex.corpus.batches import TokenBatch, pad
from gindex.curvature.ekfac import FactorLoader
from gindex.curvature.gauss_newton import GaussNewton
from gindex.curvature.inverse import Damping, FactoredInverse, SplitCurvature, iterative_inverse
from gindex.documents.table import DocumentTable
from gindex.engine import Engine
from gindex.model.passes import plain, throughout
from gindex.progress import Progress
from gindex.queries.tokens import QueryTokens, first_targets
from gindex.search.hit import Refinement
from gindex.vectors.influence import document_gradients

SOLVER_VECTORS = 6
"""Vectors of the size of the weights, in float32, that are held for each query while it is solved for."""

LOGITS = 1 << 24
"""Most logits of a batch of products, 64 MiB in float32; several times that is held."""


@throughout(plain)
class Refiner:
    """Preconditions queries by the exact Gauss-Newton matrix of some parts of an index."""

    def __init__(
        self, engine: Engine, factors: FactorLoader, damping_scale: float, table: DocumentTable, config: SolverConfig
    ) -> None:
        """Prepare for one index.

        Args:
            engine: The model.
            factors: Loads a layer's factors, which precondition the solver.
            damping_scale: Multiple of each layer's mean eigenvalue.
            table: Where the parts' tokens are.
            config: The solver.
        """
        self._engine, self._factors, self._damping_scale = engine, factors, damping_scale
        self._table, self._config = table, config

    @property
    def query_bytes(self) -> int:
        """Bytes that are held for each query."""
        return 4 * SOLVER_VECTORS * sum(layer.parameters for layer in self._engine.table.layers)

    def solve(
        self, queries: Sequence[QueryTokens], parts: npt.NDArray[np.int64], progress: Progress
    ) -> tuple[dict[str, Tensor], list[Refinement]]:
        """Return x = (C + damping)^-1 G [Q, O, I] of the queries by layer name, and how it was found for each.

        Args:
            queries: Q queries.
            parts: Part ordinals that the curvature C is a mean over.
            progress: Where the work is reported.

        Raises:
            DivergenceError: LiSSA diverges.
            NonFiniteError: A part has outputs that are not finite.
        """
        tokens = self._table.tokens(parts)
        most = max(1, min(self._engine.usual_batch_tokens, LOGITS // self._engine.task.vocabulary))
        batches = self._engine.batches(tokens, parts, np.ones(len(parts), np.int64), most)
        total = len(queries) * len(parts) * max(1, self._config.iterations) if self._config.method == "cg" else None
        with progress.phase("refine queries", total, "parts") as phase:
            curvature = GaussNewton(self._engine.table.layers, self._engine.task, batches, phase.advance)
            return self.solve_on(curvature, queries, len(parts))

    def solve_on(
        self, curvature: SplitCurvature, queries: Sequence[QueryTokens], parts: int
    ) -> tuple[dict[str, Tensor], list[Refinement]]:
        """Return the same as `solve` for any curvature of the tracked weights, said to be of so many parts."""
        start = time.perf_counter()
        layers = self._engine.table.layers
        gradients_QW, space = document_gradients(layers, len(queries), partial(self._losses, queries))
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
        found = {name: x_QOI.to(self._engine.dtype) for name, x_QOI in space.split(solution.x_QW).items()}
        return found, reports

    def _losses(self, queries: Sequence[QueryTokens]) -> Tensor:
        batch: TokenBatch = pad([query.ids for query in queries], np.arange(len(queries)), first_targets(queries))
        return self._engine.task.losses(batch)


def refine_sample(usable: npt.NDArray[np.int64], count: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Return the parts that the curvature is taken over, ascending: `count` drawn with the seed, or all where None."""
    if count is None or count >= len(usable):
        return usable
    return np.sort(np.random.default_rng(seed).choice(usable, count, replace=False))
