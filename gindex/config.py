"""The settings of builds and searches, one frozen dataclass per component.

A default is written here and nowhere else: the command line takes its defaults and its help from these fields.
Validation only; nothing is loaded here.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from gindex.errors import ConfigError

BIT_WIDTHS = (1, 2, 4, 8, 16)
DTYPES = ("auto", "float32", "bfloat16")
NORMALISATIONS = ("none", "unit", "relatif", "length")
GROUPINGS = ("part", "document")
GROUP_SCORES = ("max", "sum")
CURVATURES = ("ekfac", "kfac", "diagonal", "identity")
REFINEMENTS = ("cg", "lissa")
CANDIDATE_RANKS = ("both", "score")
PROJECTIONS = ("count-sketch", "rademacher", "kronecker")
CUT, REFUSE = LONG_QUERIES = ("cut", "refuse")
PERMISSIONS = ("trust_remote_code", "allow_pickle")
"""What a caller may allow a model to do, fields of `ModelConfig`; an index never allows it."""

USUAL_TOKENS = 512
"""Tokens of the longest part, where the settings say nothing and the model takes as many."""

LEAST_SHARE = 0.5
"""Share of a model's body below which it is said aloud how little of it is tracked."""


def option(default: Any, help: str) -> Any:
    """Define a config field with the help text that the command line shows."""
    return field(default=default, metadata={"help": help})


def help_of(config: type, name: str) -> str:
    """Return the help text of a config field."""
    return next(str(f.metadata["help"]) for f in fields(config) if f.name == name)


def default_of(config: type, name: str) -> Any:
    """Return the default of a config field."""
    return next(f.default for f in fields(config) if f.name == name)


def at_least(name: str, value: float, low: float) -> None:
    """Raise a ConfigError, which names the setting, where it is not at least `low`."""
    if not value >= low:
        raise ConfigError(field=name, expected=f"at least {low}", found=value)


def positive(name: str, value: float) -> None:
    """Raise a ConfigError, which names the setting, where it is not a positive finite number."""
    if not 0 < value < float("inf"):
        raise ConfigError(field=name, expected="a positive finite number", found=value)


def one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise a ConfigError, which names the setting, where it is not one of those known."""
    if value not in known:
        raise ConfigError(field=name, expected=f"one of {', '.join(known)}", found=repr(value))


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """How documents are read and cut into parts."""

    text_field: str = option("text", "Field of a record that holds the document's text.")
    id_field: str = option("id", "Field that holds the document id; records without it are numbered by file and line.")
    max_tokens: int | None = option(
        None,
        "Longest part in tokens; a longer document is cut into parts that all count. "
        f"Automatic: {USUAL_TOKENS}, or what the model takes where that is less.",
    )

    def __post_init__(self) -> None:
        if self.max_tokens is not None:
            at_least("max_tokens", self.max_tokens, 2)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, where and in which number format it runs."""

    name: str = option("", "Folder of a Hugging Face model, or its name on the hub.")
    device: str = option("auto", "Device of the passes: auto, cpu, cuda, cuda:0, ...")
    dtype: str = option(
        "auto", "Number format of the passes: auto (bfloat16 for a 16-bit model where that is fast), float32, bfloat16."
    )
    trust_remote_code: bool = option(False, "Run code that the model brings with it. Read it first.")
    allow_pickle: bool = option(False, "Read weights that are pickled (.bin), tensors alone, where no safetensors are.")
    untrack: tuple[str, ...] = option(
        (), "Layers to leave out: a name or a pattern such as 'model.layers.0.*'; give it again for more."
    )
    track: tuple[str, ...] = option(
        (),
        "Layers to track although `untrack`, or the default for an output head of more than 8,192 tokens, leaves them "
        "out; a name or a pattern.",
    )

    def __post_init__(self) -> None:
        one_of("dtype", self.dtype, DTYPES)
        for name in ("untrack", "track"):  # lists, where they come out of JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def settings(self) -> dict[str, Any]:
        """Return what decides an index's content; patterns of layers only where there are any.

        What a caller allows a model to do is not among it: an index must not allow it to the next one.
        """
        patterns = {name: list(given) for name in ("untrack", "track") if (given := getattr(self, name))}
        return {"name": self.name, "dtype": self.dtype} | patterns


@dataclass(frozen=True, kw_only=True)
class CurvatureConfig:
    """How the curvature is fitted and damped."""

    curvature: str = option("ekfac", "Curvature: ekfac; or, to compare with, kfac, diagonal, identity (raw gradients).")
    fit_documents: int = option(1000, "Documents that EK-FAC is fitted on, drawn with the seed; 0 takes all.")
    damping_scale: float = option(0.1, "Damping of exact influence, as a multiple of each layer's mean eigenvalue.")
    index_damping: float | None = option(
        None, "Damping of stored vectors, as a multiple of each layer's mean eigenvalue; chosen by calibration."
    )
    calibration_documents: int = option(64, "Parts that ranks and damping of stored vectors are chosen on.")

    def __post_init__(self) -> None:
        one_of("curvature", self.curvature, CURVATURES)
        at_least("fit_documents", self.fit_documents, 0)
        positive("damping_scale", self.damping_scale)
        at_least("calibration_documents", self.calibration_documents, 2)
        if self.index_damping is not None:
            positive("index_damping", self.index_damping)


