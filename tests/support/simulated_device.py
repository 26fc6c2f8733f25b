"""An accelerator that is simulated: its tensors are ones of the CPU in disguise, and don't mix with those of the host.

Products of tensors of both sides are refused, as on a GPU, and what goes from one side to the other is counted, as is
every value that the host has to wait for. It is installed for a whole process, so it has one of its own: see `pool`.

Source: torch's device for Python backends (`torch.utils.backend_registration`), which is experimental.
"""

import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor
from torch.__future__ import set_swap_module_params_on_conversion
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = "simulated:0"
_HOST = torch.device("cpu")
_WAITED_FOR = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal", "aten::nonzero", "aten::masked_select")

crossed: Counter[str] = Counter()
"""How often something went `to device` or `to host`, or was `waited for`."""


class Simulated(Tensor):
    """A tensor of the device; `raw` is the one of the CPU with the same values and strides."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: Tensor) -> "Simulated":
        made = torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=DEVICE
        )
        made.raw = raw
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})

    def tolist(self) -> Any:
        crossed["to host"] += 1
        return self.raw.tolist()

    def numpy(self, **_options: Any) -> Any:
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy")

    def untyped_storage(self) -> Any:
        return self.raw.untyped_storage()


def install() -> None:
    """Make the device known to torch, in this process, for good."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend("simulated")
    set_swap_module_params_on_conversion(True)  # keeps tied weights tied
    library = torch.library.Library("aten", "IMPL")
    library.impl("empty.memory_format", _empty, "PrivateUse1")
    library.impl("empty_strided", _empty_strided, "PrivateUse1")
    library.impl("eye", _eye, "PrivateUse1")  # torch's own makes an empty tensor and then resizes it
    library.impl("_copy_from", _copy, "PrivateUse1")
    library.impl("_efficientzerotensor", _zeros, "PrivateUse1")
    globals()["_library"] = library  # what it holds ends with it


def pool() -> ProcessPoolExecutor:
    """Return a process that has the device."""
    return ProcessPoolExecutor(1, get_context("spawn"), install)


def _empty(size: Any, *, dtype: torch.dtype | None = None, **_options: Any) -> Tensor:
    return Simulated(torch.empty(size, dtype=dtype or torch.get_default_dtype()))


def _empty_strided(size: Any, stride: Any, *, dtype: torch.dtype | None = None, **_options: Any) -> Tensor:
    return Simulated(torch.empty_strided(size, stride, dtype=dtype or torch.get_default_dtype()))


def _zeros(size: Any, *, dtype: torch.dtype | None = None, **_options: Any) -> Tensor:
    return Simulated(torch.zeros(size, dtype=dtype))


def _eye(size: int, *, dtype: torch.dtype | None = None, **_options: Any) -> Tensor:
    return Simulated(torch.eye(size, dtype=dtype))


def _copy(source: Tensor, target: Tensor, _non_blocking: bool = False) -> Tensor:
    if isinstance(source, Simulated) != isinstance(target, Simulated):
        crossed["to device" if isinstance(target, Simulated) else "to host"] += 1
    _raw(target).copy_(_raw(source))
    return target


def _raw(x: Any) -> Any:
    if isinstance(x, Simulated):
        return x.raw
    return _HOST if isinstance(x, torch.device) and x.type == "simulated" else x


def _run(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = operation.name()
    if name == "aten::copy_":
        return _copy(args[1], args[0])
    if name == "aten::_to_copy":
        return _converted(operation, args[0], kwargs)
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    own = [x for x in tensors if isinstance(x, Simulated)]
    foreign = [x for x in tensors if not isinstance(x, Simulated) and x.dim()]
    if own and foreign:
        error = f"{name}: expected all tensors on {DEVICE}, found one of shape {tuple(foreign[0].shape)} on the CPU"
        print(error, file=sys.stderr)  # raised within a backward pass it ends the process, and is not seen
        raise RuntimeError(error)
    by_mask = name == "aten::index.Tensor" and any(x.dtype == torch.bool for x in args[1] if x is not None)
    if name in _WAITED_FOR or by_mask:
        crossed["waited for"] += 1
    found = operation(*tree_map(_raw, args), **tree_map(_raw, kwargs))
    device = kwargs.get("device")
    if not own and (device is None or torch.device(device).type != "simulated"):
        return found
    return tree_map(lambda x: _disguised(x, own), found)


def _converted(operation: Any, x: Tensor, kwargs: dict[str, Any]) -> Tensor:
    target = torch.device(kwargs.get("device") or x.device)
    raw: Tensor = operation(_raw(x), **{key: value for key, value in kwargs.items() if key != "device"})
    if target.type != x.device.type:
        crossed["to host" if target.type == "cpu" else "to device"] += 1
    return raw if target.type == "cpu" else Simulated(raw)


def _disguised(x: Any, own: list[Simulated]) -> Any:
    """Return a result as a tensor of the device; that of work in place is the tensor that was worked on."""
    if not isinstance(x, Tensor):
        return x
    known = [mine for mine in own if mine.raw is x]
    return known[0] if known else Simulated(x)
