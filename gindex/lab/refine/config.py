"""Settings of the solvers that apply the inverse of the Gauss-Newton matrix."""

from dataclasses import dataclass
from typing import ClassVar

from gindex.config import at_least, option, positive


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """What all solvers share."""

    method: ClassVar[str]
    """Name that the solver is registered by as a refiner."""

    iterations: int = option(
        2, "Most iterations of the solver: few lead EK-FAC's influence a little further; 0 keeps it as it is."
    )
    tolerance: float = option(0.01, "Relative residual at which the solver stops.")

    def __post_init__(self) -> None:
        at_least("refine_iterations", self.iterations, 0)
        positive("refine_tolerance", self.tolerance)


@dataclass(frozen=True, kw_only=True)
class CgConfig(SolverConfig):
    """Conjugate gradients."""

    method = "cg"


@dataclass(frozen=True, kw_only=True)
class LissaConfig(SolverConfig):
    """LiSSA, one batch of the documents an iteration."""

    method = "lissa"
    scale: float = option(0.0, "Divisor of LiSSA's steps; larger is slower and steadier; 0 estimates it.")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("refine_scale", self.scale, 0)
