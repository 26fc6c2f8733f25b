"""Layers by what their modules are, before any of them has run: their form, their name, and the weights they share.

Axes: I layer inputs, O layer outputs.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import nn

from gindex.model.inner_linears import InnerLinear
from gindex.model.layers import TrackedLayer, affine_parameters, part_count
from gindex.model.quantisation import is_quantised_weight
from gindex.model.sides import usual_block

_GROUP = re.compile(r"^(?:.*?\.)?\d+(?=\.|$)")


def layer_of(name: str, module: nn.Module, shape: tuple[int, int], source: str, *, has_bias: bool) -> TrackedLayer:
    """Return a layer, in the group that its name says, with the structure of its sides that their widths ask for.

    Args:
        name: Its name.
        module: The layer itself.
        shape: I without a bias, and O.
        source: Name of the first layer that reads the same.
        has_bias: Whether it has a bias.
    """
    match, (inputs, outputs) = _GROUP.match(name), (shape[0] + has_bias, shape[1])
    return TrackedLayer(
        name=name,
        module=module,
        inputs=inputs,
        outputs=outputs,
        has_bias=has_bias,
        group=match.group(0) if match else name,
        source=source,
        input_block=usual_block(inputs, outputs),
        output_block=usual_block(outputs, inputs),
    )


def shared_parameters(model: nn.Module) -> dict[int, list[str]]:
    """Return all names of each parameter of a model, by its identity."""
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
    return owners


def owner_of(parameter: str) -> str:
    """Return the layer that a parameter belongs to, also one that the layer's weight is computed from."""
    return parameter.rpartition(".")[0].partition(".parametrizations.")[0]


def parts_of(whole: TrackedLayer, count: int | None) -> Iterator[TrackedLayer]:
    """Return a layer for each expert of a fused weight or group of a convolution; the layer where it is one."""
    if count is None:
        yield whole
    for part in range(count or 0):
        name = f"{whole.name}.{part}"
        yield replace(whole, name=name, source=name, expert=part)


def copied(modules: Mapping[str, nn.Module], shared: Mapping[int, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Yield layers that have weight and bias in common with an earlier one, and no others have; with its name."""
    alike: dict[tuple[type, tuple[int, ...]], list[str]] = {}
    for name, module in modules.items():
        if not isinstance(module, InnerLinear) and part_count(module) is None:
            weights = tuple(id(parameter) for parameter in affine_parameters(module))
            alike.setdefault((type(module), weights), []).append(name)
    for (_kind, weights), (first, *others) in alike.items():
        owners = {owner_of(name) for weight in weights for name in shared[weight]}
        if others and owners == {first, *others}:
            yield from ((other, first) for other in others)


def reason_of_form(
    name: str, module: nn.Module, shared: Mapping[int, Sequence[str]], copies: Mapping[str, str]
) -> str | None:
    """Return the reason against a layer that shows before it is run."""
    parameters = affine_parameters(module)
    if name in copies:
        return f"tied to {copies[name]}, and tracked with it where that is"
    together = {copy for copy, first in copies.items() if first == name}
    tied = [
        other
        for p in parameters
        for other in shared[id(p)]
        if not _is_own(other, name, module) and owner_of(other) not in together
    ]
    if tied:
        return f"tied to {tied[0]}"
    if module._parameters.get("weight") is None or len(parameters) != 1 + (getattr(module, "bias", None) is not None):
        return "its weight is no parameter of its own but computed from others, as by a weight norm"
    if any(is_quantised_weight(parameter) for parameter in parameters):
        return f"its weight is quantised ({type(module).__name__} of {type(parameters[0]).__name__})"
    return None


def _is_own(parameter: str, name: str, module: nn.Module) -> bool:
    """Say whether a parameter of the model is the layer's under that name; one of a stand-in has other names."""
    return isinstance(module, InnerLinear) or parameter.rpartition(".")[0] == name
