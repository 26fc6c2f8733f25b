"""Quantised bases of adapters: which are taken, and a check that gradients pass through their layers.

A base whose weights are stored in 8 or 4 bits is frozen, and its rounded weights are those that the adapter was trained
on. What it has to do is to hand gradients on: kernels that are made for inference alone lose them.

Axes: M rows, I layer inputs, O layer outputs.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from gindex.distribution import package_hint
from gindex.errors import MissingDependencyError, ModelError
from gindex.model.library_messages import first_line

METHODS = ("bitsandbytes", "torchao")
"""Packages whose quantised layers have a backward pass, by transformers' names of the methods."""

ROWS = 4
"""Rows that a layer is tried on."""

TRANSPOSE_ERROR = 0.1
"""Largest relative error of a backward pass that counts as the transpose of its forward pass. Layers that round their
inputs to 8 bits too are off by .01; a gradient that is lost, or another weight's, is off by 1."""


def is_quantised(settings: dict[str, Any], name: str, *, is_base: bool) -> bool:
    """Say whether a model is stored quantised.

    Args:
        settings: Its config.json.
        name: The model, as messages call it.
        is_base: Whether it is the base of an adapter.

    Raises:
        MissingDependencyError: The package of its method is not installed.
        ModelError: It is, and has no adapter, or by a method whose layers are not known to have a backward pass.
    """
    parts = [settings, *(value for value in settings.values() if isinstance(value, dict))]
    for key in ("quantization_config", "compression_config"):
        scheme = next((part[key] for part in parts if part.get(key)), None)
        if scheme is None:
            continue
        method = scheme.get("quant_method", "unnamed") if isinstance(scheme, dict) else "unnamed"
        if is_base and method in METHODS:
            _check_installed(name, method)
            return True
        if is_base:
            raise ModelError(
                field=name,
                expected=f"a base in 16 or 32 bits, or quantised by {' or '.join(METHODS)}",
                found=f"one quantised by {method} ({key} in config.json), whose kernels are made for inference alone",
                remedy="name the base before it was quantised with `base`",
            )
        raise ModelError(
            field=name,
            expected="weights of 16 or 32 bits",
            found=(
                f"quantised ones ({method}, {key} in config.json), whose gradients differ from those of the "
                "weights that were trained"
            ),
            remedy=(
                "give the model that was quantised, or write this one in 16 bits with transformers' "
                "dequantize() and save_pretrained()"
            ),
        )
    return False


def _check_installed(name: str, package: str) -> None:
    if find_spec(package) is None:
        raise MissingDependencyError(
            field=name,
            expected=f"{package}, which it is quantised by",
            found="none",
            remedy=package_hint(package),
        )


def is_quantised_weight(weight: Tensor) -> bool:
    """Say whether a weight is stored in integers, also where it passes for one of a floating-point format."""
    return not weight.dtype.is_floating_point or _has_parts(weight)


def plain_tensors(tensor: Tensor) -> Iterator[Tensor]:
    """Yield the tensors that hold the values of one: itself, or the parts that a quantised one is made of."""
    if not _has_parts(tensor):
        yield tensor
        return
    for part in tensor.__tensor_flatten__()[0]:  # type: ignore[attr-defined]
        yield from plain_tensors(getattr(tensor, part))


def _has_parts(tensor: Any) -> bool:
    return bool(is_traceable_wrapper_subclass(tensor))


def keep_differentiable(model: nn.Module) -> None:
    """Keep the quantised layers of a model to kernels that have a backward pass.

    On CPUs with AVX512-BF16 a 4-bit layer of bitsandbytes turns, at its first pass without gradients, to a kernel that
    has none, and stays with it.
    """
    layers: list[Any] = [module for _, module in _quantised_layers(model)]
    for layer in layers:
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False


def check_backward(name: str, model: nn.Module) -> None:
    """Check that the quantised layers of a model hand gradients on to their inputs.

    A layer is y = x W^T + b, so <dL/dx, x> = <g, y - b> for any g. One layer of each class and shape is tried, after a
    pass without gradients, which leads some layers to other kernels.

    Args:
        name: The model, as messages call it.
        model: The model, frozen.

    Raises:
        ModelError: The backward pass of a layer fails, or gives another gradient; names the layer.
    """
    tried = set()
    for layer, module in _quantised_layers(model):
        kind = type(module), type(module.weight), module.in_features, module.out_features
        if kind in tried:
            continue
        tried.add(kind)
        reason = _wrong_backward(module)
        if reason is not None:
            raise ModelError(
                field=name,
                expected="quantised layers that gradients pass through",
                found=f"that {reason} in {layer} ({type(module).__name__} of {type(module.weight).__name__})",
                remedy="use a base quantised otherwise (bitsandbytes 8 or 4 bit, torchao int8), or in 16 bits",
            )


def _quantised_layers(model: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and is_quantised_weight(module.weight):
            yield name, module


def _wrong_backward(module: nn.Linear) -> str | None:
    """Say what is wrong with the backward pass of a layer, None where nothing is."""
    generator = torch.Generator("cpu").manual_seed(0)
    dtype = module.weight.dtype if module.weight.dtype.is_floating_point else torch.float32
    x_MI, g_MO = (
        torch.randn(ROWS, width, generator=generator, dtype=torch.float32, device="cpu").to(module.weight.device, dtype)
        for width in (module.in_features, module.out_features)
    )
    x_MI.requires_grad_(True)
    try:
        with torch.no_grad():
            module(x_MI)
        with torch.enable_grad():
            y_MO = module(x_MI)
            gradients: Any = torch.autograd.grad(y_MO, x_MI, g_MO.to(y_MO.dtype), allow_unused=True)
    except RuntimeError as error:
        return f"the backward pass fails ({first_line(error)})"
    found_MI: Tensor | None = gradients[0]
    if found_MI is None:
        return "no gradient comes back"
    bias = 0 if module.bias is None else module.bias.double()
    terms_MO = g_MO.double() * (y_MO.detach().double() - bias)
    difference = (found_MI.double() * x_MI.detach().double()).sum() - terms_MO.sum()
    if not abs(float(difference)) <= TRANSPOSE_ERROR * float(terms_MO.norm()):
        return "the gradient is not that of the forward pass"
    return None
