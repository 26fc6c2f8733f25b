"""What a build reckons it needs, and the bound that it keeps."""

from dataclasses import replace

import pytest
import torch

from gindex.builder.memory import GIGABYTE, memory_need, within_memory
from gindex.config import BuildConfig, ModelConfig
from gindex.corpus.batches import pad
from gindex.engine import Engine
from gindex.errors import ConfigError


@pytest.fixture(scope="module")
def engine(model_folder) -> Engine:
    return Engine.load(ModelConfig(name=str(model_folder), device="cpu"))


def test_without_a_bound_nothing_changes(engine):
    config = BuildConfig()
    assert within_memory(engine, config, 100, 32) is config


def test_batches_fill_the_bound_and_no_more(engine):
    need = memory_need(engine, BuildConfig(), 100, 32)
    bound = (need.fixed + 200 * need.token + need.token // 2) / GIGABYTE
    config = within_memory(engine, BuildConfig(memory=bound), 100, 32)
    assert config.batch_tokens == 200
    assert within_memory(engine, replace(config, batch_tokens=50, memory=bound), 100, 32).batch_tokens == 50
    plenty = within_memory(engine, BuildConfig(memory=1000.0), 100, 32)
    assert plenty.batch_tokens == engine.usual_batch_tokens


def test_a_bound_that_holds_no_part_says_what_would(engine):
    need = memory_need(engine, BuildConfig(), 100, 32)
    with pytest.raises(ConfigError, match=rf"at least {need.of(32) / GIGABYTE:.1f} GB.*32 tokens.*--max-tokens"):
        within_memory(engine, BuildConfig(memory=0.001), 100, 32)


def test_tokens_are_measured_at_their_peak(engine):
    """Reference: what the allocator hands out in a pass, by PyTorch's own profiler."""
    need = memory_need(engine, BuildConfig(), 100, 60)
    batch = pad([torch.arange(60).numpy() % 20] * 40, range(40), [1] * 40)
    handle = engine.loaded.model.get_input_embeddings().register_forward_hook(
        lambda _module, _args, output: output.requires_grad_(True)
    )
    with torch.profiler.profile(profile_memory=True) as profile:
        engine.task.losses(batch).sum().backward()
    handle.remove()
    held = peak = 0
    for event in sorted(profile.events(), key=lambda e: e.time_range.start):
        if event.name == "[memory]":
            held += event.cpu_memory_usage
            peak = max(peak, held)
    assert 0 < peak / (40 * 60) < need.token * 1.2  # the observer's own activations come on top


def test_command_refuses_a_bound_that_is_too_small(run, corpus_file, model_folder, tmp_path):
    result = run(
        "build",
        corpus_file,
        "--model",
        model_folder,
        "--out",
        tmp_path / "index",
        "--max-tokens",
        32,
        "--memory",
        "0.01",
    )
    assert result.exit_code == 2 and "--memory: expected at least" in result.output
    assert not (tmp_path / "index" / "manifests").exists()
