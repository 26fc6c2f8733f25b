"""Lookup tables: embeddings of tokens and of positions, and an output head whose weight is the same table.

The gradient of a table [V, H] has a row for each entry that a document reads: the sum over its tokens of the gradient
of what was looked up. As an outer product that is sum_t u_t e_t^T, with u_t the unit vector of the entry and e_t the
gradient. A head that multiplies by the same table adds sum_t g_t h_t^T, with g_t the gradient of its logits and h_t the
hidden state; an encoder and a decoder may each look up. So to observers a table is one layer with several uses in a
pass, whose activations are e and h, and whose output gradients are u and g. The sum of all uses is its gradient, and no
V x V matrix is made of it.

Axes: N documents, T tokens, V entries, H features of an entry.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gindex.model.inner_linears import InnerLinear, Owner, opened, own_products
from gindex.model.isolation import own


class Table(InnerLinear):
    """A stand-in for the lookups in a weight of embeddings, and for what a head multiplies by it.

    Attributes:
        padding_idx: The entry that no lookup gives a gradient to, None where there is none.
        has_positions: Whether its entries are looked up once for all documents, as [T].
    """

    def __init__(self, embeddings: Sequence[nn.Embedding], head: nn.Module | None = None) -> None:
        """Share the weight.

        Args:
            embeddings: The embeddings that have the weight.
            head: The layer that multiplies by the same weight, where there is one.
        """
        first = embeddings[0]
        weight: nn.Parameter = first._parameters["weight"]  # type: ignore[assignment]
        super().__init__(weight, None, first.embedding_dim, first.num_embeddings)
        self.padding_idx: int | None = first.padding_idx
        self.has_positions = False
        self._head = (head,)  # no submodule
        owner: Owner | None = None
        for embedding in embeddings:
            owner = Owner(module=embedding, forward=own_products, linears={"": self}, before=owner)
        if owner is not None:
            self.owner = owner

    @property
    def head(self) -> nn.Module | None:
        """The layer that multiplies by the same weight."""
        return self._head[0]

    def forward(self, entries: Tensor) -> Tensor:
        """Look entries [...] up: [..., H]."""
        return F.embedding(entries, self.weight, self.padding_idx)

    def unit_vectors(self, entries_NT: Tensor, dtype: torch.dtype) -> Tensor:
        """The unit vectors [N, T, V] of entries, zero for padding's."""
        found_NTV = torch.zeros(*entries_NT.shape, self.outputs, dtype=dtype, device=entries_NT.device)
        found_NTV.scatter_(2, entries_NT[:, :, None], 1)
        if self.padding_idx is not None:
            found_NTV[:, :, self.padding_idx] = 0
        return found_NTV


def reason_against_table(embedding: nn.Embedding) -> str | None:
    """Return the reason against an embedding that shows before it is run."""
    if embedding.max_norm is not None:
        return "an embedding whose entries are scaled when they are read (max_norm)"
    if embedding.scale_grad_by_freq:
        return "an embedding whose gradient depends on the batch (scale_grad_by_freq)"
    return "an embedding with sparse gradients" if embedding.sparse else None


def lookups(
    tables: Iterable[Table], probe: Callable[[int], object], batches: Sequence[int]
) -> dict[tuple[int, int], list[tuple[int, ...]]]:
    """Shapes of the entries that each table is asked for, with gradients, in passes over so many documents.

    Args:
        tables: The tables.
        probe: Runs a pass over so many documents.
        batches: Numbers of documents.

    Returns:
        A shape for each lookup, by the table's identity and the number of documents.
    """
    tables = list(tables)
    found: dict[tuple[int, int], list[tuple[int, ...]]] = {
        (id(table), documents): [] for table in tables for documents in batches
    }
    for documents in batches:
        with ExitStack() as stack:
            stack.enter_context(opened(tables))
            for table in tables:
                hook = own(_shape_taker(found[id(table), documents]))
                stack.callback(table.register_forward_hook(hook).remove)
            stack.enter_context(torch.enable_grad())  # the weights are frozen: no graph is made
            probe(documents)
    return found


def _shape_taker(shapes: list[tuple[int, ...]]) -> Callable[..., None]:
    def take(_module: nn.Module, args: tuple[Any, ...], _output: Tensor) -> None:
        if torch.is_grad_enabled():
            shapes.append(tuple(args[0].shape))

    return take


Called = Callable[[int, tuple[int, ...]], None]
"""Takes note of a call with a number of rows, on an input of a shape."""

Seen = Callable[[Tensor, Tensor], None]
"""Takes activations [N, T, H] and output gradients [N, T, V] of a use of a table."""


@contextmanager
def observed(
    table: Table, documents: int, rows: int, called: Called, seen: Seen, unscaled: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Observe a table in a pass.

    Args:
        table: The table.
        documents: N.
        rows: Rows of the batch.
        called: Called when entries are looked up.
        seen: Called when the gradient of a use has come.
        unscaled: Divides gradients [N, T, ...] by the scale of their document's loss.
    """

    def look_up(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        entries = args[0]
        if table.has_positions:
            entries, output = entries[None], output[None]
        if len(entries) == 1 != rows:  # positions, which are the same for all documents
            entries, output = entries.expand(rows, -1), output.expand(rows, -1, -1)
        called(len(entries), tuple(entries.shape))
        entries_NT = entries.reshape(documents, -1)

        def backward(e: Tensor) -> None:
            e_NTH = unscaled(e.detach().reshape(documents, -1, e.shape[-1]))
            seen(e_NTH, table.unit_vectors(entries_NT, e_NTH.dtype))

        if output.requires_grad:
            output.register_hook(backward)
            return output
        leaf = output.requires_grad_(True)
        leaf.register_hook(backward)
        return leaf.clone()  # what follows may work in place, which a leaf does not allow

    def multiply(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        h_NTH = args[0].detach().to(output.dtype).reshape(documents, -1, args[0].shape[-1])
        output.register_hook(lambda g: seen(h_NTH, unscaled(g.detach().reshape(documents, -1, g.shape[-1]))))
        return output

    with ExitStack() as stack:
        stack.callback(table.register_forward_hook(own(look_up)).remove)
        if table.head is not None:
            stack.callback(table.head.register_forward_hook(own(multiply)).remove)
        yield