@dataclass(frozen=True, kw_only=True)
class VectorConfig:
    """How a whitened document gradient becomes a stored vector."""

    dimension: int = option(30720, "Dimension of the stored vectors.")
    rank_fraction: float | None = option(
        None, "Leading part of both eigenbases of every layer that is kept, in (0, 1]; chosen by calibration."
    )
    bits: int = option(1, "Bits per stored coordinate: 1, 2, 4, 8 or 16.")
    projection: str = option("count-sketch", "Random projection: count-sketch; to compare with, rademacher, kronecker.")

    def __post_init__(self) -> None:
        if self.dimension < 8 or self.dimension % 8:
            raise ConfigError(field="dimension", expected="a positive multiple of 8", found=self.dimension)
        if self.rank_fraction is not None and not 0 < self.rank_fraction <= 1:
            raise ConfigError(field="rank_fraction", expected="a number in (0, 1]", found=self.rank_fraction)
        one_of("projection", self.projection, PROJECTIONS)
        if self.bits not in BIT_WIDTHS:
            raise ConfigError(field="bits", expected=f"one of {', '.join(map(str, BIT_WIDTHS))}", found=self.bits)


@dataclass(frozen=True, kw_only=True)
class SecondLevelConfig:
    """The second level of curvature: see `gindex.curvature.second_level`."""

    mu: float = option(0.1, "Share of the mean eigenvalue that the second level adds to all of them.")

    def __post_init__(self) -> None:
        positive("mu", self.mu)


