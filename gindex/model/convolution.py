"""Convolutions as affine maps of patches: each output position reads one patch, as a token is read by a Linear layer.

A convolution in groups is one affine map for each of them, of its own channels' patches.

Axes: N documents, C channels, T output positions, G groups, I patch values of a group, O output channels of a group;
X stands for the one, two or three axes of space.
"""

import math

from torch import Tensor, nn
from torch.nn.functional import pad

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

MOST_GROUPS = 64
"""Most groups that are affine maps each: beyond, as in depthwise convolutions, they are many and small."""


def is_affine(layer: Convolution) -> bool:
    """Say whether a convolution is one affine map, or a few, one for each of its groups."""
    return layer.groups == 1 or (layer.groups <= MOST_GROUPS and layer.in_channels > layer.groups)


def patch_shape(layer: Convolution) -> tuple[int, int]:
    """Return (I without bias, O) of a convolution, or of each group of one."""
    return layer.in_channels // layer.groups * math.prod(layer.kernel_size), layer.out_channels // layer.groups


def patches(layer: Convolution, x_NCX: Tensor) -> Tensor:
    """Return the patches [N, T, G * I] that a convolution reads, in the order of its weight [G * O, I...], flattened.

    Stride, dilation and every kind of padding are the layer's own.

    Args:
        layer: A convolution.
        x_NCX: Its input.
    """
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = pad(x_NCX, layer._reversed_padding_repeated_twice, mode=mode)
    spaces = len(layer.kernel_size)
    for axis, (size, step, stride) in enumerate(zip(layer.kernel_size, layer.dilation, layer.stride, strict=True), 2):
        x = x.unfold(axis, (size - 1) * step + 1, stride)[..., ::step]
    # [N, C, positions..., kernel...] to [N, positions..., C, kernel...]
    return x.movedim(1, spaces + 1).flatten(1, spaces).flatten(2)


def positions_last(g_NOX: Tensor) -> Tensor:
    """Return the output gradients [N, G * O, ...] of a convolution by position, [N, T, G * O]."""
    return g_NOX.flatten(2).mT


def convolved(layer: Convolution, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution of an input by weight and bias, whatever the module itself computes."""
    kind = next(kind for kind in (nn.Conv1d, nn.Conv2d, nn.Conv3d) if isinstance(layer, kind))
    output: Tensor = kind._conv_forward(layer, x, weight, bias)  # type: ignore[arg-type]
    return output


def patch_geometry(layer: Convolution) -> str:
    """Describe how a convolution cuts its input; layers that cut the same input alike read the same patches."""
    return f"{layer.kernel_size} {layer.stride} {layer.padding} {layer.dilation} {layer.padding_mode}"
