"""Candidates on their way to hits: grouped by document, fused with lexical ranks, near-duplicates folded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

RANK_OFFSET = 60
"""What ranks are added to before they are inverted and summed: the first places weigh little more than the next.

Source: reciprocal rank fusion, Cormack et al. 2009."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A part, or a document by its best part, that may become a hit.

    Attributes:
        ordinal: The part.
        score: Score as it is reported: weighted, positive where training on it raises the query's log-likelihood.
        merit: What candidates are ordered by, larger is better.
        influence: Exact influence, where it was computed.
        members: Parts whose scores are put together here, where documents were asked for.
        lexical: BM25 score of the document.
        duplicates: Parts of the candidates that were folded into this one.
    """

    ordinal: int
    score: float
    merit: float
    influence: float | None = None
    members: tuple[int, ...] | None = None
    lexical: float | None = None
    duplicates: tuple[int, ...] = ()


def ordered(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Sort by merit, ties by ordinal."""
    return sorted(candidates, key=lambda c: (-c.merit, c.ordinal))


def grouped(candidates: Sequence[Candidate], document_of: Mapping[int, int], how: str) -> list[Candidate]:
    """Put the parts of each document together under its best part.

    Args:
        candidates: Ordered parts; for `sum` all parts of their documents.
        document_of: Document by part ordinal.
        how: `max` or `sum`.
    """
    documents: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        documents.setdefault(document_of[candidate.ordinal], []).append(candidate)
    if how == "max":
        return [replace(parts[0], members=(parts[0].ordinal,)) for parts in documents.values()]
    return ordered([_summed(parts) for parts in documents.values()])


def _summed(parts: list[Candidate]) -> Candidate:
    exact = [part.influence for part in parts if part.influence is not None]
    return replace(
        parts[0],
        score=sum(part.score for part in parts),
        merit=sum(part.merit for part in parts),
        influence=sum(exact) if len(exact) == len(parts) else None,
        members=tuple(part.ordinal for part in parts),
    )


def fused(
    candidates: Sequence[Candidate], document_of: Mapping[int, int], lexical: Sequence[tuple[int, float]]
) -> list[Candidate]:
    """Order by reciprocal ranks: those by merit, and those of the documents by BM25 score.

    Args:
        candidates: Ordered by merit.
        document_of: Document by part ordinal.
        lexical: Documents and their BM25 scores, best first.
    """
    places = {document: (rank, score) for rank, (document, score) in enumerate(lexical, start=1)}
    result = []
    for rank, candidate in enumerate(candidates, start=1):
        lexical_rank, score = places.get(document_of[candidate.ordinal], (None, None))
        merit = 1 / (RANK_OFFSET + rank) + (1 / (RANK_OFFSET + lexical_rank) if lexical_rank else 0.0)
        result.append(replace(candidate, merit=merit, lexical=score))
    return ordered(result)


def deduplicated(
    candidates: Sequence[Candidate], k: int, cosine: float, vectors: Callable[[npt.NDArray[np.int64]], Tensor]
) -> list[Candidate]:
    """Fold each candidate into the first better one whose stored vector is near, until k are left.

    Args:
        candidates: Ordered.
        k: How many to keep; those after the last one kept are not looked at.
        cosine: Least cosine of near-duplicates.
        vectors: Gives the stored vectors [N, D] of parts [N].
    """
    kept: list[Candidate] = []
    units: list[Tensor] = []
    for candidate in candidates:
        vector = vectors(np.array([candidate.ordinal]))[0]
        unit = vector / vector.norm().clamp_min(1e-30)
        near = next((n for n, other in enumerate(units) if float(other @ unit) >= cosine), None)
        if near is not None:
            kept[near] = replace(kept[near], duplicates=(*kept[near].duplicates, candidate.ordinal))
        elif len(kept) < k:
            kept.append(candidate)
            units.append(unit)
        else:
            break
    return kept
