"""The device that a model runs on, and whether 16-bit products are fast there."""

import torch

from gindex.errors import ModelError
from gindex.model.library_messages import first_line


def pick_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda`, `cuda:1`, ... into a device that is there.

    Raises:
        ModelError: The device is unknown or absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.ones(1, dtype=torch.float32, device=device).item()  # the device `meta` makes tensors without values
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            field="device",
            expected="one that is usable here",
            found=f"{name!r} ({first_line(error)})",
            remedy="use `device` cpu or auto",
        ) from error
    return device


def fast_bfloat16(device: torch.device) -> bool:
    """Say whether bfloat16 products are faster than float32 ones.

    Of x86 processors those with AMX tiles are. Where bfloat16 is emulated it is many times slower, and with the vector
    instructions of AVX-512 alone it was 1.7 times slower.
    """
    if device.type != "cpu":
        return True
    if torch.cpu._is_avx2_supported():  # true of x86 alone
        return torch.cpu._is_amx_tile_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
