"""Documents to try models on: the same ones whenever they are asked for, no two alike."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


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
