"""What a build takes of memory, and batches that keep it within a bound.

What a phase holds whatever the batch follows from the shapes. A phase that holds less has room for larger batches;
where only small ones fit, blocks of the model are checkpointed.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from gindex.build.allocator import freed_at_once
from gindex.build.fit_memory import covariance_bytes, factor_bytes, fit_bytes, fit_rounds, with_own_factors
from gindex.build.token_bytes import token_bytes
from gindex.config import BuildConfig
from gindex.curvature.eigenbasis import ROOM_BYTES
from gindex.curvature.experts import expected_sharing
from gindex.curvature.ranks import ranks
from gindex.errors import ConfigError
from gindex.exact.rerank import BLOCK_BYTES
from gindex.model.checkpointing import checkpointed
from gindex.model.devices import device_bytes
from gindex.model.head import CHUNK
from gindex.model.layers import LayerTable, TrackedLayer
from gindex.model.number_formats import Formats
from gindex.model.quantisation import plain_tensors
from gindex.model.tracked_model import TrackedModel
from gindex.store.vectors import choose_segment_parts, code_bytes
from gindex.vectors.held_gradients import rounded_bytes, whole_bytes

T = TypeVar("T")

GIGABYTE = 10**9

PROGRAM_BYTES = 700_000_000
"""What Python and its libraries take."""

COMPILED_BYTES = 300_000_000
"""What oneDNN's compiled products take beside that where a processor multiplies in 16 bits."""

SPARE_BYTES = GIGABYTE
"""What a build on a CPU takes beside the model and its factors where no bound is set."""

TYPICAL_FRACTION = 0.25
"""Share of each eigenbasis that is reckoned with before it is chosen."""

LEAST_BATCH_TOKENS = 64
"""Tokens of a batch that no memory goes too far for, where no bound was set."""

ENOUGH = 0.25
"""Share of the tokens that are wanted in a batch below which its blocks are checkpointed: another forward pass then
costs less than reading all weights for so few tokens."""

LARGE_GRADIENT = 1 << 24
"""Values of a document's gradient in a layer from which on it counts beside the batch's tokens."""

CALIBRATION_TOKENS = 2048
"""Tokens of a batch of calibration, whose documents are compared with one another, where there is room for them."""

EXACT_BATCH_TOKENS = 512
"""Tokens of a batch of exact influence where not all queries fit: each query that is held saves a share of a pass."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Memory of one phase of a build, in bytes.

    Attributes:
        fixed: Taken whatever the batch: the program, the model, factors, tables.
        token: Taken for each token of a batch.
        checkpointed: The same where blocks are checkpointed.
    """

    fixed: int
    token: int
    checkpointed: int

    def of(self, size: "BatchSize") -> int:
        """The peak with batches of such a size."""
        return self.fixed + size.tokens * (self.checkpointed if size.checkpointing else self.token)

    def within(self, bound: int, *, checkpointing: bool = False) -> int:
        """How many tokens a batch may have; negative where not even the rest is held."""
        return (bound - self.fixed) // (self.checkpointed if checkpointing else self.token)

    def least(self, tokens: int) -> int:
        """The least that batches of so many tokens take."""
        return self.fixed + tokens * min(self.token, self.checkpointed)

    def batches(self, wanted: int, least: int, bound: int) -> "BatchSize":
        """The batches to take: as large as wanted, or as the bound allows, but not smaller than the least.

        Args:
            wanted: Tokens of a batch that suit the device.
            least: Tokens that are taken in any case.
            bound: Memory that there is, in bytes.
        """
        plain, checkpointed = self.within(bound), self.within(bound, checkpointing=True)
        if plain >= ENOUGH * wanted or self.checkpointed >= self.token:
            return BatchSize(tokens=min(wanted, max(least, plain)))
        return BatchSize(tokens=min(wanted, max(least, checkpointed)), checkpointing=True)


@dataclass(frozen=True, kw_only=True)
class BatchSize:
    """Most tokens of a batch, and whether blocks are checkpointed for it."""

    tokens: int
    checkpointing: bool = False

    @contextmanager
    def passes(self, model: TrackedModel) -> Iterator[None]:
        """Run passes over such batches; where memory is scarce, what they free goes back to the system at once."""
        if not self.checkpointing:
            yield
            return
        with checkpointed(model.blocks), freed_at_once():
            yield


@dataclass(frozen=True, kw_only=True)
class ByPhase(Generic[T]):
    """Something of each phase of a build whose passes take memory."""

    fit: T
    calibration: T
    vectors: T
    fidelity: T


