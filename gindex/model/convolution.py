"""Conv2d as an affine map of patches: each output position reads one patch, as a token is read by a Linear layer.

Axes: N documents, C channels, H and W height and width of the input, T output positions, I patch values, O output
channels.
"""

from torch import Tensor, nn
from torch.nn.functional import pad, unfold


def patches(layer: nn.Conv2d, x_NCHW: Tensor) -> Tensor:
    """Return the patches [N, T, I] that a convolution reads, in the order of its flattened weight [O, I].

    Stride, dilation and every kind of padding are the layer's own.

    Args:
        layer: A convolution of one group.
        x_NCHW: Its input.
    """
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = pad(x_NCHW, layer._reversed_padding_repeated_twice, mode=mode)
    # mypy takes the layer's pairs for tuples of any length.
    kernel, dilation, stride = ((v[0], v[1]) for v in (layer.kernel_size, layer.dilation, layer.stride))
    return unfold(padded, kernel, dilation=dilation, stride=stride).mT


def positions_last(g_NOHW: Tensor) -> Tensor:
    """Return the output gradients [N, O, H, W] of a convolution by position, [N, T, O]."""
    return g_NOHW.flatten(2).mT


def patch_geometry(layer: nn.Conv2d) -> str:
    """Describe how a convolution cuts its input; layers that cut the same input alike read the same patches."""
    return f"{layer.kernel_size} {layer.stride} {layer.padding} {layer.dilation} {layer.padding_mode}"
