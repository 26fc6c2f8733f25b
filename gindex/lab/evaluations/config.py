"""The settings of the evaluations, one frozen dataclass each; defaults and help texts as in `gindex.config`."""

from dataclasses import dataclass

from gindex.config import at_least, one_of, option, positive
from gindex.errors import ConfigError

LEAST_SUBSETS = 20
"""Fewest random subsets that a confidence interval is given for."""


@dataclass(frozen=True, kw_only=True)
class LdsConfig:
    """How predicted and actual losses after training on random subsets are compared."""

    subsets: int = option(100, "Random subsets of the documents to train on.")
    share: float = option(0.5, "Share of the documents in each subset.")
    repeats: int = option(5, "Trainings on each subset, with other seeds; their losses are averaged.")
    seed: int = option(0, "Seed of the subsets; trainings get seeds from here on.")

    def __post_init__(self) -> None:
        if self.subsets < LEAST_SUBSETS:
            raise ConfigError(
                field="subsets",
                expected=f"at least {LEAST_SUBSETS} for a confidence interval",
                found=self.subsets,
                remedy="finished trainings are kept, so more can be added later",
            )
        if not 0 < self.share < 1:
            raise ConfigError(field="share", expected="a number between 0 and 1", found=self.share)
        at_least("repeats", self.repeats, 1)
        at_least("seed", self.seed, 0)


@dataclass(frozen=True, kw_only=True)
class RemovalConfig:
    """How the effect of leaving documents out is measured."""

    removed: tuple[int, ...] = option((10, 50), "How many documents to leave out; give it again for another number.")
    queries: int = option(10, "Queries, drawn with the seed.")
    repeats: int = option(3, "Trainings for each removal, with other seeds; their losses are averaged.")
    seed: int = option(0, "Seed of the queries and of random removals; trainings get seeds from here on.")

    def __post_init__(self) -> None:
        if not self.removed or min(self.removed) < 1:
            raise ConfigError(field="removed", expected="numbers of at least 1", found=self.removed)
        at_least("queries", self.queries, 5)
        at_least("repeats", self.repeats, 1)
        at_least("seed", self.seed, 0)


@dataclass(frozen=True, kw_only=True)
class MislabelConfig:
    """How labels are spoilt to see which method finds them."""

    share: float = option(0.1, "Share of the labels to change to another class.")
    repeats: int = option(5, "Trainings, each with other changed labels and another seed.")
    seed: int = option(0, "Seed of the changes; trainings get seeds from here on.")

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(field="share", expected="a number between 0 and 1", found=self.share)
        at_least("repeats", self.repeats, 1)
        at_least("seed", self.seed, 0)


OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True, kw_only=True)
class TailPatchConfig:
    """Which steps are taken to see whether documents make a target more likely."""

    k: int = option(10, "Documents of each query and method to take a step on, each by itself.")
    optimizer: str = option("adamw", "Optimiser of the step: adamw or sgd.")
    rate: float = option(1e-4, "Learning rate of the step.")
    candidates: int = option(100, "Parts that the method funnel re-ranks by exact influence.")
    seed: int = option(0, "Seed of the random documents.")

    def __post_init__(self) -> None:
        at_least("k", self.k, 1)
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        positive("rate", self.rate)
        at_least("candidates", self.candidates, 1)
        at_least("seed", self.seed, 0)
