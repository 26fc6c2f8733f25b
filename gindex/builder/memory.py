"""What a build takes of memory, and batches that keep it within a bound.

What a phase holds whatever the batch follows from the shapes. What a token costs is measured: one pass over a document
of the corpus's greatest length is watched for what it keeps until the backward pass. A phase that holds less has room
for larger batches.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

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

T = TypeVar("T")

GIGABYTE = 10**9

PROGRAM_BYTES = 700_000_000
"""What Python and its libraries take."""

SPARE_BYTES = GIGABYTE
"""What a build on a CPU takes beside the model and its factors where no bound is set."""

TYPICAL_FRACTION = 0.25
"""Share of each eigenbasis that is reckoned with before it is chosen."""

TOKEN_SLACK = 1.5
"""What a pass takes beside what it keeps: gradients on their way down, copies of a layer's activations."""

LEAST_BATCH_TOKENS = 64
"""Tokens of a batch that no memory goes too far for, where no bound was set."""

CALIBRATION_TOKENS = 2048
"""Tokens of a batch of calibration, whose documents are compared with one another, where there is room for them."""

EXACT_BATCH_TOKENS = 160
"""Tokens of a batch of exact influence where not all queries fit: each query that is held saves a share of a pass."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Memory of one phase of a build, in bytes.

    Attributes:
        fixed: Taken whatever the batch: the program, the model, factors, tables.
        token: Taken for each token of a batch.
    """

    fixed: int
    token: int

    def of(self, tokens: int) -> int:
        """Return the peak with batches of so many tokens."""
        return self.fixed + tokens * self.token

    def within(self, bound: int) -> int:
        """Return how many tokens a batch may have; negative where not even the rest is held."""
        return (bound - self.fixed) // self.token


@dataclass(frozen=True, kw_only=True)
class ByPhase(Generic[T]):
    """Something of each phase of a build whose passes take memory."""

    fit: T
    calibration: T
    vectors: T
    fidelity: T


def memory_needs(engine: Engine, config: BuildConfig, parts: int, longest: int) -> ByPhase[MemoryNeed]:
    """Reckon what the phases of a build need; measuring fidelity, with one query held.

    Args:
        engine: The loaded model.
        config: Its settings.
        parts: Parts of the corpus.
        longest: Tokens of the longest part.
    """
    layers, size = engine.table.layers, engine.dtype.itemsize
    squares = sum(width**2 for width in sides(layers))
    values = sum(layer.parameters for layer in layers)
    fit = (
        4 * squares + 4 * 8 * max(sides(layers)) ** 2,  # covariances, and one that is decomposed
        size * squares + 4 * values,  # bases, and sums of the corrected eigenvalues
    )
    one = 8 * max(layer.parameters for layer in layers)  # the factors of a layer, and what is made with them
    vectors = _vector_bytes(layers, config, size) + _segment_bytes(config, parts)
    fidelity = _fidelity_bytes(engine, config) + size * values
    standing, (saved, activations) = _standing_bytes(engine), _token_bytes(engine, longest)
    whole = int(TOKEN_SLACK * (saved + activations))
    # Rotated and cut short, or, of long documents, as they were read: half of what whole rotated ones take beside them.
    kept = int(TOKEN_SLACK * (saved + activations * max(0.5, config.vectors.rank_fraction or TYPICAL_FRACTION)))
    return ByPhase(
        fit=MemoryNeed(fixed=standing + max(fit), token=whole),
        calibration=MemoryNeed(fixed=standing + one, token=whole),
        vectors=MemoryNeed(fixed=standing + vectors, token=kept),
        fidelity=MemoryNeed(fixed=standing + fidelity, token=whole),
    )


