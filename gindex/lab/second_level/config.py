"""Settings of the second level of curvature."""

from dataclasses import dataclass

from gindex.config import option, positive


@dataclass(frozen=True, kw_only=True)
class SecondLevelConfig:
    """How the second level is damped."""

    mu: float = option(0.1, "Share of the mean eigenvalue that the second level adds to all of them.")

    def __post_init__(self) -> None:
        positive("transform_mu", self.mu)
