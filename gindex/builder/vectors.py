"""The vectors of a volume: segment by segment, each computed once and published whole.

Several processes may share the work: a segment is computed by the one that claims it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from gindex.builder.memory import BatchSize, ByPhase, batch_sizes
from gindex.builder.state import claimed
from gindex.config import BuildConfig, VectorConfig
from gindex.corpus.table import DocumentTable
from gindex.engine import Engine
from gindex.errors import NonFiniteError
from gindex.gradient.codes import encode
from gindex.gradient.projection import ProjectionSpec
from gindex.gradient.vector import VectorBatch, VectorPath
from gindex.progress import Phase, Progress
from gindex.store.layout import Layout, VolumeLayout
from gindex.store.manifest import LayerRecord
from gindex.store.vectors import (
    CodedVectors,
    SegmentRecord,
    VectorSpec,
    VectorWriter,
    choose_segment_parts,
    empty_coded,
)

logger = logging.getLogger(__name__)


def vector_spec(config: VectorConfig, projection: ProjectionSpec, parts: int) -> VectorSpec:
    """Decide the shape of a volume's vectors."""
    return VectorSpec(
        parts=parts,
        segment_parts=choose_segment_parts(parts, config.dimension * config.bits // 8),
        dimension=config.dimension,
        bits=config.bits,
        slices=tuple(projection.slices.values()),
    )


@dataclass(kw_only=True, eq=False)
class VectorWork:
    """What the vectors of a volume are computed from.

    Attributes:
        layout: The index.
        number: The volume.
        first_part: Ordinal of the volume's first part.
        spec: Shape of its vectors.
        engine: The model.
        table: Where the parts' tokens are.
        config: All settings.
        layers: The tracked layers with their ranks.
        projection: The projection.
        index_damping: Multiple of each layer's mean eigenvalue.
        strict: Stop at a part whose loss or gradient is not finite.
    """

    layout: Layout
    number: int
    first_part: int
    spec: VectorSpec
    engine: Engine
    table: DocumentTable
    config: BuildConfig
    layers: Sequence[LayerRecord]
    projection: ProjectionSpec
    index_damping: float
    strict: bool = False
    _path: VectorPath | None = None

    @cached_property
    def batch_sizes(self) -> ByPhase[BatchSize]:
        """The batches of each phase."""
        return batch_sizes(self.engine, self.config, self.spec.parts, int(self.table.part_lengths().max()))

    @property
    def volume(self) -> VolumeLayout:
        """Where the vectors go."""
        return self.layout.volume(self.number)

    @property
    def path(self) -> VectorPath:
        """The path from passes to vectors, prepared when it is first asked for."""
        if self._path is None:
            self._path = self.engine.vector_path(self.layout, self.layers, self.projection, self.index_damping)
        return self._path

    def compute(self, progress: Progress, segments: Sequence[int] | None = None) -> dict[int, SegmentRecord]:
        """Compute and publish every segment that isn't there yet; all, or those asked for.

        Batches are formed within a segment, so a segment comes out the same whenever it is computed. Segments that
        another process has claimed are waited for, and computed here where that process dies.

        Raises:
            NonFiniteError: A document's loss or gradient is not finite, and `strict` is set.
        """
        writer = VectorWriter(self.volume, self.spec)
        numbers = range(self.spec.segments) if segments is None else segments
        done: dict[int, SegmentRecord] = {}
        with progress.phase("vectors", sum(len(self.spec.segment_range(n)) for n in numbers), "parts") as phase:
            for wait in (False, True):
                for number in [n for n in numbers if n not in done]:
                    found = writer.finished(number) or self._claim(writer, number, wait, phase)
                    if found is not None:
                        done[number] = found
        return {number: done[number] for number in numbers}

    def _claim(self, writer: VectorWriter, number: int, wait: bool, phase: Phase) -> SegmentRecord | None:
        with claimed(self.layout, self.number, number, wait) as mine:
            if not mine:
                return None
            return writer.finished(number) or self._segment(writer, number, phase)

    def _segment(self, writer: VectorWriter, number: int, phase: Phase) -> SegmentRecord:
        rows = self.spec.segment_range(number)
        parts = range(self.first_part + rows.start, self.first_part + rows.stop)
        tokens, first_targets = self.table.tokens(list(parts)), np.ones(len(parts), np.int64)
        coded, finite_N = empty_coded(self.spec, len(parts)), np.zeros(len(parts), np.bool_)
        size = self.batch_sizes.vectors
        with size.passes(self.engine):
            for positions, batch in self.engine.encode_batches(self.path, tokens, first_targets, size.tokens):
                finite_N[positions] = _code(batch, self.spec, coded, positions)
                phase.advance(len(positions))
        bad = [parts[position] for position in np.flatnonzero(~finite_N)]
        return writer.write(number, coded, _name_skipped(self.table, bad, self.strict))


def _name_skipped(table: DocumentTable, bad: Sequence[int], strict: bool) -> dict[int, str]:
    """Return the parts whose loss or gradient is not finite, with the reason."""
    skipped = {}
    for part in table.parts(bad):
        where = f"document {part.document_id!r}, part {part.part}"
        reason = f"{where}: expected a finite loss and gradient, found NaN or infinity"
        if strict:
            raise NonFiniteError(f"{reason}; drop the document, use --dtype float32, or build without --strict")
        logger.warning("%s; it is left out of the index", reason)
        skipped[part.ordinal] = reason
    return skipped


def _code(
    batch: VectorBatch, spec: VectorSpec, out: CodedVectors, positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Code vectors [N] on their device into `out` at `positions`; return which are finite, the others become zeros."""
    finite_N = batch.finite
    codes, scales = encode(torch.where(finite_N[:, None], batch.vectors, 0.0), spec.bits, spec.slices)
    out.codes[positions] = codes.cpu().numpy()
    out.scales[positions] = scales.cpu().numpy()
    out.self_influence[positions] = torch.where(finite_N, batch.self_influence, 0.0).cpu().numpy()
    return finite_N.cpu().numpy()
