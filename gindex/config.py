"""The settings of builds, one frozen dataclass a component; those of searches are in `search_options`.

A default, a range and a help text are written here and nowhere else: the command line and the service have them from
these fields. Nothing is loaded here.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from gindex.errors import ConfigError
from gindex.options import LABORATORY, Settings, option
from gindex.registry import Registry

BIT_WIDTHS = (1, 2, 4, 8, 16)
FORMS = TEXT, COMPLETION, MESSAGES, TOKENS, PREFERENCE, LABEL, WORDS, PICTURE, TENSORS = (
    "text",
    "completion",
    "messages",
    "tokens",
    "preference",
    "label",
    "words",
    "picture",
    "tensors",
)
AUTO = "auto"
LOSSES = ASSISTANT_TURNS, LAST_TURN, ALL_TOKENS = "assistant", "last-turn", "all"
"""Forms of documents, and which tokens of conversations count."""

LAYERS = ATTENTION, MLP, ALL_LINEAR, EVERYTHING = "attention", "mlp", "all-linear", "everything"
"""Which layers of a model are tracked."""

DTYPES = ("auto", "float32", "bfloat16", "float16")
CURVATURES = Registry("gindex.curvatures", "curvature", {"ekfac": "gindex.curvature.kinds:EKFAC"})
PROJECTIONS = Registry("gindex.projections", "projection", {"count-sketch": "gindex.vectors.count_sketch:CountSketch"})
CAUSAL = "causal"
TASKS = Registry(
    "gindex.tasks",
    "task",
    {
        CAUSAL: "gindex.model.tasks.causal:CausalKind",
        "image-text-to-text": "gindex.model.tasks.vision_language:VisionLanguageKind",
        "masked": "gindex.model.tasks.masked:MaskedKind",
        "classification": "gindex.model.tasks.classification:ClassificationKind",
        "image-classification": "gindex.model.tasks.image_classification:PictureKind",
        "token-classification": "gindex.model.tasks.token_classification:TokenClassificationKind",
        "seq2seq": "gindex.model.tasks.seq2seq:Seq2SeqKind",
    },
)
"""What a model was trained to do, each a `model.tasks.kind.TaskKind`."""

TRANSFORMS, NO_TRANSFORM = Registry("gindex.transforms", "transform", {}), "none"
"""What may transform vectors before they are compared, each a `store.transform.TransformKind`; what asks for none."""

PERMISSIONS = ("trust_remote_code", "allow_pickle")
"""What a caller may allow a model to do, fields of `ModelConfig`; an index never allows it."""

USUAL_TOKENS = 512
"""Tokens of the longest part, where the settings say nothing and the model takes as many."""

EXAMPLES = 32
"""Documents of which a model is tried on a few, where its task is a user's own."""

LEAST_SHARE = 0.5
"""Share of a model's body below which it is said aloud how little of it is tracked."""


