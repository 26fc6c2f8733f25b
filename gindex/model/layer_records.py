"""What an index records of a model's layers and weights: plain values, which are read without loading the model."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """A tracked layer: its name, group, activation source, shape, ranks kept and mean corrected eigenvalue.

    `gradient_source` names the layer whose S and Q_S an expert shares, None where it has its own.
    """

    name: str
    group: str
    source: str
    inputs: int
    outputs: int
    activation_rank: int
    gradient_rank: int
    mean_eigenvalue: float
    gradient_source: str | None = None


@dataclass(frozen=True, kw_only=True)
class UntrackedWeight:
    """A parameter that takes no part, with the reason, and whether it is of the model's body."""

    name: str
    parameters: int
    reason: str
    body: bool = True
