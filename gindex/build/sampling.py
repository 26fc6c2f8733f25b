"""The parts that a build is fitted and calibrated on, drawn with its seed. Of a part that is not drawn a byte is held.

Axes: P parts that are drawn.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gindex.documents.table import DocumentTable
from gindex.errors import CorpusError

BLOCK = 65536

Flags = npt.NDArray[np.bool_]
Ordinals = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class FitSample:
    """The documents that EK-FAC is fitted on.

    Attributes:
        parts_P: Ordinals of their parts, ascending.
        documents: How many documents.
        tokens: Tokens of the parts.
    """

    parts_P: Ordinals
    documents: int
    tokens: int


def draw_fit_sample(table: DocumentTable, wanted: int | None, seed: int) -> FitSample:
    """Draw documents that have a token to predict.

    Args:
        table: The documents, numbered from 0.
        wanted: How many; None for all.
        seed: Seed of the draw.

    Raises:
        CorpusError: No document has a token to predict, so there is no gradient to fit on.
    """
    documents = table.counts().documents
    taken = np.zeros(documents, np.bool_)
    for block in table.column_blocks():
        taken[block.documents_P[block.targets_P > 0]] = True
    usable = int(np.count_nonzero(taken))
    if not usable:
        raise CorpusError(
            field="corpus",
            expected="a document with a token to predict",
            found=f"none in {documents}",
            remedy="a single token has no gradient, since nothing predicts it",
        )
    if wanted is not None and wanted < usable:
        drawn = flagged(taken, np.random.default_rng(seed).choice(usable, wanted, replace=False))
        taken = np.zeros(documents, np.bool_)
        taken[drawn] = True
    parts, tokens, first = [], 0, 0
    for block in table.column_blocks():
        places = np.flatnonzero(taken[block.documents_P])
        parts.append(first + places)
        tokens += int(block.lengths_P[places].sum())
        first += len(block.documents_P)
    return FitSample(parts_P=np.concatenate(parts), documents=int(np.count_nonzero(taken)), tokens=tokens)


def draw_parts(table: DocumentTable, count: int, seed: int) -> Ordinals:
    """Draw at most so many parts that have a token to predict, in random order."""
    usable = np.concatenate([block.targets_P > 0 for block in table.column_blocks()])
    total = int(np.count_nonzero(usable))
    return flagged(usable, np.random.default_rng(seed).choice(total, min(count, total), replace=False))


def flagged(flags: Flags, places: Ordinals) -> Ordinals:
    """The positions of those flags that are set, by their places among these."""
    positions, before = np.empty(len(places), np.int64), 0
    for start in range(0, len(flags), BLOCK):
        here = flags[start : start + BLOCK]
        after = before + int(np.count_nonzero(here))
        wanted = np.flatnonzero((places >= before) & (places < after))
        if len(wanted):
            positions[wanted] = start + np.flatnonzero(here)[places[wanted] - before]
        before = after
    return positions