def batch_tokens(engine: Engine, config: BuildConfig, parts: int, longest: int) -> ByPhase[int]:
    """Return the most tokens of a batch in each phase: as many as suit the device, or as memory allows.

    Memory is bound by the settings, or, on a CPU where they say nothing of batches either, by the model, its factors
    and `SPARE_BYTES`.

    Raises:
        ConfigError: The bound of the settings can't hold the longest part.
    """
    wanted = config.batch_tokens or engine.usual_batch_tokens
    bound = _bound(engine, config)
    if bound is None:
        return ByPhase(fit=wanted, calibration=CALIBRATION_TOKENS, vectors=wanted, fidelity=wanted)
    needs, least = memory_needs(engine, config, parts, longest), max(longest, LEAST_BATCH_TOKENS)
    if config.memory:
        least, most = longest, max(need.of(longest) for need in vars(needs).values())
        if most > bound:
            raise ConfigError(
                f"--memory: expected at least {most / GIGABYTE:.1f} GB, which the model, its factors and one part of "
                f"{longest} tokens need, got {config.memory:g}; or cut documents into shorter parts with --max-tokens"
            )
    queries = max(0, config.fidelity.queries - 1) * _query_bytes(engine)
    beside = needs.fidelity.within(bound - queries)
    exact = beside if beside >= EXACT_BATCH_TOKENS else min(EXACT_BATCH_TOKENS, needs.fidelity.within(bound))
    fit, vectors, fidelity = (
        min(wanted, max(least, most)) for most in (needs.fit.within(bound), needs.vectors.within(bound), exact)
    )
    calibration = min(CALIBRATION_TOKENS, max(least, needs.calibration.within(bound)))
    return ByPhase(fit=fit, calibration=calibration, vectors=vectors, fidelity=fidelity)


def peak_bytes(engine: Engine, config: BuildConfig, parts: int, longest: int) -> int:
    """Return the most that a build takes at a time, as far as that can be reckoned."""
    needs, tokens = memory_needs(engine, config, parts, longest), batch_tokens(engine, config, parts, longest)
    most: int = max(need.of(max(longest, vars(tokens)[phase])) for phase, need in vars(needs).items())
    return most


def release() -> None:
    """Give memory that a phase has freed back to the system, where the C library would keep it for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def model_and_factors(engine: Engine) -> int:
    """Return the bytes of the model's weights and of its EK-FAC factors: eigenbases and corrected eigenvalues."""
    layers = engine.table.layers
    bases = engine.dtype.itemsize * sum(width**2 for width in sides(layers))
    return weight_bytes(engine) + bases + 4 * sum(layer.parameters for layer in layers)


def weight_bytes(engine: Engine) -> int:
    """Return the bytes of the model's weights."""
    return sum(p.numel() * p.element_size() for p in engine.loaded.model.parameters())


def query_room(engine: Engine, config: BuildConfig, tokens: int, longest: int) -> int:
    """Return how much memory preconditioned queries may take, in bytes; at least one is always held.

    Args:
        engine: The loaded model.
        config: Its settings.
        tokens: Tokens of a batch.
        longest: Tokens of the longest part.
    """
    bound = _bound(engine, config)
    if bound is None:
        return BLOCK_BYTES
    saved, activations = _token_bytes(engine, longest)
    others = _standing_bytes(engine) + _fidelity_bytes(engine, config)
    others += max(tokens, longest) * int(TOKEN_SLACK * (saved + activations))
    return min(BLOCK_BYTES, max(_query_bytes(engine), bound - others))


def sides(layers: Sequence[TrackedLayer]) -> list[int]:
    """Widths of all covariances that are kept: one a source, one a layer."""
    return [layer.inputs for layer in layers if layer.name == layer.source] + [layer.outputs for layer in layers]


def vocabulary(engine: Engine) -> int:
    """Return how many tokens the model knows."""
    return int(engine.loaded.model.get_input_embeddings().num_embeddings)  # type: ignore[operator]


def _bound(engine: Engine, config: BuildConfig) -> int | None:
    if config.memory:
        return int(config.memory * GIGABYTE)
    if config.batch_tokens or engine.device.type != "cpu":
        return None
    return model_and_factors(engine) + SPARE_BYTES


def _query_bytes(engine: Engine) -> int:
    return engine.dtype.itemsize * sum(layer.parameters for layer in engine.table.layers)


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


def _token_bytes(engine: Engine, longest: int) -> tuple[float, int]:
    """Measure what a token's pass keeps: the model until it comes back, and activations, read and rotated."""
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
    return sum(seen.values()) / longest, kept
