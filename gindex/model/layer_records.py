"""What an index records of a model's layers and weights: plain values, which are read without loading the model."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """A tracked layer: its name, group, activation source, shape, ranks kept and mean corrected eigenvalue.

    `factors` names the fused weight whose experts share all factors, this one among them; None where they are its own.
    """

    name: str
    group: str
    source: str
    inputs: int
    outputs: int
    activation_rank: int
    gradient_rank: int
    mean_eigenvalue: float
    factors: str | None = None


@dataclass(frozen=True, kw_only=True)
class UntrackedWeight:
    """A parameter that takes no part, with the reason, and whether it is of the model's body."""

    name: str
    parameters: int
    reason: str
    body: bool = True
