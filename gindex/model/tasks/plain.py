"""What tasks have in common of which nothing but the model changes, whatever layers are tracked."""

from collections.abc import Mapping
from copy import copy
from typing import Any, Self

from torch import nn

from gindex.corpus.batches import TokenBatch
from gindex.corpus.objectives import Objective
from gindex.model.layers import LayerTable


class PlainTask:
    """A task that is the same before and after the tracked layers are known; see `kind.ModelTask`.

    Attributes:
        model: The model.
    """

    model: nn.Module

    def trial_alone(self) -> Objective | None:
        """Return None: no document needs a batch of its own."""
        return None

    def settled(self, table: LayerTable, batch: TokenBatch) -> Self:
        """Return the task as it is: nothing of it depends on the layers that are tracked."""
        del table, batch
        return self

    def on(self, model: nn.Module, copies: Mapping[int, Any]) -> Self:
        """Return the task of a copy of the model."""
        del copies
        twin = copy(self)
        twin.model = model
        return twin
