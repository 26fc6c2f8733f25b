"""An accelerator: its memory; copies between it and its host, and a choice of rows, without waiting for it.

Python has to wait for every value that it looks at, and meanwhile gives the accelerator nothing new to do.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

DEVICE_SHARE = 0.9
"""Share of an accelerator's memory that is reckoned with: the rest is lost between blocks, or taken by its driver."""


def device_bytes(device: torch.device) -> int | None:
    """Memory of an accelerator that may be reckoned with; None of a host, whose memory is not all of this process."""
    if device.type != "cuda":
        return None
    return int(DEVICE_SHARE * torch.cuda.get_device_properties(device).total_memory)


def to_device(values: npt.NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device, queued behind the work that the device already has."""
    tensor = torch.from_numpy(values)
    if device.type == "cuda":  # from memory that is not pinned, the copy would wait for all of that
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def to_host(tensors: Sequence[Tensor]) -> Callable[[], list[npt.NDArray[np.generic]]]:
    """Begin to copy tensors of one device to the host; return a function that waits for the copies."""
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

    On a CPU the others are left out; elsewhere they become zeros, since their number would have to be waited for.
    """
    if x.device.type == "cpu":
        return x if keep_N.all() else x[keep_N]
    return torch.where(keep_N.reshape(-1, *[1] * (x.dim() - 1)), x, 0.0)
