"""The settings of the evaluations, one frozen dataclass each. Nothing is loaded here."""

from dataclasses import dataclass

from gindex.errors import ConfigError
from gindex.options import Settings, as_in, option

LEAST_SUBSETS = 20
"""Fewest random subsets that a confidence interval is given for."""

OPTIMIZERS = ("adamw", "sgd")

INDEX, FUNNEL, EXACT, BM25, RANDOM = METHODS = ("index", "funnel", "exact", "bm25", "random")
"""What ranks the documents of an index; see `gindex.lab.evaluations.rankings`."""


@dataclass(frozen=True, kw_only=True)
class LdsConfig(Settings):
    """How predicted and actual losses after training on random subsets are compared."""

    subsets: int = option(100, "Random subsets of the documents to train on.", least=LEAST_SUBSETS)
    share: float = option(0.5, "Share of the documents in each subset.", above=0, most=1)
    repeats: int = option(5, "Trainings on each subset, with other seeds; their losses are averaged.", least=1)
    seed: int = option(0, "Seed of the subsets; trainings get seeds from here on.", least=0)

    def __post_init__(self) -> None:
        if self.subsets < LEAST_SUBSETS:
            raise ConfigError(
                field="subsets",
                expected=f"at least {LEAST_SUBSETS} for a confidence interval",
                found=self.subsets,
                remedy="finished trainings are kept, so more can be added later",
            )
        super().__post_init__()
        _check_share(self.share)


@dataclass(frozen=True, kw_only=True)
class RemovalConfig(Settings):
    """How the effect of leaving documents out is measured."""

    removed: tuple[int, ...] = option((10, 50), "How many documents to leave out; give it again for another number.")
    queries: int = option(10, "Queries, drawn with the seed.", least=5)
    repeats: int = option(3, "Trainings for each removal, with other seeds; their losses are averaged.", least=1)
    seed: int = option(0, "Seed of the queries and of random removals; trainings get seeds from here on.", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "removed", tuple(dict.fromkeys(self.removed)))
        if not self.removed or min(self.removed) < 1:
            raise ConfigError(field="removed", expected="numbers of at least 1", found=self.removed)


@dataclass(frozen=True, kw_only=True)
class MislabelConfig(Settings):
    """How labels are spoilt to see which method finds them."""

    share: float = option(0.1, "Share of the labels to change to another class.", above=0, most=1)
    repeats: int = option(5, "Trainings, each with other changed labels and another seed.", least=1)
    seed: int = option(0, "Seed of the changes; trainings get seeds from here on.", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_share(self.share)


@dataclass(frozen=True, kw_only=True)
class FidelitySampleConfig(Settings):
    """What the fidelity of an index is measured on."""

    sample: int = option(
        16, "Documents to draw as queries, where no `queries` are given; each leaves itself out.", least=1
    )
    parts: int | None = option(None, "Parts to rank, drawn from the index.", least=1, unset="all")
    seed: int = option(0, "Seed of the draws.", least=0)


@dataclass(frozen=True, kw_only=True)
class RankingsConfig(Settings):
    """Which methods rank the documents of an index, and how."""

    methods: tuple[str, ...] = option(
        (INDEX, FUNNEL, BM25),
        "What to compare: scores of the stored vectors, the funnel of `exact`, exact influence of every document, BM25 "
        "for the query's words, a random order. Give it again for more.",
    )
    candidates: int = option(100, "Parts that the funnel re-ranks by exact influence.", least=1)
    seed: int = option(0, "Seed of the random order.", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "methods", tuple(dict.fromkeys(self.methods)))
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise ConfigError(
                field="methods", expected=f"one of {', '.join(METHODS)}", found=", ".join(map(repr, unknown)) or "none"
            )


@dataclass(frozen=True, kw_only=True)
class TailPatchConfig(RankingsConfig):
    """Which steps are taken to see whether documents make a target more likely."""

    methods: tuple[str, ...] = as_in(RankingsConfig, "methods", default=(INDEX, FUNNEL, RANDOM))
    k: int = option(10, "Documents of each query and method to take a step on, each by itself.", least=1)
    optimizer: str = option("adamw", "Optimiser of the step.", choices=OPTIMIZERS)
    rate: float = option(1e-4, "Learning rate of the step.", above=0)


def _check_share(share: float) -> None:
    """Check that a share leaves some on either side.

    Raises:
        ConfigError: It is 1.
    """
    if share == 1:
        raise ConfigError(field="share", expected="a number between 0 and 1", found=share)
