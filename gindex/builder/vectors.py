"""The vector phase of a build: segment by segment, each computed once and published whole."""

import logging
from collections.abc import Sequence

import numpy as np
import torch

from gindex.config import BuildConfig, VectorConfig
from gindex.corpus.table import DocumentTable
from gindex.engine import Engine
from gindex.errors import NonFiniteError
from gindex.gradient.codes import encode
from gindex.gradient.projection import ProjectionSpec
from gindex.gradient.vector import VectorBatch
from gindex.progress import Progress
from gindex.store.layout import Layout
from gindex.store.manifest import LayerRecord
from gindex.store.vectors import CodedVectors, VectorSpec, VectorWriter, choose_segment_parts

logger = logging.getLogger(__name__)


def vector_spec(config: VectorConfig, projection: ProjectionSpec, parts: int) -> VectorSpec:
    """Decide the shape of the stored vectors."""
    return VectorSpec(
        parts=parts,
        segment_parts=choose_segment_parts(parts, config.dimension * config.bits // 8),
        dimension=config.dimension,
        bits=config.bits,
        slices=tuple(projection.slices.values()),
    )


def compute_vectors(
    layout: Layout,
    engine: Engine,
    table: DocumentTable,
    config: BuildConfig,
    layers: Sequence[LayerRecord],
    spec: VectorSpec,
    strict: bool,
    progress: Progress,
) -> None:
    """Compute and publish every segment that isn't there yet.

    Batches are formed within a segment, so a segment comes out the same whenever it is computed.

    Raises:
        NonFiniteError: A document's loss or gradient is not finite, and `strict` is set.
    """
    writer = VectorWriter(layout, spec)
    path = None
    with progress.phase("vectors", spec.parts, "parts") as phase:
        for number in range(spec.segments):
            parts = spec.segment_range(number)
            if writer.is_finished(number):
                phase.advance(len(parts))
                continue
            if path is None:
                path = engine.vector_path(layout, layers, spec.dimension, config.seed, config.curvature.index_damping)
            tokens, first_targets = table.tokens(list(parts)), np.ones(len(parts), np.int64)
            batch = engine.encode_all(path, tokens, first_targets, config.batch_tokens, phase.advance)
            skipped = _name_skipped(table, parts, batch, strict)
            writer.write(number, _code(batch, spec), skipped)


def _name_skipped(table: DocumentTable, parts: range, batch: VectorBatch, strict: bool) -> dict[int, str]:
    """Return the parts whose loss or gradient is not finite, with the reason."""
    bad = [parts[position] for position in torch.nonzero(~batch.finite)[:, 0].tolist()]
    skipped = {}
    for part in table.parts(bad):
        where = f"document {part.document_id!r}, part {part.part}"
        reason = f"{where}: expected a finite loss and gradient, found NaN or infinity"
        if strict:
            raise NonFiniteError(f"{reason}; drop the document, use --dtype float32, or build without --strict")
        logger.warning("%s; it is left out of the index", reason)
        skipped[part.ordinal] = reason
    return skipped


def _code(batch: VectorBatch, spec: VectorSpec) -> CodedVectors:
    """Code vectors on their device; those that are not finite become zeros."""
    finite_N = batch.finite
    vectors_ND = torch.where(finite_N[:, None], batch.vectors, 0.0)
    codes, scales = encode(vectors_ND, spec.bits, spec.slices)
    return CodedVectors(
        codes=codes.cpu().numpy(),
        scales=scales.cpu().numpy(),
        self_influence=torch.where(finite_N, batch.self_influence, 0.0).cpu().numpy(),
    )
