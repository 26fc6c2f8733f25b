"""`nn.LSTM`, `nn.GRU` and `nn.RNN` of torch: the weights of their inputs and of their states.

A recurrence is run step by step. What the weight of states reads is known only then: so it is run once without
gradients, the stand-in is shown the states of all steps at once, and in a second run each step adds the stand-in's
output less itself, which is zero and has the output gradient.

Axes: N rows of the batch, T steps, I inputs, H states, M states before they are projected, G gates of all states.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from gindex.model.inner_linears import InnerLinear, Owner, OwnLinear

Cell = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""One step: gates of the input and of the state [N, G], and the memory [N, M], to a state [N, M] and the memory."""


def recurrent_owners(module: nn.Module) -> Iterator[Owner]:
    """Yield the owner of a recurrence's weights; nothing for any other module, or where weights are computed."""
    if type(module) not in (nn.LSTM, nn.GRU, nn.RNN):
        return
    weights: dict[str, Any] = module._parameters
    names = [name for names in module._all_weights for name in names]  # type: ignore[union-attr]
    if any(weights.get(name) is None for name in names):
        return
    linears: dict[str, InnerLinear] = {
        name: OwnLinear(weights[name], weights.get(name.replace("weight", "bias")))
        for name in names
        if name.startswith("weight")
    }
    yield Owner(module=module, forward=_run, linears=linears)


def _run(owner: Owner, plain: Callable[..., Any], sequences: Tensor | PackedSequence, hx: Any = None) -> Any:
    """A recurrence as torch computes it; that of one document without an axis for it runs as it is."""
    module: Any = owner.module
    if isinstance(sequences, Tensor) and sequences.dim() != 3:
        return plain(sequences, hx)
    x_NTX, read_TN1 = _by_row(sequences, batch_first=module.batch_first)
    given = _states(module, x_NTX, hx)
    last: list[tuple[Tensor, Tensor]] = []
    for layer in range(module.num_layers):
        outputs = []
        for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: 1 + module.bidirectional]:
            direction = _Direction(
                cell=_CELLS[module.mode],
                states=owner.linears[f"weight_hh{suffix}"],
                projection=owner.linears.get(f"weight_hr{suffix}"),
                read_TN1=read_TN1,
                is_reverse=suffix.endswith("reverse"),
            )
            gates_NTG = owner.linears[f"weight_ih{suffix}"](x_NTX)
            steps = direction.run(gates_NTG, given[len(last)])
            last.append((steps.state, steps.memory))
            outputs.append(steps.states_NTH)
        x_NTX = torch.cat(outputs, -1)
    states, memories = (torch.stack(of) for of in zip(*last, strict=True))
    output = _as_given(sequences, x_NTX, batch_first=module.batch_first)
    return output, (states, memories) if module.mode == "LSTM" else states


@dataclass(frozen=True, kw_only=True, eq=False)
class _Steps:
    """All steps of a direction, in the order of the sequence.

    Attributes:
        read_NTH: The state that each step reads.
        unprojected_NTM: The state that each gives, before a projection.
        states_NTH: The same behind it.
        state: The last one [N, H].
        memory: The last memory [N, M].
    """

    read_NTH: Tensor
    unprojected_NTM: Tensor
    states_NTH: Tensor
    state: Tensor
    memory: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class _Direction:
    """A layer of a recurrence in one direction.

    Attributes:
        cell: One step.
        states: The stand-in for the weight of states.
        projection: That for the projection of states, None where there is none.
        read_TN1: Which rows have each step, where their lengths differ; else None.
        is_reverse: Whether it runs from the end.
    """

    cell: Cell
    states: InnerLinear
    projection: InnerLinear | None
    read_TN1: Tensor | None
    is_reverse: bool

    def run(self, gates_NTG: Tensor, first: tuple[Tensor, Tensor]) -> _Steps:
        """Run all steps, and show the stand-ins what they read.

        Args:
            gates_NTG: Gates of the inputs.
            first: State [N, H] and memory [N, M] at the beginning.
        """
        with torch.no_grad():
            plain = self._steps(gates_NTG, first)
        of_states = _zero(self.states(plain.read_NTH))
        projected = None if self.projection is None else _zero(self.projection(plain.unprojected_NTM))
        return self._steps(gates_NTG, first, of_states, projected)

    def _steps(
        self,
        gates_NTG: Tensor,
        first: tuple[Tensor, Tensor],
        of_states: Tensor | None = None,
        projected: Tensor | None = None,
    ) -> _Steps:
        """Run all steps, with something added to what the two weights give: [N, T, G] and [N, T, H]."""
        (state, memory), count = first, gates_NTG.shape[1]
        read, unprojected, states = [state] * count, [memory] * count, [state] * count
        for t in reversed(range(count)) if self.is_reverse else range(count):
            read[t] = state
            gates_NG = self.states.forward(state)
            gates_NG = gates_NG if of_states is None else gates_NG + of_states[:, t]
            unprojected[t], next_memory = self.cell(gates_NTG[:, t], gates_NG, memory)
            next_state = unprojected[t]
            if self.projection is not None:
                next_state = self.projection.forward(next_state)
                next_state = next_state if projected is None else next_state + projected[:, t]
            if self.read_TN1 is not None:
                next_state = torch.where(self.read_TN1[t], next_state, state)
                next_memory = torch.where(self.read_TN1[t], next_memory, memory)
            state, memory = next_state, next_memory
            states[t] = state
        return _Steps(
            read_NTH=torch.stack(read, 1),
            unprojected_NTM=torch.stack(unprojected, 1),
            states_NTH=torch.stack(states, 1),
            state=state,
            memory=memory,
        )


