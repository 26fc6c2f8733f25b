"""BM25 scores of documents from the counts of common words, and from FTS5 for all other words of a query.

    score(d) = sum_w idf(w) f(w, d) (k1 + 1) / (f(w, d) + k1 (1 - b + b |d| / mean |d|))
    idf(w) = max(log((N - n(w) + .5) / (n(w) + .5)), 1e-6)

as FTS5 has it: f is how often a document has a word, |d| how many words it has, n how many of the N documents of the
table have the word. It is a sum over words, so those that are rare are left to FTS5.

Axes: B documents of a block.
"""

import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gindex.documents.common_words import BLOCK

K1, B = 1.2, 0.75
"""FTS5's constants."""

_LEAST_IDF = 1e-6
"""The weight of a word that more than half of the documents have."""

_COUNTS = {1: "<u1", 2: "<u2", 4: "<u4"}

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CommonWord:
    """A common word of a query: its number in the table, and its inverse document frequency."""

    number: int
    idf: float


class WordScores:
    """The scores of the documents of a table for the words of a query, some of which are common."""

    def __init__(self, connection: sqlite3.Connection, phrases: Sequence[str]) -> None:
        """Take a table that has its common words, and what is looked for, in FTS5's terms."""
        self._connection = connection
        totals = connection.execute("SELECT SUM(documents), SUM(words) FROM word_totals").fetchone()
        self._documents, self._words = totals
        self.common: list[CommonWord] = []
        self._rare: list[str] = []
        for phrase in phrases:
            statement = "SELECT word, documents FROM common_words WHERE name = ?"
            row = connection.execute(statement, (phrase[1:-1],)).fetchone() if phrase.endswith('"') else None
            if row is None:
                self._rare.append(phrase)
            else:
                self.common.append(CommonWord(row[0], self._idf(row[1])))

    def best(self, count: int, passing: npt.NDArray[np.int64] | None) -> list[tuple[int, float]]:
        """The documents with the largest scores, best first, and of equal ones the first.

        Args:
            count: How many at most.
            passing: Ordinals of the only documents that count, ascending; None for all.
        """
        ((first,),) = self._connection.execute("SELECT MIN(ordinal) FROM documents").fetchall()
        rare, best = self._of_rare(), [np.zeros(0), np.zeros(0)]
        allowed = None if passing is None else passing - first
        for block, scores_B in self._blocks():
            within = range(block * BLOCK, block * BLOCK + len(scores_B))
            some = slice(*np.searchsorted(rare["document"], (within.start + first, within.stop + first)))
            scores_B[rare["document"][some] - first - within.start] += rare["score"][some]
            if allowed is not None:
                mask_B = np.zeros(len(scores_B), bool)
                mask_B[allowed[slice(*np.searchsorted(allowed, (within.start, within.stop)))] - within.start] = True
                scores_B[~mask_B] = 0
            places = _largest(scores_B, count)
            best = [np.append(best[0], places + within.start + first), np.append(best[1], scores_B[places])]
        ordinals, scores = best
        order = np.lexsort((ordinals, -scores))[:count]
        return list(zip(ordinals[order].astype(int).tolist(), scores[order].tolist(), strict=True))

    def _idf(self, documents: int) -> float:
        return max(math.log((self._documents - documents + 0.5) / (documents + 0.5)), _LEAST_IDF)

    def _of_rare(self) -> np.ndarray:
        """Document and score of those that have other words, by ordinal."""
        kind = np.dtype([("document", np.int64), ("score", np.float64)])
        if not self._rare:
            return np.zeros(0, kind)
        statement = "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ? ORDER BY rowid"
        return np.fromiter(self._connection.execute(statement, (" OR ".join(self._rare),)), kind)

    def _blocks(self) -> Iterator[tuple[int, Scores]]:
        """The scores of each block of documents [B] for the common words."""
        mean = self._words / self._documents
        stored = self._connection.execute("SELECT block, counts FROM word_totals ORDER BY block").fetchall()
        for block, counts in stored:
            lengths_B = np.frombuffer(counts, "<u4")
            norms_B = K1 * (1 - B + B * lengths_B / mean)
            scores_B = np.zeros(len(lengths_B))
            for word in self.common:
                statement = "SELECT documents, counts FROM postings WHERE word = ? AND block = ?"
                row = self._connection.execute(statement, (word.number, block)).fetchone()
                if row is not None:
                    _add(scores_B, norms_B, word.idf, *row)
            yield block, scores_B


def _add(scores_B: Scores, norms_B: Scores, idf: float, documents: bytes | None, counts: bytes) -> None:
    """Add what a word contributes to the scores of a block."""
    number = len(scores_B) if documents is None else len(documents) // 2
    counts_B = np.frombuffer(counts, _COUNTS[len(counts) // number]).astype(np.float64)
    if documents is None:
        scores_B += idf * (K1 + 1) * counts_B / (counts_B + norms_B)
    else:
        have = np.frombuffer(documents, "<u2")
        scores_B[have] += idf * (K1 + 1) * counts_B / (counts_B + norms_B[have])


def _largest(scores_B: Scores, count: int) -> npt.NDArray[np.int64]:
    """Places of the largest positive scores, and of equal ones the first."""
    places = np.flatnonzero(scores_B > 0)
    if len(places) > count:
        least = np.partition(scores_B[places], -count)[-count]
        places = places[scores_B[places] >= least]
    return places[np.lexsort((places, -scores_B[places]))[:count]]
