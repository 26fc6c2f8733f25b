"""The settings of an index, one frozen dataclass per component.

A default is written here and nowhere else: the command line takes its defaults and its help from these fields.
Validation only; nothing is loaded here.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from gindex.errors import ConfigError

BIT_WIDTHS = (1, 2, 4, 8, 16)
DTYPES = ("auto", "float32", "bfloat16")


def option(default: Any, help: str) -> Any:
    """Define a config field with the help text that the command line shows."""
    return field(default=default, metadata={"help": help})


def help_of(config: type, name: str) -> str:
    """Return the help text of a config field."""
    return next(str(f.metadata["help"]) for f in fields(config) if f.name == name)


def default_of(config: type, name: str) -> Any:
    """Return the default of a config field."""
    return next(f.default for f in fields(config) if f.name == name)


def _at_least(name: str, value: float, low: float) -> None:
    if not value >= low:
        raise ConfigError(f"--{name.replace('_', '-')}: expected at least {low}, got {value}")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ConfigError(f"--{name.replace('_', '-')}: expected a positive finite number, got {value}")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """How documents are read and cut into parts."""

    text_field: str = option("text", "Field of a record that holds the document's text.")
    id_field: str = option("id", "Field that holds the document id; records without it are numbered by file and line.")
    max_tokens: int = option(512, "Longest part in tokens; a longer document is cut into parts that all count.")

    def __post_init__(self) -> None:
        _at_least("max_tokens", self.max_tokens, 2)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which model, where and in which number format it runs."""

    name: str = option("", "Folder of a Hugging Face model, or its name on the hub.")
    device: str = option("auto", "Device of the passes: auto, cpu, cuda, cuda:0, ...")
    dtype: str = option("auto", "Number format of the passes: auto (bfloat16 for a 16-bit model), float32, bfloat16.")

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"--dtype: expected one of {', '.join(DTYPES)}, got {self.dtype!r}")


@dataclass(frozen=True, kw_only=True)
class CurvatureConfig:
    """How EK-FAC is fitted and damped."""

    fit_documents: int = option(1000, "Documents that EK-FAC is fitted on, drawn with the seed; 0 takes all.")
    damping_scale: float = option(0.1, "Damping of exact influence, as a multiple of each layer's mean eigenvalue.")
    index_damping: float = option(10.0, "Damping of stored vectors, as a multiple of each layer's mean eigenvalue.")

    def __post_init__(self) -> None:
        _at_least("fit_documents", self.fit_documents, 0)
        _positive("damping_scale", self.damping_scale)
        _positive("index_damping", self.index_damping)


@dataclass(frozen=True, kw_only=True)
class VectorConfig:
    """How a whitened document gradient becomes a stored vector."""

    dimension: int = option(30720, "Dimension of the stored vectors.")
    rank_fraction: float = option(0.125, "Leading part of both eigenbases of every layer that is kept, in (0, 1].")
    bits: int = option(1, "Bits per stored coordinate: 1, 2, 4, 8 or 16.")

    def __post_init__(self) -> None:
        if self.dimension < 8 or self.dimension % 8:
            raise ConfigError(f"--dimension: expected a positive multiple of 8, got {self.dimension}")
        if not 0 < self.rank_fraction <= 1:
            raise ConfigError(f"--rank-fraction: expected a number in (0, 1], got {self.rank_fraction}")
        if self.bits not in BIT_WIDTHS:
            raise ConfigError(f"--bits: expected one of {', '.join(map(str, BIT_WIDTHS))}, got {self.bits}")


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """All settings of a build."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    curvature: CurvatureConfig = field(default_factory=CurvatureConfig)
    vectors: VectorConfig = field(default_factory=VectorConfig)
    seed: int = option(0, "Seed of the fit's sample, the sampled labels and the projection.")
    batch_tokens: int = option(1024, "Most tokens in one batch, padding included; at least one part is always taken.")

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"--seed: expected a number of 64 bits from 0 on, got {self.seed}")
        _at_least("batch_tokens", self.batch_tokens, 1)

    def settings(self) -> dict[str, Any]:
        """Return the settings that decide the index's content: all but the device and the batches."""
        everything = asdict(self)
        del everything["model"]["device"], everything["batch_tokens"]
        return everything