def _zero(output: Tensor) -> Tensor:
    return output - output.detach()


def _lstm(of_input: Tensor, of_state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = (of_input + of_state).chunk(4, -1)
    memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
    return o.sigmoid() * memory.tanh(), memory


def _gru(of_input: Tensor, of_state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    (r, z, n), (r_s, z_s, n_s) = of_input.chunk(3, -1), of_state.chunk(3, -1)
    z, n = (z + z_s).sigmoid(), (n + (r + r_s).sigmoid() * n_s).tanh()
    state = (1 - z) * n + z * memory
    return state, state


def _plain(activation: Callable[[Tensor], Tensor]) -> Cell:
    def step(of_input: Tensor, of_state: Tensor, _memory: Tensor) -> tuple[Tensor, Tensor]:
        state = activation(of_input + of_state)
        return state, state

    return step


_CELLS: dict[str, Cell] = {"LSTM": _lstm, "GRU": _gru, "RNN_TANH": _plain(torch.tanh), "RNN_RELU": _plain(torch.relu)}


def _by_row(sequences: Tensor | PackedSequence, *, batch_first: bool) -> tuple[Tensor, Tensor | None]:
    """The inputs [N, T, I], and which rows have each step [T, N, 1] where lengths differ."""
    if isinstance(sequences, Tensor):
        return (sequences if batch_first else sequences.transpose(0, 1)), None
    x_NTI, lengths_N = pad_packed_sequence(sequences, batch_first=True)
    steps_T11 = torch.arange(x_NTI.shape[1], device=x_NTI.device)[:, None, None]
    return x_NTI, steps_T11 < lengths_N.to(x_NTI.device)[:, None]


def _as_given(sequences: Tensor | PackedSequence, x_NTX: Tensor, *, batch_first: bool) -> Tensor | PackedSequence:
    """States [N, T, X] in the form in which the inputs came."""
    if isinstance(sequences, Tensor):
        return x_NTX if batch_first else x_NTX.transpose(0, 1)
    _, lengths_N = pad_packed_sequence(sequences)
    order = sequences.sorted_indices
    if order is not None:
        x_NTX, lengths_N = x_NTX[order], lengths_N[order.to(lengths_N.device)]
    data = pack_padded_sequence(x_NTX, lengths_N, batch_first=True).data
    return PackedSequence(data, sequences.batch_sizes, order, sequences.unsorted_indices)


def _states(module: Any, like_NTI: Tensor, hx: Any) -> list[tuple[Tensor, Tensor]]:
    """State [N, H] and memory [N, M] at the beginning, of each layer and direction."""
    count = module.num_layers * (1 + module.bidirectional)
    sides = module.proj_size or module.hidden_size, module.hidden_size
    if hx is None:
        states, memories = (like_NTI.new_zeros(count, len(like_NTI), side) for side in sides)
    else:
        states, memories = hx if module.mode == "LSTM" else (hx, hx)
    return list(zip(states, memories, strict=True))
