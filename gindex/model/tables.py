"""Lookup tables: embeddings of tokens and of positions, and an output head whose weight is the same table.

The gradient of a table [V, H] has a row for each entry that a document reads: the sum over its tokens of the gradient
of what was looked up. As an outer product that is sum_t u_t e_t^T, with u_t the unit vector of the entry and e_t the
gradient. A head that multiplies by the same table adds sum_t g_t h_t^T, with g_t the gradient of its logits and h_t the
hidden state. So to observers a table is one layer with two positions for each token, whose activations are e and h, and
whose output gradients are u and g; the sum of both uses is what its gradient is, and no V x V matrix is made of it.

Observers see a table when the gradient of what was looked up has come, the last in a pass.

Axes: N documents, T tokens, V entries, H features of an entry.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gindex.model.inner_linears import InnerLinear, Owner, own_products
from gindex.model.isolation import own


class Table(InnerLinear):
    """A stand-in for the lookups in an embedding's weight, and for what a head multiplies by it.

    Attributes:
        padding_idx: The entry that no lookup gives a gradient to, None where there is none.
    """

    def __init__(self, embedding: nn.Embedding, head: nn.Module | None = None) -> None:
        """Share the weight.

        Args:
            embedding: The embedding.
            head: The layer that multiplies by the same weight, where there is one.
        """
        weight: nn.Parameter = embedding._parameters["weight"]  # type: ignore[assignment]
        super().__init__(weight, None, embedding.embedding_dim, embedding.num_embeddings)
        self.padding_idx: int | None = embedding.padding_idx
        self._head = (head,)  # no submodule
        self.owner = Owner(module=embedding, forward=own_products, linears={"": self})

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


Called = Callable[[int, tuple[int, ...]], None]
"""Takes note of a call with a number of rows, on an input of a shape."""

Seen = Callable[[Tensor, Tensor, Tensor], None]
"""Takes activations [N, S, H] and output gradients [N, S, V] of a table, and the token [N, S] of each position."""


@dataclass(kw_only=True)
class _Uses:
    """What is known of the uses of a table in a pass: activations and output gradients, by document."""

    hidden: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)


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
        seen: Called when the gradient of what was looked up has come.
        unscaled: Divides gradients [N, T, ...] by the scale of their document's loss.
    """
    uses = _Uses()

    def look_up(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        entries = args[0]
        if len(entries) == 1 != rows:  # positions, which are the same for all documents
            entries, output = entries.expand(rows, -1), output.expand(rows, -1, -1)
        called(len(entries), tuple(entries.shape))
        entries_NT = entries.reshape(documents, -1)

        def backward(e: Tensor) -> None:
            e_NTH = unscaled(e.detach().reshape(documents, -1, e.shape[-1]))
            a_NSH = torch.cat([e_NTH, *uses.hidden], 1)
            g_NSV = torch.cat([table.unit_vectors(entries_NT, e_NTH.dtype), *uses.logits], 1)
            tokens_T = torch.arange(entries_NT.shape[1], device=e.device)
            seen(a_NSH, g_NSV, tokens_T.repeat(g_NSV.shape[1] // max(1, len(tokens_T))).expand(documents, -1))

        if output.requires_grad:
            output.register_hook(backward)
            return output
        leaf = output.requires_grad_(True)
        leaf.register_hook(backward)
        return leaf.clone()  # what follows may work in place, which a leaf does not allow

    def multiply(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        h_NTH = args[0].detach().to(output.dtype).reshape(documents, -1, args[0].shape[-1])

        def backward(g: Tensor) -> None:
            uses.hidden.append(h_NTH)
            uses.logits.append(unscaled(g.detach().reshape(documents, -1, g.shape[-1])))

        output.register_hook(backward)
        return output

    with ExitStack() as stack:
        stack.callback(table.register_forward_hook(own(look_up)).remove)
        if table.head is not None:
            stack.callback(table.head.register_forward_hook(own(multiply)).remove)
        yield
