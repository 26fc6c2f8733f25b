"""Why a document influences a query: its exact influence, told apart by its tokens and by layers."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.corpus.batches import TokenBatch, pad
from gindex.documents.selection import parts_of_id
from gindex.documents.table import DocumentTable
from gindex.exact.explanation import Explanation as Explanation
from gindex.exact.explanation import PartExplanation as PartExplanation
from gindex.exact.explanation import TokenInfluence as TokenInfluence
from gindex.exact.token_texts import part_texts
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Progress, Silent
from gindex.queries.query import Query, query_record
from gindex.vectors.held_gradients import HeldGradients
from gindex.vectors.token_influence import token_influence


def explain(
    model: TrackedModel,
    table: DocumentTable,
    preconditioned: Mapping[str, HeldGradients],
    document_id: str,
    query: Query,
    notes: tuple[str, ...] = (),
    *,
    progress: Progress | None = None,
) -> Explanation:
    """Recompute one document exactly, a part at a time.

    Args:
        model: The model.
        table: The documents.
        preconditioned: H^-1 G [1, O, I] of the query by layer name.
        document_id: The document.
        query: What the preconditioned gradient is of.
        notes: What is to be told of the query.
        progress: Where the work is reported.

    Raises:
        StoreError: There is no such document.
    """
    tracked = model.table.layers
    of_tokens = np.array([not layer.alone for layer in tracked])
    by_layer = np.zeros(len(tracked))
    parts, stored = [], parts_of_id(table, document_id)
    texts = part_texts(model.loaded.tokenizer, table.document(document_id), [part for _, part in stored])
    with (progress or Silent()).phase("explanation", len(stored), "parts") as phase:
        for number, (ordinal, objective) in enumerate(stored):
            batch = pad([objective], np.array([ordinal]))
            losses = partial(model.task.losses, batch)
            widths = [mask.shape[1] for mask in batch.masks]
            influence_LNT = token_influence(tracked, preconditioned, 1, losses, batch.texts, widths)
            influence_LT = influence_LNT[:, 0].double().cpu().numpy()
            by_layer += influence_LT.sum(1)
            tokens = zip(texts[number], influence_LT[of_tokens].sum(0)[_real(batch)], strict=True)
            parts.append(
                PartExplanation(
                    part=number,
                    influence=float(influence_LT.sum()),
                    pictures=float(influence_LT[~of_tokens].sum()) if objective.is_alone else None,
                    tokens=tuple(
                        TokenInfluence(text=text.text, influence=float(value), context=text.context)
                        for text, value in tokens
                    ),
                )
            )
            phase.advance()
    groups: dict[str, float] = {}
    for layer, value in zip(tracked, by_layer.tolist(), strict=True):
        groups[layer.group] = groups.get(layer.group, 0.0) + value
    return Explanation(
        document_id=document_id,
        query=query,
        influence=float(by_layer.sum()),
        parts=tuple(parts),
        layers={layer.name: value for layer, value in zip(tracked, by_layer.tolist(), strict=True)},
        groups=groups,
        notes=notes,
    )


def _real(batch: TokenBatch) -> slice | npt.NDArray[np.intp]:
    """Positions of the tokens of one part; none of a picture, whose positions differ from layer to layer."""
    if batch.contents is None:
        return np.flatnonzero(np.concatenate([mask[0] for mask in batch.masks]))
    return slice(batch.tokens.shape[1] if batch.contents[0].is_beside else 0)


def explanation_record(explanation: Explanation) -> dict[str, Any]:
    """An explanation as the plain values that `gindex explain` prints as JSON."""
    return asdict(explanation) | {"query": query_record(explanation.query)}


def shades(values: Sequence[float]) -> list[float]:
    """Scale influences to [-1, 1] by the largest, so that a colour can stand for each."""
    largest = max((abs(value) for value in values), default=0.0)
    return [value / largest if largest else 0.0 for value in values]
