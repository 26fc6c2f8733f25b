"""Settings of the second level of curvature."""

from dataclasses import dataclass

from gindex.options import LABORATORY, Settings, option


@dataclass(frozen=True, kw_only=True)
class SecondLevelConfig(Settings):
    """How the second level is damped."""

    mu: float = option(
        0.1, "Share of the mean eigenvalue that the second level adds to all of them.", group=LABORATORY, above=0
    )