def memory_needs(model: TrackedModel, config: BuildConfig, parts: int, longest: int) -> ByPhase[MemoryNeed]:
    """Reckon what the phases of a build need; measuring fidelity, with one query held.

    Args:
        model: The loaded model.
        config: Its settings.
        parts: Parts of the corpus.
        longest: Tokens of the longest part.
    """
    layers, formats = model.table.layers, model.factor_formats
    fit = max(fit_bytes(round.layers, formats) for round in rounds_of_fit(model, config, longest))
    one = 8 * max(layer.parameters for layer in layers)  # the factors of a layer, and what is made with them
    vectors = _vector_bytes(layers, config, formats) + _segment_bytes(config, parts)
    fidelity = _fidelity_bytes(model, config) + whole_bytes(layers, formats, model.device)
    standing, token = _standing_bytes(model), token_bytes(model, longest)
    # Rotated and cut short, or, of long documents, as they were read: half of what whole rotated ones take beside them.
    kept = max(0.5, config.vectors.rank_fraction or TYPICAL_FRACTION)

    def need(fixed: int, activations: float = 1.0) -> MemoryNeed:
        return MemoryNeed(fixed=standing + fixed, token=token.plain(activations), checkpointed=token.checkpointed)

    return ByPhase(fit=need(fit), calibration=need(one), vectors=need(vectors, kept), fidelity=need(fidelity))


def rounds_of_fit(model: TrackedModel, config: BuildConfig, longest: int) -> tuple[LayerTable, ...]:
    """The rounds in which the curvature of a model is fitted: one, unless that is too much for the bound or the device.

    Args:
        model: The loaded model.
        config: Its settings.
        longest: Tokens of the longest part.
    """
    bound = int(config.memory * GIGABYTE) if config.memory else device_bytes(model.device)
    if bound is None:
        return fit_rounds(model.table, None, model.factor_formats)
    token = token_bytes(model, longest)
    tokens = max(longest, LEAST_BATCH_TOKENS if config.memory else config.batch_tokens or model.usual_batch_tokens)
    room = bound - _standing_bytes(model) - tokens * min(token.plain(), token.checkpointed)
    return fit_rounds(model.table, room, model.factor_formats)


def batch_sizes(model: TrackedModel, config: BuildConfig, parts: int, longest: int) -> ByPhase[BatchSize]:
    """The batches of each phase: as large as suit the device, or as memory allows.

    Memory is bound by the settings, or, on a CPU where they say nothing of batches either, by the model, its factors
    and `SPARE_BYTES`.

    Raises:
        ConfigError: The bound of the settings can't hold the longest part.
    """
    wanted = config.batch_tokens or model.usual_batch_tokens
    bound = _bound(model, config)
    if bound is None:
        usual = BatchSize(tokens=wanted)
        return ByPhase(fit=usual, calibration=BatchSize(tokens=CALIBRATION_TOKENS), vectors=usual, fidelity=usual)
    needs, least = memory_needs(model, config, parts, longest), max(longest, LEAST_BATCH_TOKENS)
    if config.memory:
        least, most = longest, _least_bytes(needs, longest)
        if most > bound:
            raise ConfigError(
                field="memory",
                expected=(
                    f"at least {most / GIGABYTE:.1f} GB, which the model, its factors and one part of {longest} "
                    "tokens need"
                ),
                found=f"{config.memory:g}",
                remedy="give that much, or cut documents into shorter parts with `max_tokens`",
            )
    queries = max(0, config.fidelity.queries - 1) * rounded_bytes(
        model.table.layers, model.factor_formats, model.device
    )
    few = min(wanted, EXACT_BATCH_TOKENS)
    exact = needs.fidelity.batches(wanted, least, bound - queries)
    if exact.tokens < few or needs.fidelity.of(exact) > bound - queries:  # not all queries are held
        again = needs.fidelity.checkpointed < needs.fidelity.token
        most = needs.fidelity.within(bound, checkpointing=again)
        exact = BatchSize(tokens=min(few, max(least, most)), checkpointing=again)
    return ByPhase(
        fit=needs.fit.batches(wanted, least, bound),
        calibration=needs.calibration.batches(CALIBRATION_TOKENS, least, bound),
        vectors=needs.vectors.batches(wanted, least, bound),
        fidelity=exact,
    )


def _least_bytes(needs: ByPhase[MemoryNeed], longest: int) -> int:
    phases: list[MemoryNeed] = list(vars(needs).values())
    return max(need.least(longest) for need in phases)


def with_expert_factors(
    model: TrackedModel, config: BuildConfig, fit_tokens: int, parts: int, longest: int
) -> TrackedModel:
    """The model with experts that share factors where the fit has too few tokens for their own, or memory is too small.

    Args:
        model: The loaded model.
        config: Settings of the build.
        fit_tokens: Tokens of the fit.
        parts: Parts of the corpus.
        longest: Tokens of the longest part.
    """
    for tokens in (fit_tokens, 0):
        layers = expected_sharing(model.table.layers, tokens)
        planned = replace(model, table=replace(model.table, layers=layers))
        bound = _bound(planned, config) if config.memory else None
        if bound is None or _least_bytes(memory_needs(planned, config, parts, longest), longest) <= bound:
            break
    return planned


