"""The first look at the codes: which parts are worth a closer one.

A quarter of every code is kept apart, so that reading it reads no more, as a RaBitQ index of its own. One query, or a
few, is asked of that by FAISS; for a batch it is scored for all queries at once in one product of 8-bit integers. The
parts that pass are then scored by the whole of their codes.

Axes: Q queries, N parts, F dimension of the codes, K coordinates that are looked at, M parts of a block.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gindex.ann.spec import CODE_FACTORS
from gindex.workers import spread

BATCH = 12
"""Queries from which they are scored together: taking codes apart costs as much as several queries do."""

STEP = 4
"""One in so many words of a code, 32 signs each, is looked at."""

SHARE = 1 / 64
"""Share of the parts that pass."""

LEAST_PER_CANDIDATE = 10
"""Fewest parts that pass, for each candidate that is wanted of them."""

MOST_CANDIDATES = 512
"""Candidates up to which it serves: the further down the list, the closer the scores, and the more it would lose."""

MOST_PASSING = 1 / 8, 1 / 2
"""Largest share of the parts that may pass for it to be worth while, for few queries and for a batch."""

SAMPLE = 1024, 4096
"""Parts on which it is found out what score a part must have to pass: one in 32, at least and at most so many."""

PARTS_AT_ONCE = 2048
"""Parts that are scored at once."""

Flags = npt.NDArray[np.bool_]
Queries = npt.NDArray[np.float32]
Bits = npt.NDArray[np.uint8]
Range = tuple[int, int] | None
"""Ordinals of parts, start and stop; None for all."""


class Sieve:
    """A quarter of the codes of a RaBitQ index."""

    def __init__(self, faiss: Any, index: Any, query_bits: int, ranges: Callable[[int], list[Range]]) -> None:
        """Copy the words that are looked at.

        Args:
            faiss: FAISS.
            index: An open IndexRaBitQ whose centre is zero.
            query_bits: Bits of a query's coordinate where RaBitQ counts bits.
            ranges: Divides the parts among the threads that so many queries leave idle.
        """
        self._faiss, self._query_bits, self._ranges = faiss, query_bits, ranges
        words, total = index.d // 32, index.ntotal
        self._coordinates = (32 * np.arange(0, words, STEP)[:, None] + np.arange(32)).ravel()
        self._first = self._empty()
        self._first.codes.resize(total * self._first.code_size)
        self._first.ntotal = total
        source_NB, self._codes_NB = _codes(faiss, index), _codes(faiss, self._first)
        self._words_NW = self._codes_NB[:, :-CODE_FACTORS].view(np.uint32)

        def copy(start: int) -> None:
            some = slice(start, start + PARTS_AT_ONCE)
            self._words_NW[some] = source_NB[some, : 4 * words].view(np.uint32)[:, ::STEP]
            # After the signs: two numbers, of which the second one scales their product with the query.
            self._codes_NB[some, -CODE_FACTORS:] = source_NB[some, -CODE_FACTORS:]

        spread(copy, range(0, total, PARTS_AT_ONCE))
        self._factors_N = self._codes_NB[:, -4:].view(np.float32)[:, 0]

    def serves(self, queries: int, count: int, total: int) -> bool:
        """Whether it is worth while for so many queries, candidates of each, and parts to choose from."""
        return count <= MOST_CANDIDATES and _passing(count, total) <= total * MOST_PASSING[queries >= BATCH]

    def passed(self, queries_QF: Queries, count: int, allowed: Flags | None) -> list[Bits]:
        """Which parts pass for each query, a bit each, lowest first.

        Args:
            queries_QF: Queries as they are asked of the index.
            count: Candidates that are wanted of those that pass.
            allowed: Which parts may pass [N]; None where all may.
        """
        among = np.arange(len(self._codes_NB)) if allowed is None else np.flatnonzero(allowed)
        least, most = SAMPLE
        size = min(len(among), most, max(least, len(among) // 32))
        sample = among[np.linspace(0, len(among) - 1, size).astype(np.int64)]
        rank = min(size - 1, _passing(count, len(among)) * size // len(among))
        chosen_QK = np.ascontiguousarray(queries_QF[:, self._coordinates])
        if len(queries_QF) < BATCH:
            return self._few(chosen_QK, sample, rank, allowed)
        return self._together(chosen_QK, sample, rank, allowed)

    def _few(self, chosen_QK: Queries, sample: npt.NDArray[np.int64], rank: int, allowed: Flags | None) -> list[Bits]:
        sampled = self._empty()
        sampled.add_sa_codes(self._codes_NB[sample])
        plain = self._faiss.RaBitQSearchParameters(qb=self._query_bits)
        # In pieces of one thread: where FAISS starts threads of its own, they go on spinning.
        rows = [chosen_QK[query : query + 1] for query in range(len(chosen_QK))]
        least_Q = spread(lambda row_1K: float(sampled.search(row_1K, rank + 1, params=plain)[0][0, -1]), rows)
        bits = None if allowed is None else np.packbits(allowed, bitorder="little")
        pieces = [(query, bounds) for query in range(len(rows)) for bounds in self._ranges(len(rows))]

        def passing(piece: tuple[int, Range]) -> npt.NDArray[np.int64]:
            query, bounds = piece
            selector = part_selector(self._faiss, bounds, bits)
            parameters = self._faiss.RaBitQSearchParameters(qb=self._query_bits, sel=selector)
            ordinals: npt.NDArray[np.int64] = self._first.range_search(rows[query], least_Q[query], params=parameters)[
                2
            ]
            return ordinals

        flags_QN = np.zeros((len(rows), len(self._codes_NB)), np.bool_)
        for (query, _), ordinals in zip(pieces, spread(passing, pieces), strict=True):
            flags_QN[query, ordinals] = True
        return [np.packbits(flags_N, bitorder="little") for flags_N in flags_QN]

    def _together(
        self, chosen_QK: Queries, sample: npt.NDArray[np.int64], rank: int, allowed: Flags | None
    ) -> list[Bits]:
        steps_Q1 = np.maximum(np.abs(chosen_QK).max(1, keepdims=True) / 127, np.finfo(np.float32).tiny)
        rounded_QK = np.rint(chosen_QK / steps_Q1).astype(np.int8)
        columns_KQ = torch.from_numpy(rounded_QK).T
        sums_Q = rounded_QK.sum(1, dtype=np.int32)

        def scores(words_MW: npt.NDArray[np.uint32], factors_M: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            """Scores [M, Q], each query's in a scale of its own."""
            bits_MK = np.unpackbits(np.ascontiguousarray(words_MW).view(np.uint8), axis=1, bitorder="little")
            products_MQ = torch._int_mm(torch.from_numpy(bits_MK).view(torch.int8), columns_KQ).numpy()
            scores_MQ: npt.NDArray[np.float32] = (2 * products_MQ - sums_Q).astype(np.float32) * factors_M[:, None]
            return scores_MQ

        sampled_MQ = scores(self._words_NW[sample], self._factors_N[sample])
        least_Q = -np.partition(-sampled_MQ, rank, axis=0)[rank]

        def block(start: int) -> Bits:
            some = slice(start, start + PARTS_AT_ONCE)
            passes_MQ = scores(self._words_NW[some], self._factors_N[some]) >= least_Q
            if allowed is not None:
                passes_MQ &= allowed[some, None]
            return np.packbits(np.ascontiguousarray(passes_MQ.T), axis=1, bitorder="little")

        blocks = spread(block, range(0, len(self._words_NW), PARTS_AT_ONCE))
        return list(np.concatenate(blocks, axis=1))

    def _empty(self) -> Any:
        """A RaBitQ index of the coordinates that are looked at, about zero."""
        dimension = len(self._coordinates)
        index = self._faiss.IndexRaBitQ(dimension, self._faiss.METRIC_INNER_PRODUCT)
        index.train(np.zeros((1, dimension), np.float32))
        return index


def part_selector(faiss: Any, bounds: Range, bits: Bits | None) -> Any:
    """The selector of the parts between two ordinals, or whose bit is set, or both; None for all."""
    selectors = [] if bits is None else [faiss.IDSelectorBitmap(bits)]
    if bounds is not None:
        selectors.append(faiss.IDSelectorRange(*bounds))
    return faiss.IDSelectorAnd(*selectors) if len(selectors) > 1 else next(iter(selectors), None)


def _codes(faiss: Any, index: Any) -> Bits:
    """View the codes [N, B] of an index."""
    size = index.code_size
    codes_NB: Bits = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * size).reshape(index.ntotal, size)
    return codes_NB


def _passing(count: int, total: int) -> int:
    return max(int(total * SHARE), count * LEAST_PER_CANDIDATE)
