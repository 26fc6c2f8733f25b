"""The number formats in which layers are multiplied with their factors.

Products with eigenvectors run in the format of a layer's own weights: activations and gradients have no more digits
than that. So a router in float32 beside weights in 16 bits keeps its digits. float16 alone is left for float32, since
sums of a document's gradient leave its range. Layers that share Q_A have one format, the widest among them.
"""

from collections.abc import Iterable, Mapping

import torch

from gindex.model.layers import TrackedLayer

Formats = Mapping[str, torch.dtype]
"""Number format by layer name."""


def factor_formats(layers: Iterable[TrackedLayer]) -> Formats:
    """The number format of each layer's products with its factors."""
    layers, widest = list(layers), dict[str, torch.dtype]()
    for layer in layers:
        own = wide_range(next(layer.module.parameters()).dtype)
        widest[layer.source] = torch.promote_types(own, widest.get(layer.source, own))
    return {layer.name: widest[layer.source] for layer in layers}


def wider(dtype: str) -> str:
    """The number formats, by their names in settings, to advise where one has left its range."""
    return "bfloat16 or float32" if dtype == "float16" else "float32"


def wide_range(dtype: torch.dtype) -> torch.dtype:
    """A number format itself, and float32 for float16."""
    return torch.float32 if dtype == torch.float16 else dtype
