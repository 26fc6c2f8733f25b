"""The settings of the studies. Nothing is loaded here: the command line takes defaults and help from these fields."""

from dataclasses import dataclass, fields

from gindex.config import option
from gindex.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What every study draws from an index."""

    sample: int = option(32, "Queries to draw from the index; each leaves its own document out.")
    seed: int = option(0, "Seed of the draws and of the bootstrap.")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            low = 0 if each.name in ("seed", "parts") else 1
            if not isinstance(value, str) and value < low:
                raise ConfigError(f"--{each.name.replace('_', '-')}: expected at least {low}, got {value}")


@dataclass(frozen=True, kw_only=True)
class RankingConfig(StudyConfig):
    """Studies that rank the parts of the index for every query."""

    parts: int = option(0, "Parts to rank, drawn from the index; 0 ranks all.")


@dataclass(frozen=True, kw_only=True)
class SparsityConfig(RankingConfig):
    """`gindex study sparsity`."""

    resamples: int = option(100, "Synthetic tails that the goodness of each power-law fit is judged by.")


@dataclass(frozen=True, kw_only=True)
class LayersConfig(RankingConfig):
    """`gindex study layers`."""

    top: int = option(20, "Most influential parts of each query whose influence is told apart.")
