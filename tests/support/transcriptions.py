"""A tiny Whisper, clips of random features for it, and losses of a user's own over them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

FEATURES, FRAMES, TOKENS = 8, 20, 24


def outputs(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return model(input_features=batch["input_features"], labels=batch["labels"]).logits


def transcription(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return cross_entropy(outputs(model, batch).transpose(1, 2), batch["labels"], reduction="none").sum(1)


transcription.columns = ("input_features", "labels")  # type: ignore[attr-defined]
transcription.outputs = outputs  # type: ignore[attr-defined]
transcription.likelihood = "classification"  # type: ignore[attr-defined]


class Drawn:
    """The same loss with labels that it draws itself."""

    columns = ("input_features", "labels")

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return transcription(model, batch)

    def sampled(self, model: nn.Module, batch: dict[str, Tensor], generators: list[torch.Generator]) -> Tensor:
        logits = outputs(model, batch)
        drawn = [
            torch.multinomial(p, 1, generator=g) for p, g in zip(logits.detach().softmax(-1), generators, strict=True)
        ]
        return cross_entropy(logits.transpose(1, 2), torch.stack(drawn)[..., 0], reduction="none").sum(1)


def beside(losses: Any, **attributes: Any) -> Any:
    """A function with what has to stand beside it."""
    usual = {"columns": transcription.columns, "outputs": outputs, "likelihood": "classification"}  # type: ignore[attr-defined]
    for name, value in (usual | attributes).items():
        setattr(losses, name, value)
    return losses


mean = beside(lambda model, batch: transcription(model, batch).mean().expand(len(batch["labels"])))
whole = beside(lambda model, batch: transcription(model, batch).sum())
detached = beside(lambda model, batch: transcription(model, batch).detach())
infinite = beside(lambda model, batch: transcription(model, batch) / 0)
failing = beside(lambda model, batch: batch["pixels"])
unlikely = beside(lambda model, batch: transcription(model, batch), likelihood="poisson")
undrawn = beside(lambda model, batch: transcription(model, batch), outputs=None)
flat = beside(lambda model, batch: transcription(model, batch), outputs=lambda model, batch: batch["labels"])
number = 7


def save_whisper(folder: Path) -> nn.Module:
    """Save a tiny model that reads clips of random features."""
    torch.manual_seed(0)
    sizes = {
        "vocab_size": TOKENS, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "num_mel_bins": FEATURES,
        "max_source_positions": FRAMES // 2, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2, "decoder_start_token_id": 1, "begin_suppress_tokens": None, "suppress_tokens": None,
    }  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**sizes)).eval()
    model.save_pretrained(folder)
    return model


def clip(seed: int) -> dict[str, Any]:
    """Features and labels, of two lengths."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((FEATURES, FRAMES)).astype(np.float32)
    return {"input_features": features.tolist(), "labels": generator.integers(3, TOKENS, 4 + seed % 2).tolist()}


def save_clips(path: Path, count: int, planted: dict[str, Any] | None = None) -> None:
    """Save clips as JSON lines; the last two may be given, and say the same."""
    records = [{"id": f"clip-{n}", "speaker": n % 3, **clip(n)} for n in range(count)]
    if planted is not None:
        records += [{"id": f"planted-{n}", "speaker": 9, **planted} for n in range(2)]
    path.write_text("\n".join(map(json.dumps, records)))
