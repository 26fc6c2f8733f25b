"""How many leading eigenvectors of a layer are kept."""

from gindex.model.layers import TrackedLayer


def ranks(layer: TrackedLayer, fraction: float) -> tuple[int, int]:
    """Return how many leading eigenvectors are kept of the activation and the gradient side."""
    return max(1, round(layer.inputs * fraction)), max(1, round(layer.outputs * fraction))
