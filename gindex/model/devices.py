"""Between a host and its accelerator: copies that nothing waits for, and choices that need no answer from it.

Every value that Python looks at has to be waited for, and while it is, nothing new is begun.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def to_device(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device, behind what the device has been given to do."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":  # from memory that may be moved meanwhile, the copy would wait for all of that
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_host(tensors: Sequence[Tensor]) -> Callable[[], list[npt.NDArray[np.generic]]]:
    """Begin to copy tensors of one device to the host, and return what waits for them."""
    # Only CUDA says when a copy that isn't waited for is there.
    copies = [tensor.to("cpu", non_blocking=tensor.is_cuda) for tensor in tensors]
    done = torch.cuda.Event() if tensors[0].is_cuda else None
    if done is not None:
        done.record(torch.cuda.current_stream(tensors[0].device))  # which need not be the current device

    def wait() -> list[npt.NDArray[np.generic]]:
        if done is not None:
            done.synchronize()
        return [copy.numpy() for copy in copies]

    return wait


def kept_rows(x: Tensor, keep_N: Tensor) -> Tensor:
    """Return the rows of x [N, ...] that are kept, for sums over them.

    On a CPU the others are left out; elsewhere they are zeros, as it would have to be waited for how many there are.
    """
    if x.device.type == "cpu":
        return x if keep_N.all() else x[keep_N]
    return torch.where(keep_N.reshape(-1, *[1] * (x.dim() - 1)), x, 0.0)
