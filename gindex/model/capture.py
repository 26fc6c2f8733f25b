"""Hooks on tracked layers: their activations and output gradients in a pass.

Every gradient comes from here. Weights stay frozen: of a parameter that is a layer by itself each document has a copy
(`expansion`), and no other weight gradient is formed. Where a layer's inputs need no gradient, its output becomes a
leaf, and the backward pass ends at the first tracked layer.

Elsewhere, hooks try a model out before it is used: `tracking`, `head` and `gradient_check` here, and the measuring of
memory and time in `gindex.build`; or move its weights along a direction, in `gindex.lab.refine.tangents`.

Axes: N documents, T tokens (of a convolution: output positions), I layer inputs, O layer outputs.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gindex.errors import ShapeError, TrackedLayerError
from gindex.model.checkpointing import is_checkpointed, keep
from gindex.model.convolution import Convolution, patches, positions_last
from gindex.model.expansion import Expansion, KnownRoles, OwnParameter
from gindex.model.inner_linears import ExpertLinears, Pairs, opened
from gindex.model.isolation import alone, own
from gindex.model.layers import TrackedLayer, layer_input
from gindex.model.loss_scaling import LossScaling
from gindex.model.observer import Observer, Uses
from gindex.model.routes import Routes
from gindex.model.tables import Table, observed
from gindex.progress import pause


def observe(
    layers: Sequence[TrackedLayer], observer: Observer, documents: int, losses: Callable[[], Tensor], texts: int = 1
) -> Tensor:
    """Run one forward and backward pass under an observer, alone and in a neutral state: see `passes`.

    A layer that the losses do not depend on has a zero gradient: the observer sees no token of it, T = 0. So it is
    with an expert that no token is routed to.

    Args:
        layers: Layers to observe.
        observer: Called back for each of them, forward and backward.
        documents: N, the number of documents in the batch.
        losses: Runs the model and returns the summed loss [N] of each document, in nats.
        texts: Rows of the batch that each document has, one after the other; the observer sees their tokens joined.

    Returns:
        The losses [N], detached.

    Raises:
        ShapeError: A layer's first axis is not the document axis.
        TrackedLayerError: A layer does not run as often as when it was tried, or runs without gradients.
    """
    scaling = LossScaling(layers, documents)
    with alone(layers[0].place):
        while True:
            running = _Pass(observer, documents, texts, scaling)
            losses_N = _run(layers, running, losses)
            if not scaling.lowers():
                break
    for layer in layers:
        if layer.name not in running.reached and not scaling.is_shown(layer):
            weight = next(layer.module.parameters())
            a_NTI = weight.new_zeros(documents, 0, layer.inputs - layer.has_bias)
            kept = observer.activations(layer, a_NTI)
            observer.gradients(layer, kept, weight.new_zeros(documents, 0, layer.outputs))
    return losses_N


def _run(layers: Sequence[TrackedLayer], running: "_Pass", losses: Callable[[], Tensor]) -> Tensor:
    """Run one forward and backward pass; return the losses [N], detached."""
    with _hooks(layers, running):
        with _expansion(layers, running):
            losses_N = losses()
        running.end_forward(layers)
        running.observer.losses(losses_N.detach())
        if losses_N.requires_grad:
            running.scaling.scaled(losses_N).sum().backward()
        running.show_uses(layers)
    return losses_N.detach()


class _Pass:
    """The state of a pass while it runs.

    Attributes:
        observer: Sees the layers.
        documents: N.
        texts: Rows of each document.
        uses: Those of layers that are observed at the end.
        called: How often layers have run forward; in the backward pass how often again in a checkpointed block.
        tokens: T as the layers in `TrackedLayer.beside` read it, by their identity.
        scaling: Of the losses, where gradients pass float16.
        reached: Layers whose output gradients have come.
        routes: Where pairs of tokens and experts lie, the last that were met: the weights of a block share them.
    """

    def __init__(self, observer: Observer, documents: int, texts: int, scaling: LossScaling) -> None:
        self.observer, self.documents, self.texts, self.scaling = observer, documents, texts, scaling
        self.uses = Uses()
        self.called = Counter[str]()
        self.tokens: dict[int, int] = {}
        self.reached: set[str] = set()
        self.routes: tuple[Pairs, Routes] | None = None
        self.is_forward = True

    def call(self, layer: TrackedLayer, rows: int, shape: tuple[int, ...]) -> None:
        """Check that a layer may run now, on an input of so many rows.

        Raises:
            ShapeError: The rows are not those of the documents.
            TrackedLayerError: It has run already, or no gradient would come back.
        """
        if self.called[layer.name] >= layer.calls:
            raise _unlike(layer, _calls(layer.calls), "another one")
        if not torch.is_grad_enabled():
            raise _unlike(layer, "a call with gradients", "one without")
        self.called[layer.name] += 1
        if layer.alone:
            if self.documents * self.texts > 1:
                raise ShapeError(
                    field=layer.name,
                    expected="one document with pictures in a batch",
                    found=f"{self.documents * self.texts} texts",
                )
            return
        tokens = 1 if layer.beside is None else self.tokens.get(id(layer.beside), 0)
        if rows != self.documents * self.texts * tokens:
            raise ShapeError(
                field=layer.name,
                expected=f"activations of {self.documents * self.texts} documents",
                found=f"shape {shape}",
                remedy="the layer mixes documents and cannot be tracked",
            )

    def show(self, layer: TrackedLayer, kept: Any, g_NTO: Tensor) -> None:
        """Show the observer the gradients of a layer, unless those of a document have overflowed and come again."""
        self.reached.add(layer.name)
        if layer.is_repeated:
            self.uses.gradients(layer, kept, self.scaling.unscaled(g_NTO))
        elif self.scaling.shows(layer, g_NTO):
            self.observer.gradients(layer, kept, self.scaling.unscaled(g_NTO))

    def show_uses(self, layers: Iterable[TrackedLayer]) -> None:
        """Show the observer the layers whose uses were gathered, likewise."""
        for layer, tokens, a_NTI, g_NTO in self.uses.taken(layers):
            if not self.scaling.is_shown(layer) and self.scaling.shows(layer, a_NTI, g_NTO):
                self.observer.used(layer, tokens)
                self.observer.gradients(layer, self.observer.activations(layer, a_NTI), g_NTO)

    def end_forward(self, layers: Sequence[TrackedLayer]) -> None:
        """Check that all layers have run; from now on they run again, where their block is checkpointed.

        Raises:
            TrackedLayerError: One has not: its gradient is zero, or its weights are used by another way.
        """
        for layer in layers:
            if self.called[layer.name] < layer.calls and not layer.alone:
                raise _unlike(layer, _calls(layer.calls), str(self.called[layer.name] or "none"))
        self.called.clear()
        self.is_forward = False


def _calls(count: int) -> str:
    return "one call" if count == 1 else f"{count} calls"


def _unlike(layer: TrackedLayer, expected: str, found: str) -> TrackedLayerError:
    return TrackedLayerError(
        field=layer.name,
        expected=f"{expected} in a pass, as when the model was tried",
        found=found,
        remedy=f"its gradients would be wrong: leave it out, as with `untrack` {layer.name}",
    )


def by_module(layers: Iterable[TrackedLayer]) -> list[list[TrackedLayer]]:
    """Return the layers of each module: one, or the experts of a fused weight, or the groups of a convolution."""
    found: dict[int, list[TrackedLayer]] = {}
    for layer in layers:
        found.setdefault(id(layer.module), []).append(layer)
    return list(found.values())


@contextmanager
def _hooks(layers: Sequence[TrackedLayer], running: _Pass) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(opened(layer.module for layer in layers))
        for layer in layers:
            if isinstance(layer.module, Table):
                stack.enter_context(_table_hooks(layer, layer.module, running))
        for those in by_module(layer for layer in layers if not isinstance(layer.module, OwnParameter | Table)):
            hook = own(_forward_hook(those, running))
            for use in (those[0].module, *those[0].copies):
                stack.callback(use.register_forward_hook(hook, with_kwargs=True).remove)
        for module in {id(layer.beside): layer.beside for layer in layers}.values():
            if module is not None:
                count = own(_token_hook(running))
                stack.callback(module.register_forward_pre_hook(count, with_kwargs=True).remove)
        yield


def _table_hooks(layer: TrackedLayer, table: Table, running: _Pass) -> AbstractContextManager[None]:
    """Gather the uses of a table."""

    def seen(a_NTH: Tensor, g_NTV: Tensor) -> None:
        pause()
        running.reached.add(layer.name)
        running.uses.gradients(layer, a_NTH, g_NTV)

    rows = running.documents * running.texts
    return observed(table, running.documents, rows, partial(running.call, layer), seen, running.scaling.unscaled)


@contextmanager
def _expansion(layers: Iterable[TrackedLayer], running: _Pass) -> Iterator[None]:
    """Show the observer the gradients of parameters that are layers by themselves."""
    parameters = {layer.name: layer.module for layer in layers if isinstance(layer.module, OwnParameter)}
    if not parameters:
        yield
        return

    by_name = {layer.name: layer for layer in layers}

    def done(name: str, g_RP: Tensor) -> None:
        pause()
        layer, g_N1P = by_name[name], g_RP.unflatten(0, (running.documents, -1)).sum(1, keepdim=True)
        if not running.scaling.is_shown(layer):
            kept = running.observer.activations(layer, g_N1P.new_ones(running.documents, 1, 1))
            running.show(layer, kept, g_N1P)

    with Expansion(parameters, running.documents * running.texts, KnownRoles(parameters=parameters), done) as expansion:
        yield
    running.called.update(expansion.used)


def _token_hook(running: _Pass) -> Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor]], None]:
    def count(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        running.tokens[id(module)] = layer_input(args, kwargs).shape[1]

    return count


@dataclass(frozen=True, kw_only=True)
class _Part:
    """A layer's part of a module's input and output: all of it, an expert's tokens, or a group's channels."""

    layer: TrackedLayer
    cut: Callable[[Tensor], Tensor]
    positions_NT: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A call of a module, taken apart into its layers: documents [N, T, ...] of each.

    Attributes:
        inputs: Prepares the input, of which each part then has its cut.
        outputs: Prepares the output in the same way.
        parts: The layers; experts that get no token are left out.
    """

    inputs: Callable[[Tensor], Tensor]
    outputs: Callable[[Tensor], Tensor]
    parts: Sequence[_Part]

    @classmethod
    def of(
        cls, layers: Sequence[TrackedLayer], args: tuple[Any, ...], kwargs: dict[str, Any], running: _Pass
    ) -> "_Call":
        """Check a call, and take it apart."""
        x, documents = layer_input(args, kwargs), running.documents
        if not isinstance(layers[0].module, ExpertLinears):
            for layer in layers:
                running.call(layer, x.shape[0], tuple(x.shape))
            inputs = partial(by_position, layers[0], documents=documents)
            outputs = partial(_by_document, documents=documents)
            parts = [_Part(layer=layer, cut=partial(channels, layer)) for layer in layers]
            return cls(inputs=inputs, outputs=outputs, parts=parts)
        pairs: Pairs = args[1]
        for layer in layers:
            running.call(layer, pairs.batch or pairs.tokens, tuple(x.shape))
        if running.routes is None or running.routes[0] is not pairs:
            running.routes = pairs, Routes.of(pairs, documents, x.device)
        routes = running.routes[1]
        parts = [
            _Part(layer=layer, cut=partial(routes.by_document, expert), positions_NT=routes.positions(expert))
            for layer in layers
            if (expert := layer.expert) is not None and pairs.sizes[expert]
        ]
        return cls(inputs=routes.spread, outputs=routes.spread, parts=parts)

    def observed(self, running: _Pass, a: Tensor) -> Iterator[tuple[_Part, Any]]:
        """Show the activations of each part; with what the observer keeps of them."""
        prepared = self.inputs(a)
        for part in self.parts:
            if running.scaling.is_shown(part.layer):
                continue
            observer = running.uses if part.layer.is_repeated else running.observer
            if part.positions_NT is not None:
                observer.routed(part.layer, part.positions_NT)
            yield part, observer.activations(part.layer, part.cut(prepared))


