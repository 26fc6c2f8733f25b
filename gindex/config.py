"""The settings of builds and searches, one frozen dataclass a component.

A default, a range and a help text are written here and nowhere else: the command line and the service have them from
these fields. Nothing is loaded here.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gindex.errors import ConfigError
from gindex.options import LABORATORY, Option, Settings, as_in, option
from gindex.registry import Registry

BIT_WIDTHS = (1, 2, 4, 8, 16)
FORMS = TEXT, COMPLETION, MESSAGES, TOKENS, PREFERENCE = "text", "completion", "messages", "tokens", "preference"
AUTO = "auto"
LOSSES = ASSISTANT_TURNS, LAST_TURN, ALL_TOKENS = "assistant", "last-turn", "all"
"""Forms of documents, and which tokens of conversations count."""

DTYPES = ("auto", "float32", "bfloat16")
NORMALISATIONS = ("none", "unit", "relatif", "length")
HITS = ("part", "document")
DOCUMENT_SCORES = ("max", "sum")
CURVATURES = Registry("gindex.curvatures", "curvature", {"ekfac": "gindex.curvature.kinds:EKFAC"})
WORDS = ("candidates", "filter", "rank", "off")
PROJECTIONS = Registry("gindex.projections", "projection", {"count-sketch": "gindex.vectors.count_sketch:CountSketch"})
AGGREGATES = MEAN, SUM = "mean", "sum"
"""How the queries of a set become one: by their mean, or by their sum."""
CUT, REFUSE = LONG_QUERIES = ("cut", "refuse")
REFINERS = Registry("gindex.refiners", "refine", {})
"""What may take EK-FAC's place in preconditioning queries, each an `exact.refiner.RefinerKind`."""

TRANSFORMS, NO_TRANSFORM = Registry("gindex.transforms", "transform", {}), "none"
"""What may transform vectors before they are compared, each a `store.transform.TransformKind`; what asks for none."""

PERMISSIONS = ("trust_remote_code", "allow_pickle")
"""What a caller may allow a model to do, fields of `ModelConfig`; an index never allows it."""

USUAL_TOKENS = 512
"""Tokens of the longest part, where the settings say nothing and the model takes as many."""

LEAST_SHARE = 0.5
"""Share of a model's body below which it is said aloud how little of it is tracked."""


