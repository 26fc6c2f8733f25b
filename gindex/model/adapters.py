"""Application of an adapter to its base, by peft: the base keeps its class, and its layers get the adapter beside them.

The two matrices of LoRA are plain layers of peft's. Its DoRA runs them twice in a pass, and (IA)^3 has vectors: both
become layers here whose gradients can be taken (`gains`). A module that was trained whole beside the adapter
(modules_to_save) takes the place of the base's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from gindex.distribution import install_hint
from gindex.errors import MissingDependencyError, ModelError
from gindex.model.adapter_folder import HERE, AdapterFolder
from gindex.model.gains import DoraGain, ScaledLayer, dora_norms
from gindex.model.library_messages import first_line
from gindex.model.location import ADAPTER_SETTINGS

_FORMS = ("DoraLinearVariant", "DoraEmbeddingVariant", "DoraConv1dVariant", "DoraConv2dVariant", "DoraConv3dVariant")
"""Forms of LoRA, by peft's names, that its layers compute from tokens alone."""

_PREFIX = "base_model.model."
"""What peft's own wrapper around the base puts before names."""

_PARTS = ("lora_", "ia3_", "modules_to_save", "trainable_tokens")
"""What the names of an adapter's weights contain."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What an adapter added to its base.

    Attributes:
        trained: Names of the weights that are the adapter's.
        scaling: What the change by each LoRA layer is multiplied by.
    """

    trained: frozenset[str]
    scaling: Mapping[str, float]


def apply_adapter(model: nn.Module, folder: AdapterFolder, dtype: torch.dtype) -> Adapter:
    """Apply an adapter to its base, in place, not merged.

    Args:
        model: The base.
        folder: The adapter's folder, checked.
        dtype: Number format of the passes, which its weights are turned to.

    Raises:
        MissingDependencyError: peft is not installed.
        ModelError: The adapter is of another base, is not whole, or cannot be read.
    """
    peft = import_peft(folder.name)
    settings = _settings(peft, folder)
    stored = read_weights(folder)
    _check_vocabulary(model, folder, stored)
    try:
        with torch.random.fork_rng(devices=[]):
            peft.inject_adapter_in_model(settings, model, HERE)
    except Exception as error:  # peft raises of every kind
        raise ModelError(
            field=folder.name,
            expected=f"an adapter of {type(model).__name__}",
            found=f"that peft cannot apply it ({first_line(error)})",
            remedy="name its own base with `base`",
        ) from error
    _check_forms(peft, model, folder)
    _fill(peft, model, folder, stored)
    for name, parameter in list(model.named_parameters()):
        if parameter.requires_grad and parameter.dtype.is_floating_point and _is_part(name):
            parameter.data = parameter.data.to(dtype)
    scaling = {name: float(layer.scaling[HERE]) for name, layer in _lora_layers(peft, model)}
    _rewrite(peft, model)
    trained = frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)
    model.requires_grad_(False)
    return Adapter(trained=trained, scaling=scaling)


