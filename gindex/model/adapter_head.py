"""The head of labels that an adapter brings, where its base was trained for something else.

A classifier that is trained by an adapter has a head that no base has: it is stored whole beside the adapter's small
matrices (modules_to_save). The base, most often a language model, is loaded as a classifier of as many labels as that
head has. Its own head is left out, and the new one is zero until the adapter fills it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gindex.model.folder import ModelFolder

_SMALL = ("lora_", "ia3_", "trainable_tokens")
"""What the names of an adapter's small weights contain."""


def whole_weights(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of an adapter that take the place of the model's own."""
    return {name: weight for name, weight in stored.items() if not any(part in name for part in _SMALL)}


def settle_labels(settings: Any, folder: ModelFolder, whole: Mapping[str, Tensor], *, trusted: bool) -> None:
    """Let a model's configuration have as many labels as an adapter's head, in place.

    Args:
        settings: The configuration of the base.
        folder: Its folder.
        whole: The weights that the adapter brings whole.
        trusted: Whether code of the model's own may run.
    """
    import transformers

    with torch.device("meta"):
        model: nn.Module = getattr(transformers, folder.kind.auto_model).from_config(
            settings, trust_remote_code=trusted
        )
    own = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    shapes = {name: tuple(weight.shape) for name, weight in whole.items()}
    counts = {s[0] for name, s in shapes.items() if name in own and s != own[name] and s[1:] == own[name][1:]}
    if len(counts) == 1:
        settings.num_labels = counts.pop()


def settle_padding(settings: Any, tokenizer: Any) -> None:
    """Let a configuration without a padding token have the tokenizer's, as in training: it tells where texts end."""
    text = settings.get_text_config()
    if getattr(text, "pad_token_id", None) is None:
        text.pad_token_id = tokenizer.pad_token_id


def without_head(
    report: Mapping[str, Any], model: nn.Module, folder: ModelFolder, whole: Mapping[str, Tensor]
) -> dict[str, Any]:
    """A report of the loading of a base without what its adapter brings, which becomes zero.

    Args:
        report: The loading information of `from_pretrained(..., output_loading_info=True)`.
        model: The loaded base.
        folder: Its folder.
        whole: The weights that the adapter brings whole.
    """
    brought = {
        name: weight
        for name, weight in model.named_parameters()
        if name in whole and weight.shape == whole[name].shape and weight.is_floating_point()
    }
    mismatched = [entry for entry in report["mismatched_keys"] if entry[0] not in brought]
    lacking = {*report["missing_keys"], *(entry[0] for entry in report["mismatched_keys"])}
    with torch.no_grad():
        for name in brought.keys() & lacking:
            brought[name].zero_()
    unexpected = set(report["unexpected_keys"])
    if not folder.has_head:
        unexpected = {key for key in unexpected if _is_of_body(key, model)}
    return {
        **report,
        "missing_keys": set(report["missing_keys"]) - brought.keys(),
        "mismatched_keys": mismatched,
        "unexpected_keys": unexpected,
    }


def _is_of_body(key: str, model: nn.Module) -> bool:
    """Say whether a weight belongs to a module of the body, not to the head of another task."""
    body: nn.Module = getattr(model, "base_model", model)
    inner = key.removeprefix(f"{getattr(model, 'base_model_prefix', '')}.")
    return inner.partition(".")[0] in dict(body.named_children())
