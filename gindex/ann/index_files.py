"""The FAISS files of a search index, asked as one: each holds consecutive parts, in the order of the ordinals.

An add makes a file of its own parts, and files are merged as they grow, so there are few. Every file is asked for as
many candidates as are wanted, and the best of all of them are taken: those that one file of all parts would give.

Axes: Q queries, N parts, D dimension.
"""

import itertools
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.ann.build import LARGEST
from gindex.ann.index import Candidates, FaissIndex

LEAST_LARGEST = 4
"""Fewest parts of largest norm that a file gives; together they are as many as one file has, and a few more."""


class IndexFiles:
    """FAISS indexes of consecutive parts. Several threads may use them at once."""

    def __init__(self, files: Sequence[FaissIndex]) -> None:
        """Join indexes, in the order of the ordinals; none is opened yet."""
        self._files = files
        self._starts = list(itertools.accumulate((file.parts for file in files), initial=0))

    @property
    def lossless(self) -> bool:
        """Whether the scores are those of the stored vectors up to rounding."""
        return all(file.spec.lossless for file in self._files)

    @cached_property
    def largest(self) -> npt.NDArray[np.int64]:
        """The parts of largest norm, which are candidates of every query: of each file in proportion to its parts."""
        total, largest = self._starts[-1], [np.zeros(0, np.int64)]
        for file, start in zip(self._files, self._starts, strict=False):
            share = max(LEAST_LARGEST, -(-LARGEST * file.parts // total))
            largest.append(np.array(file.spec.largest[:share], np.int64) + start)
        return np.concatenate(largest)

    def open(self) -> None:
        """Open every file, once it is compared with its checksum.

        Raises:
            CorruptStoreError: A file has another checksum, or is not such an index.
        """
        for file in self._files:
            file.open()

    def candidates(
        self, queries_QD: Tensor, count: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> list[Candidates]:
        """The `count` best parts for each of the queries [Q, D].

        The scores are those of the stored vectors where `lossless`, otherwise approximations; where files are of
        different forms, in the same unit.

        Args:
            queries_QD: Query vectors.
            count: Parts wanted.
            allowed: Which parts may be found [N]; None where all may.
        """
        if len(self._files) == 1:
            return self._files[0].candidates(queries_QD, count, allowed)
        found: list[list[Candidates]] = [[] for _ in range(len(queries_QD))]
        for file, (start, stop) in zip(self._files, itertools.pairwise(self._starts), strict=True):
            some = None if allowed is None else allowed[start:stop]
            if some is None or some.any():
                of_file = file.candidates(queries_QD, count, some)
                for of_query, (ordinals, scores) in zip(found, of_file, strict=True):
                    of_query.append((ordinals + start, scores / np.float32(file.spec.unit)))
        return [_best(of_query, count) for of_query in found]


def _best(found: Sequence[Candidates], count: int) -> Candidates:
    ordinals = np.concatenate([np.zeros(0, np.int64), *(ordinals for ordinals, _ in found)])
    scores = np.concatenate([np.zeros(0, np.float32), *(scores for _, scores in found)])
    order = np.argsort(-scores, kind="stable")[:count]
    return ordinals[order], scores[order]
