"""How words enter a search: which documents have the best BM25 scores for them, and what that is used for.

Words confine a search, or their ranks are fused with those by score into the order of the hits, or into the choice of
the candidates that are re-ranked exactly.
"""

from collections.abc import Sequence
from functools import cache

from gindex.documents.filters import parse_filter
from gindex.documents.selection import lexical_documents
from gindex.documents.table import DocumentTable
from gindex.documents.words import words_of
from gindex.errors import ConfigError
from gindex.search_options import SearchOptions

LexicalRanks = list[tuple[int, float]]
"""Documents and their BM25 scores, best first."""


def words_confine(options: SearchOptions) -> bool:
    """Whether only documents that have some of the words are found."""
    return options.words == "filter"


def words_order(options: SearchOptions) -> bool:
    """Whether hits are ordered by their ranks by words, too."""
    return options.words == "rank"


def words_choose(options: SearchOptions) -> bool:
    """Whether candidates for the exact re-rank are chosen by their ranks by words, too."""
    return options.exact and options.words == "candidates"


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
    given = [text if options.words_text is None else options.words_text for text in texts]

    @cache
    def ranks(words: str, partly: bool) -> LexicalRanks:
        return lexical_documents(table, words, options.words_documents, where, partly=partly)

    if words_choose(options):
        return [ranks(words, True) if words and words_of(words) else [] for words in given]
    if words_confine(options) or words_order(options):
        return [ranks(_present(words), False) for words in given]
    return [[] for _ in texts]


def _present(words: str | None) -> str:
    if words is None:
        raise ConfigError(
            field="words", expected="text to take them from", found="a vector alone", remedy="give `words_text`"
        )
    return words
