"""How words enter a search: which documents have the best BM25 scores for them, and what that is used for.

Words confine a search, or their ranks are fused with those by score into the order of the hits, or into the choice of
the candidates that are re-ranked exactly.
"""

from collections.abc import Sequence
from functools import cache

from gindex.config import SearchOptions
from gindex.documents.filters import parse_filter
from gindex.documents.selection import lexical_documents
from gindex.documents.table import DocumentTable
from gindex.documents.words import words_of
from gindex.errors import ConfigError

LexicalRanks = list[tuple[int, float]]
"""Documents and their BM25 scores, best first."""


def words_confine(options: SearchOptions) -> bool:
    """Whether only documents that have some of the words are found."""
    return options.bm25 is not None and not options.hybrid


def words_order(options: SearchOptions) -> bool:
    """Whether hits are ordered by their ranks by words, too."""
    return options.hybrid


def words_choose(options: SearchOptions) -> bool:
    """Whether candidates for the exact re-rank are chosen by their ranks by words, too."""
    return options.exact and options.candidates_by == "both" and options.bm25 is None and not options.hybrid


def lexical_ranks(table: DocumentTable, options: SearchOptions, texts: Sequence[str | None]) -> list[LexicalRanks]:
    """The documents with the best BM25 scores for each query; none where a search does not ask for them.

    Args:
        table: The documents.
        options: The search.
        texts: Each query's text; None where it is a vector alone.

    Raises:
        ConfigError: Hits are to be ordered by words, and a query has none.
        FilterError: The filter does not parse, or names a field that no document has.
        QueryError: The words that a search is confined to are none.
    """
    where = None if options.where is None else parse_filter(options.where)

    @cache
    def ranks(words: str, partly: bool) -> LexicalRanks:
        return lexical_documents(table, words, options.bm25_candidates, where, partly=partly)

    if words_choose(options):
        return [ranks(text, True) if text and words_of(text) else [] for text in texts]
    if words_confine(options) or words_order(options):
        return [ranks(_words(options, text), False) for text in texts]
    return [[] for _ in texts]


def _words(options: SearchOptions, text: str | None) -> str:
    """The words that are given, or those of the query."""
    words = text if options.bm25 is None else options.bm25
    if words is None:
        raise ConfigError(field="hybrid", expected="words to look for", found="a vector alone", remedy="give `bm25`")
    return words
