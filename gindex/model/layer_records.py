"""What an index records of a model's layers and weights: plain values, which are read without loading the model."""

from dataclasses import dataclass

from gindex.model.sides import Side


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """A tracked layer: its name, group, activation source, shape, ranks kept and mean corrected eigenvalue.

    `factors` names the fused weight whose experts share all factors, this one among them; None where they are its own.
    `input_block` and `output_block` are the structure of either side's basis (`Side.block`).
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
    input_block: int | None = None
    output_block: int | None = None

    @property
    def input_side(self) -> Side:
        """The side of its activations."""
        return Side(self.inputs, self.input_block)

    @property
    def output_side(self) -> Side:
        """The side of its pseudo-gradients."""
        return Side(self.outputs, self.output_block)


@dataclass(frozen=True, kw_only=True)
class UntrackedWeight:
    """A parameter that takes no part, with the reason, and whether it is of the model's body."""

    name: str
    parameters: int
    reason: str
    body: bool = True
