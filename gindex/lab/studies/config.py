"""The settings of the studies, one frozen dataclass each. Nothing is loaded here."""

from dataclasses import dataclass

from gindex.options import Settings, option


@dataclass(frozen=True, kw_only=True)
class StudyConfig(Settings):
    """What every study draws from an index."""

    sample: int = option(32, "Queries to draw from the index; each leaves its own document out.", least=1)
    seed: int = option(0, "Seed of the draws and of the bootstrap.", least=0)


@dataclass(frozen=True, kw_only=True)
class RankingConfig(StudyConfig):
    """Studies that rank the parts of the index for every query."""

    parts: int | None = option(None, "Parts to rank, drawn from the index.", least=1, unset="all")


@dataclass(frozen=True, kw_only=True)
class SparsityConfig(RankingConfig):
    """How few documents carry the influence."""

    resamples: int = option(100, "Synthetic tails that the goodness of each power-law fit is judged by.", least=1)


@dataclass(frozen=True, kw_only=True)
class LayersConfig(RankingConfig):
    """Where in the model the influence sits."""

    top: int = option(20, "Most influential parts of each query whose influence is told apart.", least=1)


@dataclass(frozen=True, kw_only=True)
class WordOrderConfig(StudyConfig):
    """Whether influence heeds the order of words."""

    sample: int = option(64, "Documents to draw.", least=1)
    phrase_words: int = option(6, "Words of each of the two phrases that a drawn document begins with.", least=1)


@dataclass(frozen=True, kw_only=True)
class CrossLingualConfig(StudyConfig):
    """Whether influence crosses languages."""

    sample: int = option(24, "Passages to draw; each is a query in every language.", least=1)
    language_field: str = option("language", "Metadata field with the language of a document.")
    passage_field: str = option("passage", "Metadata field that a passage and its translations share.")


@dataclass(frozen=True, kw_only=True)
class ScaleConfig(StudyConfig):
    """Whether a larger model learns from documents that share fewer words with a query."""

    documents: int | None = option(None, "Documents to rank, drawn from the corpus.", least=1, unset="all")
    top: int = option(10, "Most influential documents of each query that are compared with it.", least=1)
    query_words: int = option(
        40, "Words of a query: the first of its document, the second half as the completion.", least=1
    )


@dataclass(frozen=True, kw_only=True)
class MemorizationConfig(StudyConfig):
    """Whether documents of large self-influence are known by heart."""

    sample: int = option(1000, "Most documents to draw, from those that are long enough.", least=1)
    prompt_tokens: int = option(16, "Tokens of a document that the model is given.", least=1)
    completion_tokens: int = option(24, "Tokens that it must go on with, just as they are in the document.", least=1)
