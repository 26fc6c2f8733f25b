"""Number of leading eigenvectors that are kept of a layer."""

from gindex.model.layers import TrackedLayer


def ranks(layer: TrackedLayer, fraction: float) -> tuple[int, int]:
    """Number of leading eigenvectors that are kept of the activation and the gradient side."""
    return max(1, round(layer.inputs * fraction)), max(1, round(layer.outputs * fraction))