@dataclass(frozen=True, kw_only=True)
class FidelityConfig:
    """How closely a build looks, at its end, at what it built."""

    queries: int = option(8, "Queries that a build ends by comparing with exact influence; 0 leaves that out.")
    parts: int = option(256, "Parts that each of them ranks; 0 ranks all.")

    def __post_init__(self) -> None:
        at_least("fidelity_queries", self.queries, 0)
        at_least("fidelity_parts", self.parts, 0)


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """All settings of a build."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    curvature: CurvatureConfig = field(default_factory=CurvatureConfig)
    vectors: VectorConfig = field(default_factory=VectorConfig)
    fidelity: FidelityConfig = field(default_factory=FidelityConfig)
    seed: int = option(0, "Seed of the fit's sample, the sampled labels and the projection.")
    batch_tokens: int = option(
        0, "Most tokens in one batch, padding included; one part is always taken; 0 takes what suits the device."
    )
    memory: float = option(
        0.0,
        "Most memory to take, in GB, as reckoned beforehand: batches are made smaller, or blocks of the model "
        "checkpointed, to fit; 0 sets no bound.",
    )

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ConfigError(field="seed", expected="a number of 64 bits from 0 on", found=self.seed)
        at_least("batch_tokens", self.batch_tokens, 0)
        at_least("memory", self.memory, 0)

    @classmethod
    def of_settings(cls, settings: dict[str, Any]) -> "BuildConfig":
        """Return the settings that `settings()` gave, device and batches at their defaults.

        Raises:
            ConfigError: A value is out of its range.
            TypeError: A setting is missing, unknown, or of another form.
        """
        defaults = cls()
        components = {name: type(getattr(defaults, name)) for name in ("corpus", "model", "curvature", "vectors")}
        if not components.keys() <= settings.keys():
            raise TypeError(f"settings without one of {', '.join(components)}")
        return cls(**settings | {name: kind(**settings[name]) for name, kind in components.items()})

    def settings(self) -> dict[str, Any]:
        """Return the settings that decide the index's content: all but the device, the batches and what is measured.

        What a caller allows a model to do is not among them: an index must not allow it to the next one.
        """
        everything = asdict(self) | {"model": self.model.settings()}
        del everything["batch_tokens"], everything["memory"], everything["fidelity"]
        return everything


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """How the inverse of the Gauss-Newton matrix of some documents is applied."""

    method: str = option("cg", "Solver: cg, conjugate gradients; or lissa, one batch of the documents an iteration.")
    iterations: int = option(
        2, "Most iterations of the solver: few lead EK-FAC's influence a little further; 0 keeps it as it is."
    )
    tolerance: float = option(0.01, "Relative residual at which the solver stops.")
    scale: float = option(0.0, "Divisor of LiSSA's steps; larger is slower and steadier; 0 estimates it.")

    def __post_init__(self) -> None:
        one_of("refine", self.method, REFINEMENTS)
        at_least("refine_iterations", self.iterations, 0)
        at_least("refine_scale", self.scale, 0)
        positive("refine_tolerance", self.tolerance)


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What a search looks for and how: the stages of the funnel, filters, normalisation, grouping."""

    k: int = option(10, "Hits to return.")
    negative: bool = option(False, "Show the most negative influence: training on these made it less likely.")
    both: bool = option(False, "Show both ends, the most positive and the most negative influence, from one pass.")
    shortlist: int = option(
        0, "Parts that the FAISS index gives for re-scoring by the stored vectors; 0 takes enough for `k`."
    )
    scan: bool = option(False, "Score every stored vector, without the FAISS index.")
    exact: bool = option(False, "Re-rank the best candidates by recomputed, unprojected EK-FAC influence.")
    candidates: int = option(300, "Parts that `exact` re-ranks, and that `hybrid` takes by score.")
    candidates_by: str = option(
        "both",
        "What `exact` takes candidates by: both, reciprocal ranks by score and by BM25 score for the query's words; "
        "score, that of the vectors alone. The negative end is taken by score.",
    )
    refine: str | None = option(
        None,
        "With `exact`, take the exact Gauss-Newton matrix in EK-FAC's place, by conjugate gradients (cg) or LiSSA "
        "(lissa). Slow; against retraining it helped on one model, harmed on another and did neither on a language "
        "model (docs/how-true.md).",
    )
    refine_parts: int = option(
        64, "Parts that the matrix of `refine` is a mean over, drawn with the build's seed; 0 takes all."
    )
    refine_iterations: int = option(SolverConfig.iterations, help_of(SolverConfig, "iterations"))
    refine_tolerance: float = option(SolverConfig.tolerance, help_of(SolverConfig, "tolerance"))
    refine_scale: float = option(SolverConfig.scale, help_of(SolverConfig, "scale"))
    stop_early: float | None = option(
        None,
        "With `exact`, stop when at most so many of the best, as 0.5, are expected among the candidates that are left "
        "(Cantelli's bound, the error of scores estimated from the candidates done).",
    )
    where: str | None = option(
        None, "Only documents whose metadata pass, as in \"kind = 'function' and line >= 100 and not name like '%_'\"."
    )
    bm25: str | None = option(None, "Only the documents with the best BM25 score for the words of this text.")
    bm25_candidates: int = option(1000, "Documents that `bm25`, `hybrid` and `exact` take by BM25 score.")
    hybrid: bool = option(
        False, "Fuse the ranks by influence and by BM25 score for the query's words, or for those of `bm25`."
    )
    normalise: str = option(
        "none",
        "What scores are divided by: none; unit, the norm of the part's vector (cosine: direction alone); relatif, the "
        "root of its self-influence (RelatIF: keeps parts that influence everything from the top); length, its tokens.",
    )
    group_by: str = option("part", "A hit is a part, or a document with the scores of its parts put together.")
    group_score: str = option("max", "Score of a document: that of its best part, or the sum over its parts.")
    dedupe: float | None = option(
        None, "Fold hits into a better one where their vectors' cosine is at least this, as 0.9, and count them."
    )
    layers: bool = option(False, "Give the score of each layer group.")
    long_queries: str = option(
        CUT,
        "A query of more tokens than the model takes: cut the beginning of its prompt off, and say so; or refuse it. "
        "A completion is never cut.",
    )

    def __post_init__(self) -> None:
        if self.k < 1 or self.candidates < 1:
            raise ConfigError(field="k and candidates", expected="at least 1", found=f"{self.k} and {self.candidates}")
        at_least("shortlist", self.shortlist, 0)
        at_least("bm25_candidates", self.bm25_candidates, 1)
        one_of("candidates_by", self.candidates_by, CANDIDATE_RANKS)
        one_of("normalise", self.normalise, NORMALISATIONS)
        one_of("group_by", self.group_by, GROUPINGS)
        one_of("group_score", self.group_score, GROUP_SCORES)
        one_of("long_queries", self.long_queries, LONG_QUERIES)
        if self.negative and self.both:
            raise ConfigError(
                field="negative and both",
                expected="one of them",
                found="two",
                remedy="`both` shows the negative end too",
            )
        at_least("refine_parts", self.refine_parts, 0)
        self.solver()
        if self.refine is not None and not self.exact:
            raise ConfigError(
                field="refine", expected="`exact`, whose influence it refines", remedy="add `exact` or leave it out"
            )
        if self.stop_early is not None:
            positive("stop_early", self.stop_early)
            if not self.exact or self.hybrid or self.group_by != "part" or self.dedupe is not None:
                raise ConfigError(
                    field="stop_early",
                    expected="`exact`, and hits that are single parts",
                    found="`hybrid`, `group_by` document, `dedupe`, or no `exact`",
                    remedy="leave it out",
                )
        if self.dedupe is not None and not 0 < self.dedupe <= 1:
            raise ConfigError(field="dedupe", expected="a cosine in (0, 1]", found=self.dedupe)

    def solver(self) -> SolverConfig:
        """Return the solver of `refine`.

        Raises:
            ConfigError: A setting is out of range.
        """
        return SolverConfig(
            method=REFINEMENTS[0] if self.refine is None else self.refine,
            iterations=self.refine_iterations,
            tolerance=self.refine_tolerance,
            scale=self.refine_scale,
        )
