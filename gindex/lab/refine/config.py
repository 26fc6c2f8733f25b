"""Settings of the solvers that apply the inverse of the Gauss-Newton matrix."""

from dataclasses import dataclass
from typing import ClassVar

from gindex.options import LABORATORY, Settings, option


@dataclass(frozen=True, kw_only=True)
class SolverConfig(Settings):
    """What all solvers share."""

    method: ClassVar[str]
    """Name that the solver is registered by as a refiner."""

    iterations: int = option(
        2,
        "Most iterations of the solver. Each leads away from EK-FAC's influence, which 0 keeps.",
        group=LABORATORY,
        least=0,
    )
    tolerance: float = option(
        0.01, "Relative residual at which the solver stops.", group=LABORATORY, above=0, python_alone=True
    )


@dataclass(frozen=True, kw_only=True)
class CgConfig(SolverConfig):
    """Conjugate gradients."""

    method = "cg"


@dataclass(frozen=True, kw_only=True)
class LissaConfig(SolverConfig):
    """LiSSA, one batch of the documents an iteration."""

    method = "lissa"
    scale: float | None = option(
        None,
        "Divisor of LiSSA's steps; larger is slower and steadier.",
        group=LABORATORY,
        above=0,
        unset="estimated",
        python_alone=True,
    )