def _forward_hook(
    layers: Sequence[TrackedLayer], running: _Pass
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Tensor], Tensor]:
    def forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        pause()
        if not running.is_forward and not is_checkpointed():  # the model's own checkpoint, which was seen forward
            return output if output.requires_grad else output.requires_grad_(True).clone()
        a = layer_input(args, kwargs).detach().to(output.dtype)  # some layers narrow what they read themselves
        call = _Call.of(layers, args, kwargs, running)
        load = _keep(call, running, a)

        def backward(g: Tensor) -> None:
            pause()  # on an accelerator another thread comes here, which must never stand still
            g = call.outputs((positions_last(g) if isinstance(module, Convolution) else g).detach())
            for part, kept in load():
                running.show(part.layer, kept, part.cut(g))

        if output.requires_grad:
            output.register_hook(backward)
            return output
        leaf = output.requires_grad_(True)
        leaf.register_hook(backward)
        return leaf.clone()  # what follows may work in place, which a leaf does not allow

    return forward


def _keep(call: _Call, running: _Pass, a: Tensor) -> Callable[[], Iterable[tuple[_Part, Any]]]:
    """Return a function that gives the observer's view of the activations, computed again in a checkpointed block."""
    if is_checkpointed():
        take = keep(a)
        return lambda: call.observed(running, take())
    kept = list(call.observed(running, a))
    return lambda: kept


def by_position(layer: TrackedLayer, x: Tensor, documents: int) -> Tensor:
    """Return a layer's input as [N, T, I]: T tokens, patches, or 1 where a document has one row."""
    if isinstance(layer.module, Convolution):
        x = patches(layer.module, x)
    return _by_document(x, documents)


def channels(layer: TrackedLayer, x_NTX: Tensor) -> Tensor:
    """Return a layer's part of a module's inputs or outputs by position: all, or those of a convolution's group."""
    if layer.expert is None or not isinstance(layer.module, Convolution):
        return x_NTX
    return x_NTX.chunk(layer.module.groups, -1)[layer.expert]


def _by_document(x: Tensor, documents: int) -> Tensor:
    return x.reshape(documents, -1, x.shape[-1])


def append_one(a_NTI: Tensor, layer: TrackedLayer) -> Tensor:
    """Append the constant 1 of the bias to activations [..., I - 1] where the layer has one."""
    if not layer.has_bias:
        return a_NTI
    return torch.cat([a_NTI, a_NTI.new_ones(*a_NTI.shape[:-1], 1)], dim=-1)
