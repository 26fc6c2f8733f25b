"""The settings of the studies. Nothing is loaded here: the command line takes defaults and help from these fields."""

from dataclasses import dataclass, fields

from gindex.config import option
from gindex.errors import ConfigError

MAY_BE_ZERO = ("seed", "parts", "documents")


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What every study draws from an index."""

    sample: int = option(32, "Queries to draw from the index; each leaves its own document out.")
    seed: int = option(0, "Seed of the draws and of the bootstrap.")

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            low = 0 if each.name in MAY_BE_ZERO else 1
            if not isinstance(value, str) and value < low:
                raise ConfigError(field=each.name, expected=f"at least {low}", found=value)


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


@dataclass(frozen=True, kw_only=True)
class WordOrderConfig(StudyConfig):
    """`gindex study word-order`."""

    sample: int = option(64, "Documents to draw.")
    phrase_words: int = option(6, "Words of each of the two phrases that a drawn document begins with.")


@dataclass(frozen=True, kw_only=True)
class CrossLingualConfig(StudyConfig):
    """`gindex study cross-lingual`."""

    sample: int = option(24, "Passages to draw; each is a query in every language.")
    language_field: str = option("language", "Metadata field with the language of a document.")
    passage_field: str = option("passage", "Metadata field that a passage and its translations share.")


@dataclass(frozen=True, kw_only=True)
class ScaleConfig(StudyConfig):
    """`gindex study scale`."""

    documents: int = option(0, "Documents to rank, drawn from the corpus; 0 ranks all.")
    top: int = option(10, "Most influential documents of each query that are compared with it.")
    query_words: int = option(40, "Words of a query: the first of its document, the second half as the completion.")


@dataclass(frozen=True, kw_only=True)
class MemorizationConfig(StudyConfig):
    """`gindex study memorization`."""

    sample: int = option(1000, "Most documents to draw, from those that are long enough.")
    prompt_tokens: int = option(16, "Tokens of a document that the model is given.")
    completion_tokens: int = option(24, "Tokens that it must go on with, just as they are in the document.")