def peak_bytes(model: TrackedModel, config: BuildConfig, parts: int, longest: int) -> int:
    """The most that a build takes at a time, as far as that can be reckoned."""
    needs, sizes = memory_needs(model, config, parts, longest), batch_sizes(model, config, parts, longest)
    peaks: list[int] = [
        need.of(replace(size, tokens=max(longest, size.tokens)))
        for need, size in zip(vars(needs).values(), vars(sizes).values(), strict=True)
    ]
    return max(peaks)


def decomposition_room(model: TrackedModel, config: BuildConfig, rounds: Sequence[LayerTable]) -> int:
    """How much memory eigendecompositions may take beside the covariances of a round, in bytes; one always runs."""
    bound = _bound(model, config)
    if bound is None:
        return ROOM_BYTES
    return bound - _standing_bytes(model) - max(covariance_bytes(layers) for layers in rounds)


def model_and_factors(model: TrackedModel) -> int:
    """The bytes of the model's weights and of its EK-FAC factors as they are fitted and stored, in float32."""
    layers = model.table.layers
    return weight_bytes(model) + factor_bytes(layers)


def weight_bytes(model: TrackedModel) -> int:
    """The bytes of the model's weights."""
    weights = (part for weight in model.loaded.model.parameters() for part in plain_tensors(weight))
    return sum(part.numel() * part.element_size() for part in weights)


def query_room(model: TrackedModel, config: BuildConfig, size: BatchSize, longest: int) -> int:
    """How much memory preconditioned queries may take, in bytes; at least one is always held.

    Args:
        model: The loaded model.
        config: Its settings.
        size: The batches.
        longest: Tokens of the longest part.
    """
    bound = _bound(model, config)
    if bound is None:
        return BLOCK_BYTES
    token = token_bytes(model, longest)
    others = _standing_bytes(model) + _fidelity_bytes(model, config)
    others += max(size.tokens, longest) * (token.checkpointed if size.checkpointing else token.plain())
    return min(BLOCK_BYTES, max(whole_bytes(model.table.layers, model.factor_formats, model.device), bound - others))


def _bound(model: TrackedModel, config: BuildConfig) -> int | None:
    if config.memory:
        return int(config.memory * GIGABYTE)
    if config.batch_tokens or model.device.type != "cpu":
        return None
    return model_and_factors(model) + SPARE_BYTES


def _standing_bytes(model: TrackedModel) -> int:
    """What every phase holds: the program, the model, logits of a chunk of positions."""
    logits = CHUNK * model.task.vocabulary * (2 * model.dtype.itemsize + 8)
    compiled = COMPILED_BYTES if model.device.type == "cpu" and model.dtype.itemsize == 2 else 0
    return PROGRAM_BYTES + compiled + weight_bytes(model) + logits


def _fidelity_bytes(model: TrackedModel, config: BuildConfig) -> int:
    """What measuring fidelity holds beside its queries: the path to vectors, and one layer's factors."""
    layers = model.table.layers
    return _vector_bytes(layers, config, model.factor_formats) + 8 * max(layer.parameters for layer in layers)


def _vector_bytes(layers: Sequence[TrackedLayer], config: BuildConfig, formats: Formats) -> int:
    """Truncated bases, what they are scaled by, and the projection's table."""
    kept = {layer.name: ranks(layer, config.vectors.rank_fraction or TYPICAL_FRACTION) for layer in layers}
    own, sources = with_own_factors(layers), {layer.source: layer for layer in layers}
    size = {name: dtype.itemsize for name, dtype in formats.items()}
    bases = sum(size[of.name] * of.input_side.rotation(kept[of.name][0]) for of in sources.values())
    bases += sum(size[of.name] * of.output_side.rotation(kept[of.name][1]) for of in own)
    scales = 2 * 4 * sum(math.prod(kept[layer.name]) for layer in own)
    largest = max(kept, key=lambda name: math.prod(kept[name]))
    values = math.prod(kept[largest])
    formed = 3 * size[largest] * values if values > LARGE_GRADIENT else 0  # whitened, scaled and dealt
    return bases + scales + 5 * sum(map(math.prod, kept.values())) + formed


def _segment_bytes(config: BuildConfig, parts: int) -> int:
    """Codes of a segment that is made, and of the one before while it is written, which takes them twice."""
    row = code_bytes(config.vectors.dimension, config.vectors.bits)
    return 3 * row * min(parts, choose_segment_parts(parts, row))
