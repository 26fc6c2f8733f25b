"""Load a causal language model and its tokenizer, and fingerprint both.

A fingerprint names the weights, not the files: a model that was saved again, or loaded in another number format,
keeps it.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gindex.config import ModelConfig
from gindex.errors import ModelError, TokenizerError
from gindex.model.attention import use_fast_attention
from gindex.model.passes import loading, share_turns

FINGERPRINT_VALUES = 4096
"""Values of each parameter that enter the fingerprint, evenly spaced."""

PRIMITIVES = 128
"""Compiled products that oneDNN keeps, one for each shape: with AMX one takes .6 MB, and it would keep 1,024."""

NO_LIMIT = 1 << 30
"""Most tokens of a model that states no limit."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model on its device with its tokenizer and fingerprints."""

    model: nn.Module
    tokenizer: Any
    max_tokens: int
    fingerprint: str
    tokenizer_fingerprint: str


def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a model folder or hub name.

    Raises:
        ModelError: There is no such folder or reachable hub model.
        TokenizerError: The folder has no tokenizer, or one without character offsets.
    """
    from transformers import AutoTokenizer

    _check_folder(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:
        raise TokenizerError(
            f"{name}: expected a tokenizer beside the model, found none that loads ({_first_line(error)}); "
            "save it there with tokenizer.save_pretrained()"
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise TokenizerError(f"{name}: expected a fast tokenizer (tokenizer.json), found {type(tokenizer).__name__}")
    return tokenizer


def load_model(config: ModelConfig, tokenizer: Any) -> LoadedModel:
    """Load the model to its device, frozen and in evaluation mode.

    On a CPU, oneDNN is told to keep fewer compiled products, unless ONEDNN_PRIMITIVE_CACHE_CAPACITY says how many.

    Raises:
        ModelError: There is no such model, it cannot be read, or the device is not there.
    """
    from transformers import AutoModelForCausalLM

    _check_folder(config.name)
    device = pick_device(config.device)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(PRIMITIVES))  # read when it is first used
    try:
        with loading():
            dtype = _pick_dtype(config, device)
            model: nn.Module = AutoModelForCausalLM.from_pretrained(config.name, dtype=dtype)
            model = model.to(device).requires_grad_(False).eval()
        use_fast_attention(model)
        share_turns(model, ours=True)
    except Exception as error:
        raise ModelError(
            f"{config.name}: expected a causal language model of transformers, could not load it "
            f"({_first_line(error)}); give a folder with config.json and weights, or a hub name"
        ) from error
    _check_vocabulary(config.name, model, tokenizer)
    tokenizer_fingerprint = fingerprint_tokenizer(tokenizer)
    # As the first call would; another thread's call at that moment would find the tokenizer in use.
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        max_tokens=int(getattr(model.config, "max_position_embeddings", 0) or NO_LIMIT),
        fingerprint=fingerprint_model(model),
        tokenizer_fingerprint=tokenizer_fingerprint,
    )


def fingerprint_model(model: nn.Module) -> str:
    """Return a SHA-256 over every parameter's name, shape and evenly spaced values, rounded to bfloat16."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        flat = parameter.detach().flatten()
        sampled = flat[:: max(1, flat.numel() // FINGERPRINT_VALUES)][:FINGERPRINT_VALUES]
        values = sampled.to(torch.bfloat16).cpu().contiguous()
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint_tokenizer(tokenizer: Any) -> str:
    """Return a SHA-256 of a fast tokenizer's whole definition."""
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()


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
            f"--device {name}: not usable here ({_first_line(error)}); use --device cpu or auto"
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


def _pick_dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    from transformers import AutoConfig

    if config.dtype != "auto":
        return getattr(torch, config.dtype)  # type: ignore[no-any-return]
    stored = getattr(AutoConfig.from_pretrained(config.name), "dtype", None)
    sixteen_bit = stored in (torch.bfloat16, torch.float16, "bfloat16", "float16")
    return torch.bfloat16 if sixteen_bit and fast_bfloat16(device) else torch.float32


def _check_folder(name: str) -> None:
    path = Path(name)
    if not name:
        raise ModelError("--model: expected a model folder or hub name, got nothing")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ModelError(f"{name}: expected a model folder with config.json, found none; give a folder of transformers")
    if path.is_file() or (not path.exists() and (path.is_absolute() or name.startswith(".") or name.count("/") > 1)):
        raise ModelError(f"{name}: expected a model folder or hub name, found no such folder; check --model")


def _check_vocabulary(name: str, model: nn.Module, tokenizer: Any) -> None:
    rows = int(model.get_input_embeddings().num_embeddings)  # type: ignore[operator]
    if len(tokenizer) > rows:
        raise TokenizerError(
            f"{name}: expected a tokenizer of at most {rows} tokens, found {len(tokenizer)}; "
            "the tokenizer belongs to another model"
        )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
