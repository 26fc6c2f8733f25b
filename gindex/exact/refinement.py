"""How a query was refined: plain values, which a client of a service makes too without torch."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How a query was refined.

    Attributes:
        method: Kind of the refiner.
        parts: Parts that the curvature was a mean over.
        iterations: Products with the curvature, or with that of one batch of the parts.
        residual: What is left, relative: the root of <r, M r> / <g, M g>, M the inverse by EK-FAC, g the gradient.
        converged: Whether the residual is within the tolerance.
        seconds: Time that it took; of queries that were solved for together, that of all.
    """

    method: str
    parts: int
    iterations: int
    residual: float
    converged: bool
    seconds: float
