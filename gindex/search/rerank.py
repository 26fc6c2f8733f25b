"""Re-rank candidates by exact EK-FAC influence: their gradients are recomputed and nothing is projected.

Axes: Q queries, N candidates.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.corpus.table import DocumentTable
from gindex.engine import Engine, token_batches
from gindex.gradient.exact import exact_influence


def recompute_influence(
    engine: Engine,
    preconditioned: dict[str, Tensor],
    table: DocumentTable,
    ordinals: npt.NDArray[np.int64],
    batch_tokens: int,
    done: Callable[[int], None] = lambda _parts: None,
) -> npt.NDArray[np.float32]:
    """Return the exact influence [Q, N] of parts on preconditioned queries.

    Args:
        engine: The model.
        preconditioned: H^-1 G [Q, O, I] by layer name.
        table: Where the parts' tokens are.
        ordinals: Part ordinals [N].
        batch_tokens: Most tokens in a batch.
        done: Called after each batch with its number of parts.
    """
    count = len(ordinals)
    queries = len(next(iter(preconditioned.values())))
    influence_QN = np.zeros((queries, count), np.float32)
    tokens = table.tokens(ordinals.tolist())
    for batch in token_batches(tokens, np.arange(count), np.ones(count, np.int64), batch_tokens):
        losses = partial(engine.task.losses, batch)
        columns = exact_influence(engine.table.layers, preconditioned, len(batch.ordinals), losses)
        influence_QN[:, batch.ordinals] = columns.cpu().numpy()
        done(len(batch.ordinals))
    return influence_QN
