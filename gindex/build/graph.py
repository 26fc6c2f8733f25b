"""A graph of frozen weights: gradients flow from the embeddings up, as they do under observation."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def graph_from_embeddings(model: nn.Module) -> Iterator[None]:
    """Let the output of a model's embeddings need gradients, so that passes over it can be differentiated."""
    handle = model.get_input_embeddings().register_forward_hook(_graded)  # type: ignore[operator]
    try:
        yield
    finally:
        handle.remove()


def _graded(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
    return output.requires_grad_(True).clone()  # what follows may work in place, which a leaf does not allow
