"""Memory of a pass over one long part, as it is reckoned and as it is seen, by family and attention.

    python tools/benchmarks/long_parts.py

Every row is a process of its own with a model of four blocks of width 64 and eight heads, random weights, in float32 on
a CPU. *seen* is what the process's largest memory grows by in a forward and backward pass under observation.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gindex.build.allocator import release
from gindex.build.token_bytes import token_bytes
from gindex.config import ModelConfig
from gindex.corpus.batches import TokenBatch, pad
from gindex.corpus.objectives import Objective
from gindex.model.capture import observe
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer
from gindex.model.tracked_model import TrackedModel

LENGTHS = (256, 1024, 4096)
SIZES = {
    "vocab_size": 320, "hidden_size": 64, "num_hidden_layers": 4, "max_position_embeddings": 8192,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
HEADS = {"intermediate_size": 128, "num_attention_heads": 8, "num_key_value_heads": 8}
DELTA = {
    "head_dim": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8,
    "linear_value_head_dim": 8, "layer_types": ["linear_attention"] * 3 + ["full_attention"],
}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "Llama": ("llama", HEADS),
    "Mistral, window of 128": ("mistral", HEADS | {"sliding_window": 128}),
    "Gemma 2, window of 128": ("gemma2", HEADS | {"head_dim": 8, "sliding_window": 128}),
    "Mamba": ("mamba", {"state_size": 16}),
    "Mamba2": ("mamba2", {"num_heads": 8, "head_dim": 16, "state_size": 16, "n_groups": 1, "chunk_size": 64}),
    "Qwen3.5, linear attention": ("qwen3_5_text", HEADS | DELTA),
}
EAGER = ("Llama", "Mistral, window of 128")
"""Kinds that are run with eager attention too."""

SLOW = {("Mamba", 4096)}
"""Recurrences that run token by token, which takes minutes."""


class _Nothing(Observer):
    """Keeps activations until their gradients come, as every observer does."""

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return a_NTI

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        pass


def main() -> None:
    """Print the table, or what a row's own process has measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", nargs="*", help="One row alone: a model, its attention, and tokens.")
    if row := parser.parse_args().row:
        name, attention, length = row
        print(*measured(name, attention, int(length)))
        return
    print("| model | attention | tokens | reckoned | seen | seen / reckoned |\n|---|---|---|---|---|---|")
    rows = [
        (name, attention) for name in KINDS for attention in ("sdpa", "eager") if attention == "sdpa" or name in EAGER
    ]
    for name, attention in rows:
        for length in LENGTHS:
            if (name, length) in SLOW:
                continue
            command = [sys.executable, __file__, name, attention, str(length)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            reckoned, seen = map(float, told.split()[-2:])
            sizes = f"{reckoned / 1e6:,.0f} MB | {seen / 1e6:,.0f} MB | {seen / reckoned:.2f}"
            print(f"| {name} | {attention} | {length:,} | {sizes} |", flush=True)


def measured(name: str, attention: str, length: int) -> tuple[float, float]:
    """Bytes of a pass over a part of so many tokens, reckoned and seen."""
    torch.set_num_threads(1)
    model = load(name)
    if attention != "sdpa":
        model.loaded.model.set_attn_implementation(attention)  # type: ignore[operator]
    run(model, 64)
    release()
    Path("/proc/self/clear_refs").write_text("5")  # begins the largest memory anew
    before = largest()
    run(model, length)
    seen = largest() - before
    return token_bytes(model, length).plain() * length, seen


def load(name: str) -> TrackedModel:
    """Make a model and load it as a build does."""
    from tokenizers import Tokenizer, models
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    kind, settings = KINDS[name]
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES | settings)).save_pretrained(folder)
        words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(300)}, unk_token="w0"))
        PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
        return TrackedModel.load(ModelConfig(name=folder, device="cpu", dtype="float32"))


def run(model: TrackedModel, length: int) -> None:
    """Run one observed pass over a part."""
    batch: TokenBatch = pad([Objective.counting(np.arange(length, dtype=np.uint32) % 300)], [0])
    observe(model.table.layers, _Nothing(), 1, lambda: model.task.losses(batch))


def largest() -> int:
    """The largest memory of the process so far, in bytes."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
