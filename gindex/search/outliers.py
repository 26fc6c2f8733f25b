"""Documents that stand out by themselves: mislabelled, corrupted, foreign and memorised ones.

Self-influence is <V_d, V_d>, the squared norm of a part's whitened gradient: how much training on the part raises its
own log-likelihood. It was stored exactly, before projection, with the damping and the ranks of the index.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gindex.documents.filters import parse_filter
from gindex.documents.selection import filtered_parts
from gindex.errors import ConfigError
from gindex.store.snapshot import Snapshot


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A part of large self-influence.

    Attributes:
        rank: 1 for the largest.
        document_id: The document's id in the corpus.
        part: Which part of the document, from 0.
        self_influence: Its self-influence, for each predicted token where that was asked for.
        tokens: Its tokens.
        text: The part's text.
        metadata: The other fields of the document's record.
    """

    rank: int
    document_id: str
    part: int
    self_influence: float
    tokens: int
    text: str
    metadata: dict[str, Any]


def find_outliers(snapshot: Snapshot, k: int, where: str | None = None, *, per_token: bool = False) -> list[Outlier]:
    """The k parts of largest self-influence, largest first, ties by ordinal.

    Args:
        snapshot: The files of the index.
        k: Parts to return.
        where: Only documents that pass this filter.
        per_token: Divide by the number of predicted tokens: long parts have more to influence.

    Raises:
        ConfigError: k is below 1.
        FilterError: The filter does not parse, or names a field that no document has.
    """
    if k < 1:
        raise ConfigError(field="k", expected="at least 1", found=k)
    table, ordinals = snapshot.documents, snapshot.usable_parts
    if where is not None:
        ordinals = np.intersect1d(ordinals, filtered_parts(table, parse_filter(where)))
    values = snapshot.vectors.self_influence(ordinals).astype(np.float64)
    if per_token:
        values /= np.maximum(table.part_targets()[ordinals], 1)
    order = np.argsort(-values, kind="stable")[:k]
    parts = table.parts(ordinals[order])
    return [
        Outlier(
            rank=rank,
            document_id=part.document_id,
            part=part.part,
            self_influence=float(value),
            tokens=part.token_count,
            text=part.text,
            metadata=part.metadata,
        )
        for rank, (part, value) in enumerate(zip(parts, values[order], strict=True), start=1)
    ]
