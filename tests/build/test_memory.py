"""What a build reckons it needs, and the bound that it keeps."""

from dataclasses import replace

import pytest
import torch

from gindex.build.calibration_phase import batch_shape
from gindex.build.memory import (
    EXACT_BATCH_TOKENS,
    GIGABYTE,
    SPARE_BYTES,
    BatchSize,
    MemoryNeed,
    batch_sizes,
    memory_needs,
    model_and_factors,
    peak_bytes,
    query_room,
)
from gindex.config import BuildConfig, FidelityConfig, ModelConfig
from gindex.errors import ConfigError
from gindex.model.tracked_model import TrackedModel
from tests.support.objectives import pad_tokens


@pytest.fixture(scope="module")
def engine(model_folder) -> TrackedModel:
    return TrackedModel.load(ModelConfig(name=str(model_folder), device="cpu"))


def test_batches_as_large_as_suit_the_device_where_they_fit(engine):
    sizes = batch_sizes(engine, BuildConfig(), 100, 32)
    assert sizes.fit == sizes.vectors == sizes.fidelity == BatchSize(tokens=engine.usual_batch_tokens)
    assert batch_sizes(engine, BuildConfig(batch_tokens=5000), 100, 32).vectors == BatchSize(tokens=5000)
    assert peak_bytes(engine, BuildConfig(), 100, 32) < model_and_factors(engine) + SPARE_BYTES


def test_batches_fill_the_bound_and_no_more(engine):
    """Each phase by itself: what holds less has room for more."""
    needs = memory_needs(engine, BuildConfig(), 100, 32)
    need = max(vars(needs).values(), key=lambda need: need.of(BatchSize(tokens=600)))
    bound = need.of(BatchSize(tokens=600)) + need.token // 2
    config = BuildConfig(memory=bound / GIGABYTE)
    sizes = batch_sizes(engine, config, 100, 32)
    assert min(sizes.fit.tokens, sizes.vectors.tokens) == 600 < max(sizes.fit.tokens, sizes.vectors.tokens)
    assert bound - need.token < peak_bytes(engine, config, 100, 32) <= bound
    assert batch_sizes(engine, replace(config, batch_tokens=50), 100, 32).fit == BatchSize(tokens=50)
    assert batch_sizes(engine, BuildConfig(memory=1000.0), 100, 32).fit.tokens == engine.usual_batch_tokens


def test_blocks_are_checkpointed_where_plain_batches_would_be_small():
    need = MemoryNeed(fixed=1000, token=100, checkpointed=20)
    assert need.batches(100, 10, 1000 + 25 * 100) == BatchSize(tokens=25)
    assert need.batches(100, 10, 1000 + 24 * 100) == BatchSize(tokens=100, checkpointing=True)
    assert need.batches(100, 10, 1000 + 60 * 20) == BatchSize(tokens=60, checkpointing=True)
    assert need.batches(100, 10, 500) == BatchSize(tokens=10, checkpointing=True)
    assert need.least(10) == 1200 == need.of(BatchSize(tokens=10, checkpointing=True))
    one_block = MemoryNeed(fixed=1000, token=100, checkpointed=100)
    assert one_block.batches(100, 10, 1000 + 20 * 100) == BatchSize(tokens=20)


def test_exact_influence_leaves_room_for_queries(engine):
    config = BuildConfig(fidelity=FidelityConfig(queries=1_000_000))
    needs = memory_needs(engine, config, 100, 32)
    whole = BatchSize(tokens=EXACT_BATCH_TOKENS, checkpointing=needs.fidelity.checkpointed < needs.fidelity.token)
    bound = (needs.fidelity.of(whole) + 1_000_000) / GIGABYTE
    size = batch_sizes(engine, replace(config, memory=bound), 100, 32).fidelity
    assert size == whole
    tight = replace(config, memory=needs.fidelity.least(32) / GIGABYTE)
    one, more = (
        query_room(engine, tight, replace(size, tokens=32), 32),
        query_room(engine, replace(config, memory=bound), size, 32),
    )
    assert one == 4 * sum(layer.parameters for layer in engine.table.layers)
    assert more == pytest.approx(one + 1_000_000, abs=2)


@pytest.mark.parametrize(
    ("tokens", "longest", "shape"),
    [(2048, 500, (16, 128)), (2048, 50, (16, 50)), (1024, 500, (8, 128)), (600, 500, (8, 75)), (300, 500, (8, 37)),
     (100, 500, (3, 32)), (40, 500, (2, 32)), (40, 20, (2, 20))],
)  # fmt: skip
def test_calibration_cuts_documents_before_it_takes_fewer(tokens, longest, shape):
    assert batch_shape(tokens, longest) == shape


def test_a_bound_that_holds_no_part_says_what_would(engine):
    needs = memory_needs(engine, BuildConfig(), 100, 32)
    most = max(need.least(32) for need in vars(needs).values())
    with pytest.raises(ConfigError, match=rf"at least {most / GIGABYTE:.1f} GB.*32 tokens.*`max_tokens`"):
        batch_sizes(engine, BuildConfig(memory=0.001), 100, 32)


def test_tokens_are_measured_once(engine, monkeypatch):
    memory_needs(engine, BuildConfig(), 100, 31)
    monkeypatch.setattr(engine.task, "losses", None)
    assert memory_needs(engine, BuildConfig(), 100, 31).fit.token > 0


def test_tokens_are_measured_at_their_peak(engine):
    """Reference: what the allocator hands out in a pass, by PyTorch's own profiler."""
    need = memory_needs(engine, BuildConfig(), 100, 60).fit
    batch = pad_tokens([torch.arange(60).numpy() % 20] * 40, range(40), [1] * 40)
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
    assert result.exit_code == 2 and "memory: expected at least" in result.output
    assert not (tmp_path / "index" / "manifests").exists()
