"""Views of objectives of one text, for tests of plain queries and parts."""

import numpy as np

from gindex.corpus.batches import TokenBatch, pad
from gindex.corpus.objectives import Objective


def ids_of(found) -> np.ndarray:
    """The token ids of a query's, or a part's, only text."""
    objective = found if isinstance(found, Objective) else found.objective
    (text,) = objective.texts
    return text.ids


def first_counted(found) -> int:
    """The position of the first token that counts; all that follow count alike."""
    objective = found if isinstance(found, Objective) else found.objective
    (text,) = objective.texts
    first = int(text.counted.argmax())
    assert (text.weights[first:] == 1).all()
    return first


def pad_tokens(token_lists, ordinals, first_targets) -> TokenBatch:
    """A batch of texts whose tokens from a first one on count alike."""
    pairs = zip(token_lists, first_targets, strict=True)
    return pad([Objective.counting(np.asarray(ids), first) for ids, first in pairs], list(ordinals))