CORPUS, CURVATURE, STORED, COST = "corpus", "curvature", "stored vectors", "time and memory"
MODEL = "model and device"
"""Headings that options are shown under."""


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(Settings):
    """How documents are read and cut into parts."""

    form: str = option(
        AUTO,
        "What a document is: text; a prompt with its completion, which alone counts; messages, a conversation of which "
        "the assistant's turns count; tokens, prepared as input_ids with labels, loss_mask or loss_weights; a "
        "preference of chosen over rejected, by DPO's loss; a text with its label; words with a label each; a "
        "picture with its label; tensors, for a task of one's own; auto goes by the model's task and each record's "
        "fields.",
        group=CORPUS,
        choices=(AUTO, *FORMS),
    )
    text_field: str = option("text", "Field of a record that holds the document's text.", group=CORPUS)
    prompt_field: str = option("prompt", "Field that holds a prompt.", group=CORPUS)
    completion_field: str = option("completion", "Field that holds a prompt's completion.", group=CORPUS)
    messages_field: str = option("messages", "Field that holds a conversation.", group=CORPUS)
    pair_field: str | None = option(
        None, "Field that holds the second text of a pair, where classifiers read two.", group=CORPUS, unset="one text"
    )
    words_field: str = option("tokens", "Field that holds the words of a text that are labelled.", group=CORPUS)
    image_field: str = option("image", "Field that holds a picture: the bytes of its file, or its path.", group=CORPUS)
    images_field: str | None = option(
        None,
        "Field that holds the pictures of a conversation, a list, where models read them; where a record has none, "
        "`image_field` may hold one.",
        group=CORPUS,
        unset="images, for such a model",
    )
    label_field: str | None = option(
        None,
        "Field that holds the label of a text or a picture, or those of a text's words: by name or number.",
        group=CORPUS,
        unset="label, or ner_tags of words",
    )
    columns: tuple[str, ...] = option(
        (),
        "Field that holds a tensor which a task of one's own reads, numbers or lists of them; may be repeated.",
        group=CORPUS,
        unset="those that the task names",
    )
    mask_share: float = option(
        0.15, "Share of a text's tokens that masked language models are asked for.", group=CORPUS, above=0, most=1
    )
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

    index_field: tuple[str, ...] = option(
        (),
        "Metadata field that filters look up by index, written as in a filter: year, origin.site; may be repeated. "
        "gindex index-fields does it later.",
        group=CORPUS,
        unset="none",
        metavar="FIELD",
    )

    @property
    def reads_pictures(self) -> bool:
        """Whether documents are pictures, or may have some."""
        return self.form == PICTURE or self.images_field is not None

    def __post_init__(self) -> None:
        for name in ("columns", "index_field"):  # lists, where they come out of JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))
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
        "Number format of the passes; auto takes bfloat16 for a 16-bit model where that is fast. Losses are scaled "
        "for float16, document by document.",
        group=MODEL,
        choices=DTYPES,
    )
    task: str = option(
        AUTO,
        "What the model was trained to do: predict the next token (causal) or masked ones, classify texts or their "
        "tokens, or predict one text from another (seq2seq); auto goes by the architecture in its config.json. A "
        "function of your own, MODULE:FUNCTION or FILE.py:FUNCTION, gives the losses of tensors; its code is run.",
        group=MODEL,
        choices=lambda: (AUTO, *TASKS.names()),
        form="MODULE:FUNCTION",
        metavar="TASK",
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
    layers: str = option(
        ALL_LINEAR,
        "Layers to track: all-linear, linear layers and convolutions, experts and their routers; those of attention "
        "(also state spaces and recurrences) or of the mlp alone; everything, also norms and other small parameters.",
        group=MODEL,
        choices=LAYERS,
    )
    untrack: tuple[str, ...] = option(
        (),
        "Layers to leave out: a name or a pattern such as 'model.layers.0.*'; give it again for more.",
        group=MODEL,
        metavar="PATTERN",
    )
    track: tuple[str, ...] = option(
        (),
        "Layers to track although `layers` or `untrack`, or the default for an output head that costs more than half "
        "of what the body does, or for the base of an adapter, leaves them out; a name or a pattern.",
        group=MODEL,
        metavar="PATTERN",
    )

    def __post_init__(self) -> None:
        for name in ("untrack", "track"):  # lists, where they come out of JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))
        super().__post_init__()

    def settings(self) -> dict[str, Any]:
        """What decides an index's content; adapter, base, another task and the choice of layers only where given.

        What a caller allows a model to do is not among it: an index must not allow it to the next one.
        """
        patterns = {name: list(given) for name in ("untrack", "track") if (given := getattr(self, name))}
        places = {name: given for name in ("adapter", "base") if (given := getattr(self, name)) is not None}
        task = {} if self.task in (AUTO, CAUSAL) else {"task": self.task}
        layers = {} if self.layers == ALL_LINEAR else {"layers": self.layers}
        return {"name": self.name, "dtype": self.dtype} | task | places | layers | patterns


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
        "Most memory to take, in GB, as reckoned beforehand: batches are made smaller, blocks of the model "
        "checkpointed, or layers fitted in rounds, to fit.",
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
    written = {name: of for name, of in asdict(config).items() if name in always or of != usual[name]}
    return {name: list(of) if isinstance(of, tuple) else of for name, of in written.items()}


def as_of_today(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a build as `BuildConfig.settings` gives them today; 0 once said that all documents are fitted on."""
    if settings["curvature"].get("fit_documents") != 0:
        return settings
    return settings | {"curvature": settings["curvature"] | {"fit_documents": None}}
