"""Fingerprints of a model: of its weights, its stored buffers, its tokenizer, and code of its own.

A fingerprint names the weights, not the files: a model that was saved again, or loaded in another number format,
keeps it.
"""

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FINGERPRINT_VALUES = 4096
"""Most values of each parameter that enter the fingerprint, evenly spaced."""

NO_ADAPTER = {"adapter": ""}
"""The fingerprint of a model without an adapter; records leave it out."""

TRANSFORMERS = "transformers"
"""The fingerprint of a model's code where it is that of transformers."""


def fingerprint_model(model: nn.Module) -> str:
    """Return a SHA-256 over every parameter's name, shape and evenly spaced values, rounded to bfloat16."""
    return _digest(model.named_parameters())


def fingerprint_files(stored: Mapping[str, Path]) -> str:
    """Return the same over stored weights, whose values in memory may be packed otherwise on each device.

    Args:
        stored: The file of each weight by its name.
    """
    return _digest(_stored(stored))


def fingerprint_adapter(model: nn.Module, trained: Iterable[str], scaling: Mapping[str, float]) -> str:
    """Return the same over the weights of an adapter and what they are scaled by.

    Args:
        model: The model that it was applied to.
        trained: Names of its weights.
        scaling: What the change by each layer is multiplied by.
    """
    weights = [(name, model.get_parameter(name)) for name in trained]
    scales = [(name, torch.full((1,), value, dtype=torch.float32, device="cpu")) for name, value in scaling.items()]
    return _digest([*weights, *scales])


def fingerprint_buffers(model: nn.Module) -> str:
    """Return the same over the buffers that a checkpoint holds, such as the biases of a router; "" without any."""
    stored = model.state_dict(keep_vars=True)
    buffers = [(name, buffer) for name, buffer in model.named_buffers() if name in stored]
    return _digest(buffers) if buffers else ""


def fingerprint_tokenizer(tokenizer: Any) -> str:
    """Return a SHA-256 of a fast tokenizer's whole definition."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


def fingerprint_code(model: nn.Module, folder: Path) -> str:
    """Return a SHA-256 of a model's code where that is its own, `TRANSFORMERS` where it is theirs.

    Args:
        model: The model.
        folder: Its folder; the code is there, or where transformers put that of another model.
    """
    if not is_own(model):
        return TRANSFORMERS
    files = sorted(folder.glob("*.py")) or sorted(Path(inspect.getfile(type(model))).parent.glob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def is_own(model: nn.Module) -> bool:
    """Say whether a model's class is none of transformers' own."""
    return not type(model).__module__.startswith("transformers.")


def _stored(stored: Mapping[str, Path]) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    for file in sorted(set(stored.values())):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 safe_open has no iterator
                yield name, weights.get_tensor(name)


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        flat = tensor.detach().flatten()
        sampled = flat[:: max(1, flat.numel() // FINGERPRINT_VALUES)][:FINGERPRINT_VALUES]
        values = (sampled.to(torch.bfloat16) if sampled.dtype.is_floating_point else sampled).cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
