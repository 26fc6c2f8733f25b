"""The settings of searches, and of scores of all documents, as frozen dataclasses.

A default, a range and a help text are written here and nowhere else: the command line and the service have them from
these fields. Nothing is loaded here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gindex.errors import ConfigError
from gindex.options import LABORATORY, Option, Settings, as_in, option
from gindex.registry import Registry

NORMALISATIONS = ("none", "unit", "relatif", "length")
HITS = ("part", "document")
DOCUMENT_SCORES = ("max", "sum")
WORDS = ("candidates", "filter", "rank", "off")
AGGREGATES = MEAN, SUM = "mean", "sum"
"""How the queries of a set become one: by their mean, or by their sum."""

CUT, REFUSE = LONG_QUERIES = ("cut", "refuse")
REFINERS = Registry("gindex.refiners", "refine", {})
"""What may take EK-FAC's place in preconditioning queries, each an `exact.refiner.RefinerKind`."""

LOOK_FOR, FILTERS, EXACT, OUTPUT = "what to look for", "filters and words", "exact influence", "output"
INDEX, SOURCES = "index", "sources"
"""Headings that options are shown under."""


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
    certainty: float | None = option(
        None,
        "End the exact re-rank as soon as none of the true best has been missed with this probability, as 0.95, by its "
        "certificate.",
        group=EXACT,
        above=0,
        most=0.999,
        unset="off: all candidates",
        needs=("exact",),
        metavar="PROBABILITY",
        formerly=("stop_early",),
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
        if self.certainty is not None and (self.words == "rank" or self.hits != "part" or self.dedupe is not None):
            raise ConfigError(
                field="certainty",
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
