"""The first look at the codes, for many queries at once: which parts are worth a closer one.

A batch reads a share of every code once and scores it for all queries in one product of 8-bit integers, where one query
alone is better off with all of the code. The parts that pass are then scored like those of a single query.

Axes: Q queries, N parts, F dimension of the codes, M parts of a block.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gindex.search.workers import spread

LEAST_QUERIES = 4
"""Queries from which a batch is sieved: taking codes apart costs as much as several queries do."""

STEP = 4
"""One in so many words of a code, 32 signs each, is looked at."""

SHARE = 1 / 64
"""Share of the parts that pass."""

LEAST_PER_CANDIDATE = 10
"""Fewest parts that pass, for each candidate that is wanted of them."""

MOST_CANDIDATES = 512
"""Candidates up to which it serves: the further down the list, the closer the scores, and the more it would lose."""

SAMPLE = 4096
"""Parts on which it is found out what score a part must have to pass."""

BLOCK = 2048
"""Parts that are scored at once."""

Flags = npt.NDArray[np.bool_]


class Sieve:
    """The codes of a RaBitQ index, ready to be looked at."""

    def __init__(self, faiss: Any, index: Any) -> None:
        """View the codes of an open IndexRaBitQ; nothing is read yet."""
        size = index.code_size
        codes_NB = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * size).reshape(index.ntotal, size)
        words = index.d // 32
        self._words_NW = codes_NB[:, : 4 * words].view(np.uint32)[:, ::STEP]
        # After the signs: two numbers, of which the second one scales their product with the query.
        self._factors_N = codes_NB[:, -4:].view(np.float32)[:, 0]
        self._coordinates = (32 * np.arange(0, words, STEP)[:, None] + np.arange(32)).ravel()

    def serves(self, queries: int, count: int, total: int) -> bool:
        """Say whether it is worth while for so many queries, candidates of each, and parts to choose from."""
        return queries >= LEAST_QUERIES and count <= MOST_CANDIDATES and 2 * _passing(count, total) <= total

    def passed(
        self, queries_QF: npt.NDArray[np.float32], count: int, allowed: Flags | None
    ) -> list[npt.NDArray[np.uint8]]:
        """Return which parts pass for each query, a bit each, lowest first.

        Args:
            queries_QF: Queries as they are asked of the index.
            count: Candidates that are wanted of those that pass.
            allowed: Which parts may pass [N]; None where all may.
        """
        total = len(self._words_NW) if allowed is None else int(allowed.sum())
        chosen_QK = queries_QF[:, self._coordinates]
        steps_Q1 = np.maximum(np.abs(chosen_QK).max(1, keepdims=True) / 127, np.finfo(np.float32).tiny)
        rounded_QK = np.rint(chosen_QK / steps_Q1).astype(np.int8)
        columns_KQ = torch.from_numpy(rounded_QK).T
        sums_Q = rounded_QK.sum(1, dtype=np.int32)

        def scores(words_MW: npt.NDArray[np.uint32], factors_M: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            """Return scores [M, Q], each query's in a scale of its own."""
            bits_MK = np.unpackbits(np.ascontiguousarray(words_MW).view(np.uint8), axis=1, bitorder="little")
            products_MQ = torch._int_mm(torch.from_numpy(bits_MK).view(torch.int8), columns_KQ).numpy()
            scores_MQ: npt.NDArray[np.float32] = (2 * products_MQ - sums_Q).astype(np.float32) * factors_M[:, None]
            return scores_MQ

        among = np.arange(total) if allowed is None else np.flatnonzero(allowed)
        sample = among[np.linspace(0, total - 1, min(SAMPLE, total)).astype(np.int64)]
        rank = min(len(sample) - 1, _passing(count, total) * len(sample) // total)
        sampled_MQ = scores(self._words_NW[sample], self._factors_N[sample])
        least_Q = -np.partition(-sampled_MQ, rank, axis=0)[rank]

        def block(start: int) -> npt.NDArray[np.uint8]:
            some = slice(start, start + BLOCK)
            passes_MQ = scores(self._words_NW[some], self._factors_N[some]) >= least_Q
            if allowed is not None:
                passes_MQ &= allowed[some, None]
            return np.packbits(np.ascontiguousarray(passes_MQ.T), axis=1, bitorder="little")

        blocks = spread(block, range(0, len(self._words_NW), BLOCK))
        return list(np.concatenate(blocks, axis=1))


def _passing(count: int, total: int) -> int:
    return max(int(total * SHARE), count * LEAST_PER_CANDIDATE)
