"""What fitting curvature takes of memory, and the rounds that keep it within a bound.

A round is some consecutive layer groups. Each takes its own passes over the sample, so that the sums and bases of one
round are in memory at a time, and never those of all layers. What is fitted is the same.
"""

from collections.abc import Sequence
from dataclasses import replace

from gindex.curvature.eigenbasis import ENTRY_BYTES
from gindex.model.layers import LayerTable, TrackedLayer
from gindex.model.number_formats import Formats
from gindex.model.sides import Side


def fit_rounds(table: LayerTable, room: int | None, formats: Formats) -> tuple[LayerTable, ...]:
    """Divide the layers of a model into rounds of its fit, as few as there is room for.

    Args:
        table: The tracked layers.
        room: Bytes for what a round holds beside the model and a batch; None for all layers in one round.
        formats: Number format of each layer's bases.

    Returns:
        The tracked layers of each round, in forward order. A round has one layer group at least, even where there is
        no room for it.
    """
    rounds: list[list[TrackedLayer]] = []
    for layers in table.by_group():
        joined = [*rounds[-1], *layers] if rounds else []
        if joined and (room is None or fit_bytes(joined, formats) <= room):
            rounds[-1] = joined
        else:
            rounds.append(layers)
    groups = [{layer.group for layer in layers} for layers in rounds]
    return tuple(replace(table, layers=tuple(layer for layer in table if layer.group in of)) for of in groups)


def fit_bytes(layers: Sequence[TrackedLayer], formats: Formats) -> int:
    """What the fit of layers holds beside the model and a batch, in bytes.

    Args:
        layers: The layers of a round.
        formats: Number format of each layer's bases.
    """
    squares = sum(side.numbers for side in sides(layers))
    diagonals = 4 * sum(side.width for side in sides(layers) if side.is_unit)
    eigenvalues = sum(layer.parameters for layer in with_own_factors(layers))
    return max(
        4 * squares + diagonals + max(map(_decomposition_bytes, sides(layers))),
        _basis_bytes(layers, formats) + 4 * eigenvalues,  # and sums of the corrected eigenvalues
    )


def covariance_bytes(layers: Sequence[TrackedLayer]) -> int:
    """The bytes of the covariances of layers in float32."""
    return 4 * sum(side.numbers for side in sides(layers))


def factor_bytes(layers: Sequence[TrackedLayer]) -> int:
    """The bytes of EK-FAC factors in float32: bases, and corrected eigenvalues."""
    return covariance_bytes(layers) + 4 * sum(layer.parameters for layer in with_own_factors(layers))


def sides(layers: Sequence[TrackedLayer]) -> list[Side]:
    """Sides of all covariances that are kept: A of each source, S of each layer but of experts that share it."""
    activations = {layer.source: layer.input_side for layer in layers}
    return list(activations.values()) + [layer.output_side for layer in with_own_factors(layers)]


def with_own_factors(layers: Sequence[TrackedLayer]) -> list[TrackedLayer]:
    """The layers whose S and Lambda are kept: of experts that share them the first."""
    first: dict[str, TrackedLayer] = {}
    for layer in layers:
        first.setdefault(layer.factors, layer)
    return list(first.values())


def _basis_bytes(layers: Sequence[TrackedLayer], formats: Formats) -> int:
    """What the bases of layers take as passes use them."""
    activations = {layer.source: (layer.input_side, formats[layer.name]) for layer in layers}
    gradients = [(layer.output_side, formats[layer.name]) for layer in with_own_factors(layers)]
    return sum(dtype.itemsize * side.numbers for side, dtype in [*activations.values(), *gradients])


def _decomposition_bytes(side: Side) -> int:
    """What the decomposition of a side takes; beside that of its largest block what is made of the others."""
    made = 8 * side.numbers if len(side.blocks) > 1 else 0
    return ENTRY_BYTES * side.widest**2 + made
