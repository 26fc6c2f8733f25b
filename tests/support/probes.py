"""Documents to try models on, no two alike and the same whenever they are asked for; and what is tracked of models."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gindex.model.layer_choice import LayerChoice
from gindex.model.layers import LayerTable
from gindex.model.tracking import track_layers


def random_probe(model: nn.Module, *shape: int, dtype: torch.dtype = torch.float32) -> Callable[[int], Tensor]:
    """Run a model on documents of random values of a shape."""

    def run(documents: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return model(torch.randn(documents, *shape, generator=generator, dtype=dtype))

    return run


def token_probe(model: nn.Module, tokens: int = 4, vocabulary: int = 40) -> Callable[[int], Tensor]:
    """Run a language model on documents of random tokens."""

    def run(documents: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return model(torch.randint(vocabulary, (documents, tokens), generator=generator), use_cache=False).logits

    return run


def track(model: nn.Module, *shape: int, choice: LayerChoice | None = None) -> LayerTable:
    """Find the layers of a model that reads [documents, 5, 6], or another shape."""
    model.eval()
    return track_layers(model, random_probe(model, *(shape or (5, 6))), choice)


def names(table: LayerTable) -> list[str]:
    """Return the names of the tracked layers."""
    return [layer.name for layer in table]


def reasons(table: LayerTable) -> dict[str, str]:
    """Return why each other weight is not tracked."""
    return {weight.name: weight.reason for weight in table.untracked}
