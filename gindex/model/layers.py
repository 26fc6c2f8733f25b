"""Which layers gindex takes gradients of, and why it leaves the others.

A layer is tracked when it is an affine map (of features, or of a convolution's patches) whose inputs keep the document
axis and which runs once in a forward pass.
What is left out is named with its reason and its share of the parameters, never skipped in silence.

Axes: N documents, T tokens, I layer inputs (with the appended 1 of a bias), O layer outputs.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gindex.errors import NothingToTrackError
from gindex.model.convolution import patch_geometry
from gindex.model.passes import alone, own, share_turns

MAX_WIDTH = 32768
"""Widest layer side in features: wider ones (output heads over a vocabulary) have no affordable eigendecomposition."""

PROBE_DOCUMENTS = 5
"""Documents in the probing batch; a layer whose input has another first axis mixes documents."""

_GROUP = re.compile(r"^(?:.*?\.)?\d+(?=\.|$)")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrackedLayer:
    """One affine layer whose document gradients are taken.

    Attributes:
        name: Qualified module name.
        module: The layer itself.
        inputs: I, counting the appended 1 of a bias.
        outputs: O.
        has_bias: Whether activations get a 1 appended.
        group: Name of the layer group (transformer block) whose slice of the vector it shares.
        source: Name of the first tracked layer that reads the same activations (1 included); these share A and Q_A.
    """

    name: str
    module: nn.Module
    inputs: int
    outputs: int
    has_bias: bool
    group: str
    source: str

    @property
    def parameters(self) -> int:
        """Number of weights, bias included."""
        return self.inputs * self.outputs


@dataclass(frozen=True, kw_only=True)
class UntrackedWeight:
    """A parameter that takes no part, with the reason."""

    name: str
    parameters: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class LayerTable:
    """The tracked layers in forward order, and every weight that is not tracked."""

    layers: tuple[TrackedLayer, ...]
    untracked: tuple[UntrackedWeight, ...]

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the layer groups in forward order."""
        return tuple(dict.fromkeys(layer.group for layer in self.layers))

    @property
    def share(self) -> float:
        """Share of the model's parameters that is tracked, in [0, 1]."""
        tracked = sum(layer.parameters for layer in self.layers)
        return tracked / (tracked + sum(weight.parameters for weight in self.untracked))


def track_layers(model: nn.Module, probe: Callable[[], object]) -> LayerTable:
    """Find the layers to track by looking at the model and at one forward pass.

    Args:
        model: The model; its weights are frozen here.
        probe: Runs one forward pass on `PROBE_DOCUMENTS` documents.

    Raises:
        NothingToTrackError: No layer can be tracked.
    """
    share_turns(model)
    model.requires_grad_(False)
    modules = dict(model.named_modules())
    shapes = {name: shape for name, module in modules.items() if (shape := _affine_shape(module)) is not None}
    candidates = {name: modules[name] for name in shapes}
    with alone(model):
        calls = _watch(candidates, probe)
    shared = _shared_parameters(model)
    reasons: dict[str, str] = {}
    layers: list[TrackedLayer] = []
    sources: dict[tuple[int, bool, str], str] = {}
    for name in sorted(candidates, key=lambda n: calls[n].order):
        reason = _reason_against(name, candidates[name], shapes[name], calls[name], shared)
        if reason:
            reasons[name] = reason
        else:
            has_bias = getattr(candidates[name], "bias", None) is not None
            cut = patch_geometry(module) if isinstance(module := candidates[name], nn.Conv2d) else ""
            source = sources.setdefault((calls[name].input_identity, has_bias, cut), name)
            layers.append(_tracked(name, candidates[name], shapes[name], source, has_bias))
    if not layers:
        listed = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:5])
        raise NothingToTrackError(
            f"{type(model).__name__}: expected at least one Linear, Conv1D or Conv2d layer to track, found none"
            f"{f' ({listed})' if listed else ''}; use a model with dense or convolutional layers"
        )
    return LayerTable(layers=tuple(layers), untracked=tuple(_untracked(model, layers, reasons, shared)))


def layer_input(args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Tensor:
    """Return the one input of an affine layer, however it was passed."""
    return args[0] if args else next(iter(kwargs.values()))


@dataclass
class _Calls:
    """What one layer was seen to do in the probing pass."""

    count: int = 0
    order: int = 1 << 62
    input_identity: int = 0
    documents: int = 0


def _watch(candidates: dict[str, nn.Module], probe: Callable[[], object]) -> dict[str, _Calls]:
    calls = {name: _Calls() for name in candidates}
    inputs: list[Tensor] = []  # kept alive, so that an identity is never reused

    def watcher(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], dict[str, Tensor], object], None]:
        def watch(_module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], _output: object) -> None:
            seen = calls[name]
            x = layer_input(args, kwargs)
            seen.count += 1
            seen.order = min(seen.order, len(inputs))
            seen.input_identity, seen.documents = id(x), x.shape[0] if x.dim() > 1 else -1
            inputs.append(x)

        return watch

    handles = [
        module.register_forward_hook(own(watcher(name)), with_kwargs=True) for name, module in candidates.items()
    ]
    try:
        with torch.no_grad():
            probe()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _affine_shape(module: nn.Module) -> tuple[int, int] | None:
    """Return (I without bias, O) of an affine layer, None for any other module. A convolution reads patches."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, Conv1D):
        return module.nx, module.nf
    if isinstance(module, nn.Conv2d):
        return module.in_channels // module.groups * math.prod(module.kernel_size), module.out_channels
    return None


def _tracked(name: str, module: nn.Module, shape: tuple[int, int], source: str, has_bias: bool) -> TrackedLayer:
    match = _GROUP.match(name)
    return TrackedLayer(
        name=name,
        module=module,
        inputs=shape[0] + has_bias,
        outputs=shape[1],
        has_bias=has_bias,
        group=match.group(0) if match else name,
        source=source,
    )


def _shared_parameters(model: nn.Module) -> dict[int, list[str]]:
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    return owners


def _reason_against(
    name: str, module: nn.Module, shape: tuple[int, int], calls: _Calls, shared: dict[int, list[str]]
) -> str | None:
    tied = [
        other for p in module.parameters(recurse=False) for other in shared[id(p)] if other.rpartition(".")[0] != name
    ]
    if tied:
        return f"tied to {tied[0]}"
    if isinstance(module, nn.Conv2d) and module.groups > 1:
        return f"a convolution in {module.groups} groups, not one affine map"
    if max(shape) > MAX_WIDTH:
        return f"{max(shape):,} wide, above the limit of {MAX_WIDTH:,} for an eigendecomposition"
    if calls.count == 0:
        return "not called in a forward pass"
    if calls.count > 1:
        return f"called {calls.count} times in one forward pass"
    if calls.documents != PROBE_DOCUMENTS:
        return "its input mixes documents (a mixture-of-experts layer?)"
    return None


def _untracked(
    model: nn.Module, layers: list[TrackedLayer], reasons: dict[str, str], shared: dict[int, list[str]]
) -> Iterator[UntrackedWeight]:
    tracked = {id(p) for layer in layers for p in layer.module.parameters(recurse=False)}
    modules = dict(model.named_modules())
    for identity, names in shared.items():
        if identity in tracked:
            continue
        owner = names[0].rpartition(".")[0]
        reason = reasons.get(owner) or f"{type(modules[owner]).__name__} is not a Linear, Conv1D or Conv2d layer"
        if len(names) > 1:
            reason = f"shared by {', '.join(names)}"
        yield UntrackedWeight(name=names[0], parameters=model.get_parameter(names[0]).numel(), reason=reason)
