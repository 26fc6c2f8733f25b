"""What a build takes of memory, and batches that keep it within a bound.

What a phase holds whatever the batch follows from the shapes. What a token costs is measured: one pass over a document
of the corpus's greatest length is watched for what it keeps until the backward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gindex.config import BuildConfig
from gindex.corpus.batches import pad
from gindex.curvature.ranks import ranks
from gindex.engine import Engine
from gindex.errors import ConfigError
from gindex.gradient.codes import code_bytes
from gindex.model.head import CHUNK
from gindex.model.layers import TrackedLayer
from gindex.search.rerank import BLOCK_BYTES
from gindex.store.vectors import choose_segment_parts

GIGABYTE = 10**9

PROGRAM_BYTES = 700_000_000
"""What Python and its libraries take."""

SPARE_BYTES = GIGABYTE
"""What a build on a CPU takes beside the model and its factors where no bound is set."""

TYPICAL_FRACTION = 0.25
"""Share of each eigenbasis that is reckoned with before it is chosen."""

TOKEN_SLACK = 1.5
"""What a pass takes beside what it keeps: gradients on their way down, copies of a layer's activations."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Memory of a build, in bytes.

    Attributes:
        fixed: Taken whatever the batch: the program, the model, factors, tables.
        token: Taken for each token of a batch.
    """

    fixed: int
    token: int

    def of(self, tokens: int) -> int:
        """Return the peak with batches of so many tokens."""
        return self.fixed + tokens * self.token


def memory_need(engine: Engine, config: BuildConfig, parts: int, longest: int) -> MemoryNeed:
    """Reckon what a build needs.

    Args:
        engine: The loaded model.
        config: Its settings.
        parts: Parts of the corpus.
        longest: Tokens of the longest part.
    """
    layers, size = engine.table.layers, engine.dtype.itemsize
    squares = sum(width**2 for width in sides(layers))
    values = sum(layer.parameters for layer in layers)
    phases = (
        4 * squares + 4 * 8 * max(sides(layers)) ** 2,  # covariances, and one that is decomposed
        size * squares + 4 * values,  # bases, and sums of the corrected eigenvalues
        _vector_bytes(layers, config, size) + _segment_bytes(config, parts),
        _fidelity_bytes(engine, config) + size * values,  # one preconditioned query
    )
    return MemoryNeed(fixed=_standing_bytes(engine) + max(phases), token=_token_bytes(engine, longest))


def within_memory(engine: Engine, config: BuildConfig, parts: int, longest: int) -> BuildConfig:
    """Return the settings with batches that keep the build within its memory bound, if it has one.

    Raises:
        ConfigError: The bound can't hold the longest part.
    """
    if not config.memory:
        return config
    need, bound = memory_need(engine, config, parts, longest), int(config.memory * GIGABYTE)
    if need.of(longest) > bound:
        raise ConfigError(
            f"--memory: expected at least {need.of(longest) / GIGABYTE:.1f} GB, which the model, its factors and one "
            f"part of {longest} tokens need, got {config.memory:g}; or cut documents into shorter parts with "
            "--max-tokens"
        )
    most = max(longest, (bound - need.fixed) // need.token)
    return replace(config, batch_tokens=min(config.batch_tokens or engine.usual_batch_tokens, most))


def model_and_factors(engine: Engine) -> int:
    """Return the bytes of the model's weights and of its EK-FAC factors: eigenbases and corrected eigenvalues."""
    layers = engine.table.layers
    bases = engine.dtype.itemsize * sum(width**2 for width in sides(layers))
    return weight_bytes(engine) + bases + 4 * sum(layer.parameters for layer in layers)


def weight_bytes(engine: Engine) -> int:
    """Return the bytes of the model's weights."""
    return sum(p.numel() * p.element_size() for p in engine.loaded.model.parameters())


def query_bytes(engine: Engine, config: BuildConfig, longest: int) -> int:
    """Return how much memory preconditioned queries may take, in bytes; at least one is always held.

    It is what the bound leaves, or, on a CPU without a bound, what `SPARE_BYTES` and the factors, which aren't held
    then, leave.
    """
    if not config.memory and engine.device.type != "cpu":
        return BLOCK_BYTES
    one = engine.dtype.itemsize * sum(layer.parameters for layer in engine.table.layers)
    tokens = max(longest, config.batch_tokens or engine.usual_batch_tokens)
    others = _standing_bytes(engine) + _fidelity_bytes(engine, config) + tokens * _token_bytes(engine, longest)
    bound = int(config.memory * GIGABYTE) if config.memory else model_and_factors(engine) + SPARE_BYTES
    return min(BLOCK_BYTES, max(one, bound - others))


def sides(layers: Sequence[TrackedLayer]) -> list[int]:
    """Widths of all covariances that are kept: one a source, one a layer."""
    return [layer.inputs for layer in layers if layer.name == layer.source] + [layer.outputs for layer in layers]


def vocabulary(engine: Engine) -> int:
    """Return how many tokens the model knows."""
    return int(engine.loaded.model.get_input_embeddings().num_embeddings)  # type: ignore[operator]


def _standing_bytes(engine: Engine) -> int:
    """What every phase holds: the program, the model, logits of a chunk of positions."""
    logits = CHUNK * vocabulary(engine) * (2 * engine.dtype.itemsize + 8)
    return PROGRAM_BYTES + weight_bytes(engine) + logits


def _fidelity_bytes(engine: Engine, config: BuildConfig) -> int:
    """What measuring fidelity holds beside its queries: the path to vectors, and one layer's factors."""
    layers, size = engine.table.layers, engine.dtype.itemsize
    return _vector_bytes(layers, config, size) + 8 * max(layer.parameters for layer in layers)


def _vector_bytes(layers: Sequence[TrackedLayer], config: BuildConfig, size: int) -> int:
    """Truncated bases, what they are scaled by, and the projection's table."""
    kept = [(layer, *ranks(layer, config.vectors.rank_fraction or TYPICAL_FRACTION)) for layer in layers]
    bases = sum((layer.inputs * R if layer.name == layer.source else 0) + layer.outputs * P for layer, R, P in kept)
    return size * bases + (2 * 4 + 5) * sum(R * P for _layer, R, P in kept)


def _segment_bytes(config: BuildConfig, parts: int) -> int:
    """Codes of a segment, once while they are made and once while they are written."""
    row = code_bytes(config.vectors.dimension, config.vectors.bits)
    return 2 * row * min(parts, choose_segment_parts(parts, row))


def _token_bytes(engine: Engine, longest: int) -> int:
    """Measure what a token of a pass keeps, in the most hungry phase: all activations rotated, none truncated."""
    tokens = np.arange(longest, dtype=np.uint32) % vocabulary(engine)
    batch = pad([tokens], [0], [1])
    owned = {p.untyped_storage().data_ptr() for p in engine.loaded.model.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    handle = engine.loaded.model.get_input_embeddings().register_forward_hook(  # type: ignore[operator]
        lambda _module, _args, output: output.requires_grad_(True)
    )
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            graph = engine.task.losses(batch)
    finally:
        handle.remove()
    del graph
    layers = engine.table.layers
    kept = 2 * engine.dtype.itemsize * sum(layer.inputs for layer in layers if layer.name == layer.source)
    return int(TOKEN_SLACK * (sum(seen.values()) / longest + kept))
