"""Adapters of the small model as peft writes them, and their gradients by autograd through peft's own layers.

Axes: N documents, T tokens, O layer outputs, I layer inputs, V vocabulary.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from gindex.model.layers import TrackedLayer

peft = pytest.importorskip("peft", reason="needs gradient-index[peft]")


def lora(**settings: Any) -> Any:
    """Settings of a LoRA adapter with random weights, of rank 4 beside three layers of each block."""
    usual = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "v_proj", "down_proj"], "init_lora_weights": False}
    return peft.LoraConfig(task_type="CAUSAL_LM", **usual | settings)


def ia3(**settings: Any) -> Any:
    """Settings of an (IA)^3 adapter, with gains of outputs and of inputs."""
    usual = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    return peft.IA3Config(task_type="CAUSAL_LM", **usual | settings)


def write_adapter(
    base: Path, folder: Path, settings: Any, *, change: Callable[[nn.Module], object] = lambda _model: None
) -> nn.Module:
    """Write an adapter to a folder, and return peft's own model, in evaluation mode.

    Args:
        base: Folder of the base, which the adapter's settings name.
        folder: Where it goes.
        settings: Those of peft.
        change: Called with peft's model before it is written.
    """
    torch.manual_seed(1)
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    change(model)
    model.save_pretrained(folder)
    return model.eval()


def adapter_gradients(model: nn.Module, layers: Sequence[TrackedLayer], tokens: np.ndarray) -> Mapping[str, Tensor]:
    """Gradients [O, I] of one document's loss by peft's weights, under the names of the tracked layers.

    Args:
        model: peft's own model, whose weights of the layers need gradients.
        layers: The tracked layers, for their names and shapes.
        tokens: Token ids [T].
    """
    ids_1T = torch.from_numpy(tokens.astype(np.int64))[None]
    logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0, :-1]
    return gradients_of(model, layers, nn.functional.cross_entropy(logits_TV, ids_1T[0, 1:], reduction="sum"))


def gradients_of(model: nn.Module, layers: Sequence[TrackedLayer], loss: Tensor) -> Mapping[str, Tensor]:
    """Gradients [O, I] of a loss by peft's weights; see `adapter_gradients`."""
    parameters = {name.removeprefix("base_model.model."): weight for name, weight in model.named_parameters()}
    weights = [[parameters[name] for name in _names(layer, parameters)] for layer in layers]
    found = iter(torch.autograd.grad(loss, [w for each in weights for w in each], allow_unused=True))
    gradients = {}
    for layer, own in zip(layers, weights, strict=True):
        G = [torch.zeros_like(w) if (g := next(found)) is None else g for w in own]
        gradients[layer.name] = torch.cat([g.reshape(layer.outputs, -1) for g in G], 1)
    return gradients


def _names(layer: TrackedLayer, parameters: Mapping[str, Tensor]) -> list[str]:
    """peft's names of a tracked layer's weight and bias."""
    if layer.name.endswith(".gain"):
        return [f"{layer.name.removesuffix('gain')}ia3_l.default"]
    name = layer.name.removesuffix(".magnitude")
    if f"{name}.weight" not in parameters:  # of a module that was trained whole, or inside of one
        name = next(
            f"{whole}.modules_to_save.default{name.removeprefix(whole)}"
            for whole in (name, name.rpartition(".")[0])
            if f"{whole}.modules_to_save.default{name.removeprefix(whole)}.weight" in parameters
        )
    return [f"{name}.weight", *([f"{name}.bias"] if layer.has_bias else [])]
