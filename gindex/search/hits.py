"""From the best candidates to hits: what they say of their documents, and the score of each layer group.

Axes: S slices (layer groups), N parts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from gindex.documents.part_records import PartRecord
from gindex.documents.table import DocumentTable
from gindex.search.ask import Ask, Search
from gindex.search.candidates import Candidate
from gindex.search.result import Hit
from gindex.search.scan import part_slice_scores, scorer_of
from gindex.store.reader import VectorReader


def make_hits(
    search: Search,
    best: Sequence[Sequence[Candidate]],
    table: DocumentTable,
    reader: VectorReader,
    groups: Sequence[str],
) -> list[tuple[Hit, ...]]:
    """The hits of each ask; what they say of their documents is looked up once for all of them.

    Args:
        search: The search.
        best: The candidates of each ask that become hits, best first.
        table: The documents.
        reader: The stored vectors.
        groups: Names of the vectors' slices.
    """
    ordinals = sorted({n for of in best for c in of for n in (c.ordinal, *c.duplicates)})
    parts = dict(zip(ordinals, table.parts(ordinals), strict=True))
    hits = []
    for ask, candidates in zip(search.asks, best, strict=True):
        layers = [_layers(search, ask, c, reader, groups) if search.options.layers else None for c in candidates]
        folded = search.options.dedupe is not None
        ranks = enumerate(zip(candidates, layers, strict=True), start=1)
        hits.append(tuple(_hit(rank, c, parts, by_layer, folded=folded) for rank, (c, by_layer) in ranks))
    return hits


def _hit(
    rank: int,
    candidate: Candidate,
    parts: Mapping[int, PartRecord],
    layers: dict[str, float] | None,
    *,
    folded: bool,
) -> Hit:
    part = parts[candidate.ordinal]
    return Hit(
        rank=rank,
        document_id=part.document_id,
        part=part.part,
        score=candidate.score,
        influence=candidate.influence,
        text=part.text,
        metadata=dict(part.metadata),
        parts=None if candidate.members is None else len(candidate.members),
        lexical=candidate.lexical,
        duplicates=tuple(parts[n].document_id for n in candidate.duplicates) if folded else None,
        layers=layers,
        form=part.form,
        pictures=part.pictures or None,
    )


def _layers(
    search: Search, ask: Ask, candidate: Candidate, reader: VectorReader, groups: Sequence[str]
) -> dict[str, float]:
    """The score of each layer group, as reported: signed and weighted."""
    ordinals, weights = np.array(candidate.members or (candidate.ordinal,), np.int64), search.selection.weights
    scores_SN = ask.sign * part_slice_scores(reader, ordinals, scorer_of(reader, ask.vector_1D))[:, 0]
    if weights is not None:
        scores_SN = scores_SN * torch.from_numpy(weights[ordinals])
    scores_S = scores_SN.sum(1) * ask.scale
    return dict(zip(groups, scores_S.tolist(), strict=True))