def import_peft(name: str) -> Any:
    """The package peft.

    Args:
        name: The adapter, as messages call it.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError(
            field=name,
            expected="the package peft, which applies adapters",
            found=first_line(error),
            remedy=install_hint("peft"),
        ) from error
    return peft


def _settings(peft: Any, folder: AdapterFolder) -> Any:
    """The adapter's settings as peft has them, to be applied with all its weights trainable.

    Raises:
        ModelError: The adapter has a setting that this peft does not know, or that is not for these models.
    """
    kind = peft.PEFT_TYPE_TO_CONFIG_MAPPING[folder.settings["peft_type"]]
    known = {field.name for field in fields(kind)}
    unknown = sorted(key for key, value in folder.settings.items() if key not in known and value)
    if unknown or folder.settings.get("megatron_config"):
        raise ModelError(
            field=folder.path / ADAPTER_SETTINGS,
            expected=f"settings that peft {peft.__version__} knows for models of transformers",
            found=", ".join(unknown) or "megatron_config",
            remedy="a newer peft may know them" if unknown else "merge the adapter where it was trained",
        )
    values = {key: value for key, value in folder.settings.items() if key in known}
    return kind(**values | {"inference_mode": False})


def read_weights(folder: AdapterFolder) -> dict[str, Tensor]:
    """The adapter's weights, by the names of the base's modules that they belong to; of pickled ones tensors alone.

    Raises:
        MissingDependencyError: peft is not installed.
        ModelError: They cannot be read.
    """
    peft = import_peft(folder.name)
    try:
        stored: dict[str, Tensor] = peft.load_peft_weights(str(folder.path), device="cpu")
        return {str(name).removeprefix(_PREFIX): weight for name, weight in stored.items()}
    except Exception as error:  # of safetensors, of the file system, of torch
        what = f"a file of more than tensors, or a damaged one ({type(error).__name__})"
        raise ModelError(
            field=folder.weights,
            expected="an adapter's weights",
            found=what if folder.pickled else f"a damaged file ({first_line(error)})",
            remedy="copy or fetch it again",
        ) from error


def _check_vocabulary(model: nn.Module, folder: AdapterFolder, stored: Mapping[str, Tensor]) -> None:
    """Refuse an adapter that was trained with another number of tokens than the base has."""
    if not isinstance(model.get_input_embeddings(), nn.Embedding):  # type: ignore[operator]  # it reads no tokens
        return
    rows = len(model.get_input_embeddings().weight)  # type: ignore[operator]
    ends = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[operator]
    names = [name for name, module in model.named_modules() if any(module is end for end in ends)]
    for key, weight in stored.items():
        layer = key.removesuffix(".weight").removesuffix(".base_layer")
        if layer in names and weight.shape[0] != rows:
            raise ModelError(
                field=folder.name,
                expected=f"an adapter for the {rows:,} tokens of its base",
                found=f"one whose embeddings were resized to {weight.shape[0]:,} ({key})",
                remedy="resize the base with resize_token_embeddings(), save it with the adapter's tokenizer, and name "
                "it with `base`",
            )


def _check_forms(peft: Any, model: nn.Module, folder: AdapterFolder) -> None:
    """Refuse forms of LoRA that do more in a pass than change layers."""
    for name, layer in _lora_layers(peft, model):
        form = _form(layer)
        if form and form not in _FORMS:
            raise ModelError(
                field=folder.name,
                expected="LoRA, rsLoRA, DoRA or (IA)^3",
                found=f"{form.removesuffix('Variant')} in {name}",
                remedy="merge it into its base with peft's merge_and_unload(), where that is possible",
            )


def _fill(peft: Any, model: nn.Module, folder: AdapterFolder, stored: dict[str, Tensor]) -> None:
    """Fill the adapter's layers with its weights.

    Raises:
        ModelError: Weights are missing, unexpected, or of another shape: the adapter is another base's.
    """
    try:
        report = peft.set_peft_model_state_dict(model, stored, HERE)
    except Exception as error:  # shapes that differ are a RuntimeError, absent weights of modules a KeyError
        raise _another_base(model, folder, first_line(error)) from error
    missing = sorted(name for name in report.missing_keys if _is_part(name))
    unexpected = sorted(report.unexpected_keys)
    if missing or unexpected:
        named = [f"lacks {len(missing)} ({missing[0]}, ...)"] if missing else []
        named += [f"has {len(unexpected)} that it has no place for ({unexpected[0]}, ...)"] if unexpected else []
        raise _another_base(model, folder, f"a file that {' and '.join(named)}")


def _another_base(model: nn.Module, folder: AdapterFolder, found: str) -> ModelError:
    return ModelError(
        field=folder.name,
        expected=f"all weights of an adapter of this {type(model).__name__} and no others",
        found=found,
        remedy="name the base that it was trained on with `base`",
    )


def _is_part(name: str) -> bool:
    """Say whether a weight is the adapter's, by its name."""
    return any(part in name for part in _PARTS)


def _rewrite(peft: Any, model: nn.Module) -> None:
    """Write DoRA, (IA)^3 and modules that were trained whole as layers that can be tracked."""
    for parent, child, module in list(_children(model)):
        if isinstance(module, peft.utils.ModulesToSaveWrapper):
            setattr(parent, child, module.modules_to_save[HERE])
        elif isinstance(module, peft.tuners.ia3.IA3Layer) and isinstance(module.base_layer, nn.Linear | Conv1D):
            scaled = ScaledLayer(module.base_layer, module.ia3_l[HERE], on_inputs=module.is_feedforward)
            setattr(parent, child, scaled)
    for _, layer in _lora_layers(peft, model):
        if _form(layer) == "DoraLinearVariant":
            weight = peft.utils.integrations.dequantize_module_weight(layer.base_layer)
            layer.lora_magnitude_vector[HERE] = _dora_gain(layer, weight)


def _children(model: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    for parent in model.modules():
        for child, module in parent.named_children():
            yield parent, child, module


def _lora_layers(peft: Any, model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers that have LoRA beside them, with their names."""
    for name, module in model.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer) and HERE in module.scaling:
            yield name, module


def _form(layer: Any) -> str:
    """The form of a layer's LoRA by its name in peft; "" for LoRA itself."""
    form = layer.lora_variant.get(HERE)
    return "" if form is None else type(form).__name__


def _dora_gain(layer: Any, weight: Tensor) -> DoraGain:
    given = layer.lora_magnitude_vector[HERE]
    weight_OI = weight.T if given.fan_in_fan_out else weight
    A_RI, B_OR = layer.lora_A[HERE].weight, layer.lora_B[HERE].weight
    norm_O = dora_norms(weight_OI.detach(), A_RI.detach(), B_OR.detach(), layer.scaling[HERE])
    return DoraGain(given.weight, norm_O.to(given.weight.dtype))
