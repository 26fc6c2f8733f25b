"""What layers cost a build, reckoned from their shapes, and the rule by which an output head is tracked, and how."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

from gindex.model.layers import TrackedLayer
from gindex.model.sides import UNIT_VECTORS

WIDE_HEAD = 8192
"""Most tokens of an output head whose pseudo-gradients may have a basis of one matrix, which gains little over the unit
vectors that those of a wider one have."""

HEAD_SHARE = 0.5
"""What an output head may cost by default, as a share of what the body costs."""

LOGIT_COPIES = 2
"""How many times as often as other values logits are held in a pass: in float32 too, and so are their gradients."""


@dataclass(frozen=True, kw_only=True)
class LayerCosts:
    """What layers cost, of each kind in a unit of its own.

    Attributes:
        factors: Values of bases and corrected eigenvalues, in memory and on disk.
        decompositions: X^3 of their covariances' matrices: time between the two passes of the fit.
        multiplications: Those of a token: covariances, rotations, and the gradient that they add up to.
        kept: Values of a token that a pass holds: inputs, outputs.
    """

    factors: float = 0.0
    decompositions: float = 0.0
    multiplications: float = 0.0
    kept: float = 0.0

    @classmethod
    def of(cls, layers: Iterable[TrackedLayer]) -> Self:
        """Reckon what layers cost together; what they share is counted once."""
        found, seen = dict.fromkeys((field.name for field in fields(cls)), 0.0), set[str]()
        for layer in layers:
            sides = [layer.output_side] if layer.source in seen else [layer.input_side, layer.output_side]
            seen.add(layer.source)
            numbers = sum(side.numbers for side in sides)
            found["factors"] += numbers + layer.parameters
            found["decompositions"] += sum(side.cubes for side in sides)
            found["multiplications"] += layer.token_share * (numbers + layer.parameters)
            found["kept"] += layer.token_share * sum(side.width for side in sides)
        return cls(**found)

    def share_of(self, other: Self) -> float:
        """The largest share of another's costs of one kind that these are; infinite where those are nothing."""
        pairs = [(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)]
        return max(own / theirs if theirs else float("inf") for own, theirs in pairs if own)


def head_share(head: TrackedLayer, layers: Iterable[TrackedLayer]) -> float:
    """What an output head costs, as a share of what the body does.

    Args:
        head: The head.
        layers: The layers that are tracked, from which the body's are taken.
    """
    costs = LayerCosts.of([head])
    return replace(costs, kept=LOGIT_COPIES * costs.kept).share_of(LayerCosts.of(of for of in layers if of.body))


def structured_head(head: TrackedLayer, layers: Sequence[TrackedLayer]) -> TrackedLayer:
    """Return an output head with the basis of its tokens that it has: a matrix where it may cost as much, else none.

    Args:
        head: The head.
        layers: The layers that are tracked.
    """
    matrix, unit = replace(head, output_block=None), replace(head, output_block=UNIT_VECTORS)
    return matrix if head.outputs <= WIDE_HEAD and _excess(matrix, layers) is None else unit


def reason_against_head(head: TrackedLayer, layers: Sequence[TrackedLayer]) -> str | None:
    """Say why an output head is left out by default, None where it is not.

    With it a build costs at most half as much again as without, in memory, on disk, and in time.

    Args:
        head: The head, structured.
        layers: The layers that are tracked.
    """
    if (share := _excess(head, layers)) is None:
        return None
    return (
        f"an output head of {head.outputs:,} tokens, off by default for what it costs, {share:,.1f} times what the "
        f"body does; `track` {head.name} takes it"
    )


def _excess(head: TrackedLayer, layers: Sequence[TrackedLayer]) -> float | None:
    """The share of the body's costs that an output head has, where it is too large; None where it is not."""
    if head.body or not any(layer.body for layer in layers):
        return None
    share = head_share(head, layers)
    return share if share > HEAD_SHARE else None
