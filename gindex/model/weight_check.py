"""A check that a loaded model has the weights of its folder, all of them and no others.

transformers fills weights that a checkpoint lacks with random numbers, and ignores those that it does not know. A
weight that is tied to one in the checkpoint counts as there. Weights that the model's class expects in older
checkpoints besides are allowed.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gindex.errors import ModelError

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_SHOWN = 4

_PREFIXES = {
    "module.": "the wrapper of data-parallel training: save model.module",
    "_orig_mod.": "the wrapper of torch.compile: save model._orig_mod",
    "_fsdp_wrapped_module.": "the wrapper of FSDP: save its full state dict",
    "_forward_module.": "the wrapper of Lightning's Fabric: save the module in it",
    "base_model.model.": "peft's wrapper: merge with merge_and_unload() and save what it returns",
}

_HEAD_REMEDY = "the adapter lacks them too: train it with their modules in modules_to_save"


def check_whole(name: str, model: nn.Module, report: Mapping[str, Any], *, is_base: bool = False) -> None:
    """Check that every weight came from the checkpoint, and that the checkpoint had no other.

    Args:
        name: The model, as messages call it.
        model: The loaded model.
        report: The loading information of `from_pretrained(..., output_loading_info=True)`.
        is_base: Whether it is the base of an adapter with a head of its own, whose weights do not count as missing.

    Raises:
        ModelError: Weights are missing, unexpected, or of another shape; names them.
    """
    missing = set(report["missing_keys"]) | {n for n, p in model.named_parameters() if p.device.type == "meta"}
    unexpected = set(report["unexpected_keys"])
    mismatched = {key: f"{tuple(shape)} for {tuple(wanted)}" for key, shape, wanted in report["mismatched_keys"]}
    differences = [
        *([f"lacking {_listed(missing)}"] if missing else []),
        *([f"with {_listed(unexpected)}, which it has no place for"] if unexpected else []),
        *([f"with weights of other shapes: {_shapes(mismatched)}"] if mismatched else []),
    ]
    if differences:
        raise ModelError(
            field=name,
            expected=f"all weights of {type(model).__name__} and no others",
            found=f"a folder {'; '.join(differences)}",
            remedy=_HEAD_REMEDY if is_base and missing else _remedy(model, missing, unexpected),
        )


def check_padding(name: str, model: nn.Module, stored: Mapping[str, Path]) -> None:
    """Check that the embedding of the padding token is the folder's: some classes set it to zero as they load.

    Args:
        name: The model, as messages call it.
        model: The loaded model.
        stored: The file of each weight by its name; an embedding that is not among them is not checked.

    Raises:
        ModelError: It differs.
    """
    from safetensors import safe_open

    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    for module, embedding in model.named_modules():
        if not isinstance(embedding, nn.Embedding) or embedding.padding_idx is None:
            continue
        key, token = f"{module}.weight", embedding.padding_idx
        key = key if key in stored else key.removeprefix(prefix)
        if key not in stored:
            continue
        with safe_open(stored[key], framework="pt") as weights:
            expected = weights.get_slice(key)[token : token + 1].to(embedding.weight)
        if not torch.equal(expected.nan_to_num(), embedding.weight[token : token + 1].nan_to_num()):
            raise ModelError(
                field=name,
                expected=f"{key} as the folder has it",
                found=f"that {type(model).__name__} sets the row of the padding token {token} to zero as it loads",
                remedy="set pad_token_id to null in config.json",
            )


def ignored_missing(model: nn.Module, stored: Iterable[str]) -> set[str]:
    """Return missing weights that the model's class has transformers not report, and that are tied to no other.

    A class may say that its checkpoints lack a weight because it is tied to another; a model's settings may untie it.

    Args:
        model: The loaded model.
        stored: Names of the weights in the folder.
    """
    patterns = list(getattr(model, "_keys_to_ignore_on_load_missing", None) or [])
    if not patterns:
        return set()
    hidden, names = re.compile("|".join(f"({pattern})" for pattern in patterns)), frozenset(stored)
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    lacking = {
        name: weight
        for name, weight in model.named_parameters(remove_duplicate=False)
        if hidden.search(name) and not {name, name.removeprefix(prefix)} & names and not _is_formula(model, name)
    }
    given = {id(weight) for name, weight in model.named_parameters(remove_duplicate=False) if name not in lacking}
    return {name for name, weight in lacking.items() if id(weight) not in given}


def _is_formula(model: nn.Module, name: str) -> bool:
    """Say whether a weight is the sines and cosines of positions, which its class makes itself."""
    return "Sinusoidal" in type(model.get_submodule(name.rpartition(".")[0])).__name__


def _remedy(model: nn.Module, missing: set[str], unexpected: set[str]) -> str:
    for prefix, what in _PREFIXES.items():
        if any(key.startswith(prefix) for key in unexpected):
            return f"the names begin with {prefix!r}, {what}"
    if any(re.search(r"(^|\.)(score|classifier|v_head|reward_head|qa_outputs)\.", key) for key in unexpected):
        return "it is a classifier or reward model: give the language model that it was made from"
    if any("lora_" in key for key in unexpected):
        return "it holds an adapter: merge it with peft's merge_and_unload()"
    head = model.get_output_embeddings()  # type: ignore[operator]
    own = {id(weight) for weight in head.parameters()} if isinstance(head, nn.Module) else set()
    heads = {key for key, weight in model.named_parameters() if id(weight) in own}
    if missing and missing <= heads:
        return "it is a base model without its head: save it from the class that it was trained in"
    return "save the model again with save_pretrained(), from the class that it was trained in"


def _listed(keys: set[str]) -> str:
    """Return the number of weights and their names, with `*` for the block where several have the same."""
    alike: dict[str, list[str]] = {}
    for key in sorted(keys):
        alike.setdefault(_NUMBER.sub("*", key), []).append(key)
    names = sorted(those[0] if len(those) == 1 else pattern for pattern, those in alike.items())
    shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(keys)} ({shown})"


def _shapes(mismatched: dict[str, str]) -> str:
    return ", ".join(f"{key} {what}" for key, what in sorted(mismatched.items())[:_SHOWN])