CORPUS, CURVATURE, STORED, COST = "corpus", "curvature", "stored vectors", "time and memory"
LOOK_FOR, FILTERS, EXACT, OUTPUT = "what to look for", "filters and words", "exact influence", "output"
INDEX, MODEL, SOURCES = "index", "model and device", "sources"
"""Headings that options are shown under."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(Settings):
    """How documents are read and cut into parts."""

    form: str = option(
        AUTO,
        "What a document is: text; a prompt with its completion, which alone counts; messages, a conversation of which "
        "the assistant's turns count; tokens, prepared as input_ids with labels, loss_mask or loss_weights; a "
        "preference of chosen over rejected, by DPO's loss; auto goes by each record's fields.",
        group=CORPUS,
        choices=(AUTO, *FORMS),
    )
    text_field: str = option("text", "Field of a record that holds the document's text.", group=CORPUS)
    prompt_field: str = option("prompt", "Field that holds a prompt.", group=CORPUS)
    completion_field: str = option("completion", "Field that holds a prompt's completion.", group=CORPUS)
    messages_field: str = option("messages", "Field that holds a conversation.", group=CORPUS)
    loss: str = option(
        ASSISTANT_TURNS,
        "Tokens that count in a conversation, or in a prompt with its completion: what the assistant says, its "
        "last-turn alone, or all.",
        group=CORPUS,
        choices=LOSSES,
    )
    weight_field: str | None = option(
        None,
        "Field that holds a number by which a document's loss is multiplied, such as a repetition or an advantage; it "
        "may be negative.",
        group=CORPUS,
        unset="each counts once",
    )
    beta: float = option(0.1, "Beta of the DPO loss of preferences.", group=CORPUS, above=0)
    id_field: str = option(
        "id", "Field that holds the document id; records without it are numbered by file and line.", group=CORPUS
    )
    pack: int | None = option(
        None,
        "Join documents into sequences of so many tokens, as pre-training does: a document is read after those before "
        "it in its sequence, and its own tokens count.",
        group=CORPUS,
        least=2,
        unset="each document by itself",
        metavar="TOKENS",
    )
    overlap: int = option(
        1,
        "Tokens that the parts of a long document begin with from the part before, as context; each counts once.",
        group=CORPUS,
        least=1,
    )
    max_tokens: int | None = option(
        None,
        "Longest part in tokens; a longer document is cut into several parts, and all of them are indexed.",
        group=CORPUS,
        least=2,
        unset=f"automatic: {USUAL_TOKENS}, or what the model takes where that is less",
    )
    limit: int | None = option(
        None,
        "Take the first so many documents of the corpus; what follows is not read.",
        group=CORPUS,
        least=1,
        unset="all",
    )
    sample: int | None = option(
        None,
        "Take so many documents of the corpus, drawn with the seed, each as likely as any other, in their order. The "
        "corpus is read twice.",
        group=CORPUS,
        least=1,
        unset="all",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None and self.sample is not None:
            raise ConfigError(
                field="limit and sample",
                expected="one of them",
                found="two",
                remedy="`sample` draws from the whole corpus, `limit` takes its beginning",
            )
        if self.pack is not None and self.max_tokens not in (None, self.pack):
            raise ConfigError(
                field="pack and max_tokens",
                expected="one of them: `pack` says how long sequences are",
                found=f"{self.pack} and {self.max_tokens}",
            )
        if self.pack is not None and self.overlap != 1:
            raise ConfigError(
                field="overlap", expected="none beside `pack`", found=self.overlap, remedy="leave one of them out"
            )
        if self.max_tokens is not None and self.overlap >= self.max_tokens:
            raise ConfigError(field="overlap", expected=f"below `max_tokens`, {self.max_tokens}", found=self.overlap)

    def settings(self) -> dict[str, Any]:
        """What decides an index's content; of what came later than the first indexes, only what is not the default."""
        return _written(self, ("text_field", "id_field", "max_tokens"))


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Settings):
    """Which model, where and in which number format it runs."""

    name: str = option("", "Folder of a Hugging Face model, or its name on the hub.", group=MODEL)
    device: str = option("auto", "Device of the passes: auto, cpu, cuda, cuda:0, ...", group=MODEL)
    dtype: str = option(
        "auto",
        "Number format of the passes; auto takes bfloat16 for a 16-bit model where that is fast.",
        group=MODEL,
        choices=DTYPES,
    )
    trust_remote_code: bool = option(False, "Run code that the model brings with it. Read it first.", group=MODEL)
    allow_pickle: bool = option(
        False, "Read weights that are pickled (.bin), tensors alone, where no safetensors are.", group=MODEL
    )
    adapter: str | None = option(
        None,
        "Adapter to take, where the model's folder holds several or one beside a whole model: the name of its "
        "subfolder, 'default' for the one in the folder itself, 'none' for the model alone.",
        group=MODEL,
        unset="the only one",
        metavar="NAME",
    )
    base: str | None = option(
        None,
        "Folder or hub name of the base of an adapter.",
        group=MODEL,
        unset="the one that adapter_config.json names",
        metavar="PLACE",
    )
    untrack: tuple[str, ...] = option(
        (),
        "Layers to leave out: a name or a pattern such as 'model.layers.0.*'; give it again for more.",
        group=MODEL,
        metavar="PATTERN",
    )
    track: tuple[str, ...] = option(
        (),
        "Layers to track although `untrack`, or the default for an output head of more than 8,192 tokens or for the "
        "base of an adapter, leaves them out; a name or a pattern.",
        group=MODEL,
        metavar="PATTERN",
    )

    def __post_init__(self) -> None:
        for name in ("untrack", "track"):  # lists, where they come out of JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()

    def settings(self) -> dict[str, Any]:
        """What decides an index's content; patterns of layers, adapter and base only where they were given.

        What a caller allows a model to do is not among it: an index must not allow it to the next one.
        """
        patterns = {name: list(given) for name in ("untrack", "track") if (given := getattr(self, name))}
        places = {name: given for name in ("adapter", "base") if (given := getattr(self, name)) is not None}
        return {"name": self.name, "dtype": self.dtype} | places | patterns


