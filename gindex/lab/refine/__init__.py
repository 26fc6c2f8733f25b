"""Refiners: conjugate gradients and LiSSA on the exact Gauss-Newton matrix, in EK-FAC's place in an exact re-rank.

Slow; against retraining they helped on one model, harmed on another and did neither on a language model
(docs/how-true.md, docs/decisions/0015-refinement.md).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gindex.lab.refine.config import CgConfig, LissaConfig, SolverConfig

if TYPE_CHECKING:
    from gindex.curvature.ekfac import FactorLoader
    from gindex.documents.table import DocumentTable
    from gindex.lab.refine.refiner import SolverRefiner
    from gindex.model.tracked import TrackedModel


@dataclass(frozen=True, kw_only=True)
class SolverKind:
    """A solver, as it is registered: `exact.refiner.RefinerKind`. Nothing heavy is loaded before it acts."""

    settings: type[SolverConfig]
    help: str

    def refiner(
        self,
        model: "TrackedModel",
        factors: "FactorLoader",
        damping_scale: float,
        table: "DocumentTable",
        settings: SolverConfig,
    ) -> "SolverRefiner":
        """Prepare the solver for one index; see `refiner.SolverRefiner`."""
        from gindex.lab.refine.refiner import SolverRefiner

        return SolverRefiner(model, factors, damping_scale, table, settings)


CG = SolverKind(settings=CgConfig, help="conjugate gradients on the exact Gauss-Newton matrix")
LISSA = SolverKind(settings=LissaConfig, help="LiSSA on it, one batch of the documents an iteration")
