"""What a build really takes of memory: at most the model, its factors and one gigabyte."""

import json
import os
import subprocess
import sys

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from gindex.build.fit_memory import fit_bytes
from gindex.build.memory import (
    GIGABYTE,
    SPARE_BYTES,
    BatchSize,
    batch_sizes,
    memory_needs,
    model_and_factors,
    rounds_of_fit,
)
from gindex.config import BuildConfig, ModelConfig
from gindex.model.tracked_model import CPU_BATCH_TOKENS, TrackedModel

LENGTH = 128
# The peak is that of the program alone: Linux's `ru_maxrss` begins with that of the process which started it.
BUILD = """
import re, sys
from pathlib import Path
from gindex import BuildConfig, CorpusConfig, GradientIndex, ModelConfig, VectorConfig
from gindex.config import FidelityConfig
corpus, model, out, memory = sys.argv[1:]
GradientIndex.build([corpus], out, BuildConfig(
    model=ModelConfig(name=model, device="cpu"), corpus=CorpusConfig(max_tokens=128),
    vectors=VectorConfig(dimension=2560),
    fidelity=FidelityConfig(queries=2),
    memory=float(memory) or None,
))
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024)
"""


@pytest.fixture(scope="module")
def deep(tmp_path_factory, small_tokenizer):
    """A model so deep that a pass over a thousand tokens keeps more than a gigabyte, and a corpus for it."""
    folder = tmp_path_factory.mktemp("deep")
    config = LlamaConfig(
        vocab_size=len(small_tokenizer), hidden_size=192, intermediate_size=576, num_hidden_layers=40,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=LENGTH, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    small_tokenizer.save_pretrained(folder / "model")
    text = "the compiler kernel stack heap lock thread race cache page file disk bug patch test loop parser token " * 6
    lines = [json.dumps({"id": str(n), "text": f"{n} {text}"}) for n in range(8)]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def peak(folder, out, memory=0.0):
    """Build in a process of its own and return its peak resident memory, in bytes."""
    paths = [str(folder / "corpus.jsonl"), str(folder / "model"), str(out)]
    command = [sys.executable, "-c", BUILD, *paths, str(memory)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    return int(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def engine(deep):
    return TrackedModel.load(ModelConfig(name=str(deep / "model"), device="cpu"))


def test_build_takes_a_gigabyte_beside_model_and_factors(deep, engine, tmp_path):
    """Batches as large as smaller models get would break the bound, were blocks not checkpointed."""
    assert batch_sizes(engine, BuildConfig(), 8, LENGTH).fit == BatchSize(tokens=CPU_BATCH_TOKENS, checkpointing=True)
    assert peak(deep, tmp_path / "index") <= model_and_factors(engine) + SPARE_BYTES


def test_build_keeps_a_bound_that_does_not_hold_all_layers_of_its_fit(deep, engine, tmp_path):
    """Layers are fitted in rounds: the sums of all of them would take more."""
    needs = memory_needs(engine, BuildConfig(), 700, LENGTH)
    rest = max(need.least(2 * LENGTH) for name, need in vars(needs).items() if name != "fit")
    bound = (
        max(rest, needs.fit.least(2 * LENGTH) - fit_bytes(engine.table.layers, engine.factor_formats) * 3 // 4)
        / GIGABYTE
    )
    assert bound * GIGABYTE < needs.fit.least(2 * LENGTH)
    assert len(rounds_of_fit(engine, BuildConfig(memory=bound), LENGTH)) > 1
    assert peak(deep, tmp_path / "bounded", memory=bound) <= bound * GIGABYTE