@dataclass(frozen=True, kw_only=True)
class CurvatureConfig(Settings):
    """How the curvature is fitted and damped."""

    curvature: str = option(
        CURVATURES.default,
        "Kind of curvature; all but the default are there to compare with.",
        group=LABORATORY,
        choices=CURVATURES.names,
    )
    fit_documents: int | None = option(
        1000, "Documents that EK-FAC is fitted on, drawn with the seed.", group=CURVATURE, least=1, unset="all"
    )
    fit_weights: bool = option(
        False,
        "Weight tokens and documents in the fit as in their gradients; else each that counts once.",
        group=CURVATURE,
    )
    damping_scale: float = option(
        0.1, "Damping of exact influence, as a multiple of each layer's mean eigenvalue.", group=CURVATURE, above=0
    )
    index_damping: float | None = option(
        None,
        "Damping of stored vectors, as a multiple of each layer's mean eigenvalue.",
        group=STORED,
        above=0,
        unset="chosen by calibration",
    )
    calibration_documents: int = option(
        64, "Parts that ranks and damping of stored vectors are chosen on.", group=STORED, least=2
    )


@dataclass(frozen=True, kw_only=True)
class VectorConfig(Settings):
    """How a whitened document gradient becomes a stored vector."""

    dimension: int = option(30720, "Dimension of the stored vectors, a multiple of 8.", group=STORED, least=8)
    rank_fraction: float | None = option(
        None,
        "Leading part of both eigenbases of every layer that is kept; 1 keeps all of both.",
        group=STORED,
        above=0,
        most=1,
        unset="chosen by calibration",
    )
    bits: int = option(1, "Bits of a stored coordinate.", group=STORED, choices=BIT_WIDTHS)
    projection: str = option(
        PROJECTIONS.default,
        "Kind of random projection; all but the default are there to compare with.",
        group=LABORATORY,
        choices=PROJECTIONS.names,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dimension % 8:
            raise ConfigError(field="dimension", expected="a multiple of 8", found=self.dimension)


@dataclass(frozen=True, kw_only=True)
class FidelityConfig(Settings):
    """How closely a build looks, at its end, at what it built."""

    queries: int = option(
        8, "Queries that a build ends by comparing with exact influence; with 0 it compares none.", group=COST, least=0
    )
    parts: int | None = option(
        256, "Parts that each of these queries ranks.", group=COST, least=1, unset="all", needs=("queries",)
    )


@dataclass(frozen=True, kw_only=True)
class BuildConfig(Settings):
    """All settings of a build."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    curvature: CurvatureConfig = field(default_factory=CurvatureConfig)
    vectors: VectorConfig = field(default_factory=VectorConfig)
    fidelity: FidelityConfig = field(default_factory=FidelityConfig)
    seed: int = option(
        0,
        "Seed of `sample`, the fit's documents, the sampled labels and the projection.",
        group=CURVATURE,
        least=0,
        most=2**64 - 1,
    )
    batch_tokens: int | None = option(
        None,
        "Most tokens in one batch, padding included; one part is always taken.",
        group=COST,
        least=1,
        unset="automatic, by device",
    )
    memory: float | None = option(
        None,
        "Most memory to take, in GB, as reckoned beforehand: batches are made smaller, or blocks of the model "
        "checkpointed, to fit.",
        group=COST,
        above=0,
        unset="no limit",
    )

    @classmethod
    def of_settings(cls, settings: dict[str, Any]) -> "BuildConfig":
        """The settings that `settings()` gave, device and batches at their defaults.

        Args:
            settings: What it gave, in an older gindex too.

        Raises:
            ConfigError: A value is out of its range.
            TypeError: A setting is missing, unknown, or of another form.
        """
        defaults = cls()
        components = {name: type(getattr(defaults, name)) for name in ("corpus", "model", "curvature", "vectors")}
        if not components.keys() <= settings.keys():
            raise TypeError(f"settings without one of {', '.join(components)}")
        settings = as_of_today(settings)
        return cls(**settings | {name: kind(**settings[name]) for name, kind in components.items()})

    def settings(self) -> dict[str, Any]:
        """The settings that decide the index's content: all but the device, the batches and what is measured.

        What a caller allows a model to do is not among them: an index must not allow it to the next one.
        """
        curvature = _written(self.curvature, tuple(n for n in asdict(self.curvature) if n != "fit_weights"))
        everything = asdict(self) | {
            "corpus": self.corpus.settings(),
            "model": self.model.settings(),
            "curvature": curvature,
        }
        del everything["batch_tokens"], everything["memory"], everything["fidelity"]
        return everything


def _written(config: Any, always: tuple[str, ...]) -> dict[str, Any]:
    """The settings of a component: those that are always written, and others where they are not the default."""
    usual = asdict(type(config)())
    return {name: of for name, of in asdict(config).items() if name in always or of != usual[name]}


def as_of_today(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a build as `BuildConfig.settings` gives them today; 0 once said that all documents are fitted on."""
    if settings["curvature"].get("fit_documents") != 0:
        return settings
    return settings | {"curvature": settings["curvature"] | {"fit_documents": None}}


@dataclass(frozen=True, kw_only=True)
class SearchOptions(Settings):
    """What a search looks for and how: the stages of the funnel, filters, normalisation, grouping."""

    k: int = option(10, "Hits to return.", group=LOOK_FOR, least=1)
    negative: bool = option(
        False, "Show the most negative influence: training on these made it less likely.", group=LOOK_FOR
    )
    both: bool = option(
        False, "Show both ends, the most positive and the most negative influence, from one pass.", group=LOOK_FOR
    )
    normalise: str = option(
        "none",
        "What scores are divided by: none; unit, the norm of the part's vector (cosine: direction alone); relatif, the "
        "root of its self-influence (RelatIF: keeps parts that influence everything from the top); length, its tokens.",
        group=LOOK_FOR,
        choices=NORMALISATIONS,
    )
    hits: str = option(
        "part",
        "A hit is a part, or a document with the scores of its parts put together.",
        group=LOOK_FOR,
        choices=HITS,
    )
    document_score: str = option(
        "max",
        "Score of a document: that of its best part, or the sum over its parts.",
        group=LOOK_FOR,
        choices=DOCUMENT_SCORES,
        needs=("hits=document",),
        formerly=("group_score",),
    )
    dedupe: float | None = option(
        None,
        "Fold hits into a better one where their vectors' cosine is at least this, as 0.9, and count them.",
        group=LOOK_FOR,
        above=0,
        most=1,
        unset="off",
        metavar="COSINE",
    )
    long_queries: str = option(
        CUT,
        "A query of more tokens than the model takes: cut the beginning of its prompt off, or the earliest turns of "
        "its conversation, and say so; or refuse it. A completion is never cut.",
        group=LOOK_FOR,
        choices=LONG_QUERIES,
    )
    where: str | None = option(
        None,
        "Only documents whose metadata pass, as in \"kind = 'function' and line >= 100 and not name like '%_'\".",
        group=FILTERS,
        unset="all",
        metavar="FILTER",
    )
    words: str = option(
        "candidates",
        "Use of the documents that match the words best, by BM25: candidates, re-ranked by `exact` beside those with "
        "the best scores; filter, no others are searched; rank, their rank is fused with that by influence; or off.",
        group=FILTERS,
        choices=WORDS,
    )
    words_text: str | None = option(
        None,
        "The words to match, any of them.",
        group=FILTERS,
        unset="those of the query",
        needs=("words=filter", "words=rank", "exact"),
        metavar="TEXT",
    )
    words_documents: int = option(
        1000,
        "Documents that are taken as matching the words best.",
        group=FILTERS,
        least=1,
        needs=("words=filter", "words=rank", "exact"),
    )
    group_by: str | None = option(
        None,
        "Field of the metadata, as `source` or `origin.site`. Sum, mean and number of the scores of all documents that "
        "the filter allows, not of the hits alone, are given for each value of it. A document's score is the sum over "
        "its parts.",
        group=SOURCES,
        unset="off",
        metavar="FIELD",
    )
    groups: int = option(
        20,
        "Values of `group_by` that are given: those with the largest sums and those with the most negative ones, half "
        "and half. The others are counted.",
        group=SOURCES,
        least=2,
        needs=("group_by",),
    )
    exact: bool = option(False, "Re-rank the best candidates by recomputed, unprojected EK-FAC influence.", group=EXACT)
    candidates: int = option(
        300,
        "Parts that `exact` re-ranks, and parts taken by score where `words` rank too.",
        group=EXACT,
        least=1,
        needs=("exact", "words=rank"),
    )
    layers: bool = option(False, "Give the score of each layer group.", group=OUTPUT)
    shortlist: int | None = option(
        None,
        "Parts that the FAISS index gives for re-scoring by the stored vectors.",
        group=INDEX,
        least=1,
        unset="automatic: enough for `k`",
    )
    scan: bool = option(False, "Score every stored vector, without the FAISS index.", group=INDEX)
    refine: str | None = option(
        None,
        "What takes EK-FAC's place in preconditioning the query for exact influence. Slow; against retraining it "
        "helped on one model, harmed on another and did neither on a language model.",
        group=LABORATORY,
        choices=REFINERS.names,
        unset="off",
        needs=("exact",),
    )
    refine_parts: int | None = option(
        64,
        "Parts that `refine` takes the curvature over, drawn with the build's seed.",
        group=LABORATORY,
        least=1,
        unset="all",
        needs=("refine",),
    )
    refine_settings: Mapping[str, Any] | None = field(
        default=None,
        hash=False,  # two that differ in it alone are unequal all the same
        metadata={
            "option": Option(
                help="Settings of what `refine` names, by their own names.",
                group=LABORATORY,
                unset="its defaults",
                needs=("refine",),
                python_alone=True,
            )
        },
    )
    stop_early: float | None = option(
        None,
        "End the exact re-rank when at most so many of the best, as 0.5, are expected among the candidates that are "
        "left (Cantelli's bound, the error of scores estimated from the candidates done).",
        group=LABORATORY,
        above=0,
        unset="off",
        needs=("exact",),
        metavar="MISSES",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.negative and self.both:
            raise ConfigError(
                field="negative and both",
                expected="one of them",
                found="two",
                remedy="`both` shows the negative end too",
            )
        if self.refine is not None:
            self.refiner_settings()
        if self.words == "filter" and self.words_text is None:
            raise ConfigError(field="words", expected="words to filter by", found="none", remedy="give `words_text`")
        if self.words == "off" and self.words_text is not None:
            raise ConfigError(
                field="words_text", expected="a use of the words", found="`words` off", remedy="leave one of them out"
            )
        if self.stop_early is not None and (self.words == "rank" or self.hits != "part" or self.dedupe is not None):
            raise ConfigError(
                field="stop_early",
                expected="hits that are single parts, by influence alone",
                found="`words` rank, `hits` document, or `dedupe`",
                remedy="leave it out",
            )

    @property
    def slow(self) -> bool:
        """Whether a search takes a pass over many documents, and not the index alone."""
        return self.exact or self.group_by is not None

    def refiner_settings(self) -> Any:
        """Settings of what `refine` names, an instance of its own dataclass.

        Raises:
            ConfigError: There is no such kind, or a setting is unknown or out of range.
        """
        return REFINERS.settings(str(self.refine), self.refine_settings)


@dataclass(frozen=True, kw_only=True)
class ScoreOptions(Settings):
    """What the scores of all documents are: of which documents, and how they are computed."""

    hits: str = as_in(
        SearchOptions,
        "hits",
        default="document",
        help="What has a score: a part, or a document, the sum over its parts.",
    )
    normalise: str = as_in(SearchOptions, "normalise")
    long_queries: str = as_in(SearchOptions, "long_queries")
    where: str | None = as_in(SearchOptions, "where")
    exact: bool = option(
        False,
        "Exact EK-FAC influence, unprojected, in the place of scores: the gradients of all documents are recomputed, "
        "once for as many queries as fit in memory.",
        group=EXACT,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exact and self.normalise == "unit":
            raise ConfigError(
                field="normalise",
                expected="none, relatif or length beside `exact`",
                found="unit, the norm of stored vectors",
                remedy="leave one of them out",
            )
