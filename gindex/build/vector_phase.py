"""The vectors of a volume: segment by segment, each computed once and published whole.

Several processes may share the work: a segment is computed by the one that claims it.
"""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Self

import numpy as np
import numpy.typing as npt
import torch

from gindex.build.memory import BatchSize, ByPhase, batch_sizes
from gindex.build.state import claimed
from gindex.config import BuildConfig, VectorConfig
from gindex.documents.table import DocumentTable
from gindex.errors import NonFiniteError
from gindex.model.devices import to_host
from gindex.model.layer_records import LayerRecord
from gindex.model.number_formats import wider
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Phase, Progress
from gindex.store.factors import FactorReader
from gindex.store.layout import Layout, VolumeLayout
from gindex.store.snapshot import Snapshot
from gindex.store.vectors import (
    CodedVectors,
    SegmentRecord,
    VectorSpec,
    VectorWriter,
    choose_segment_parts,
    empty_coded,
)
from gindex.vectors.codes import encode
from gindex.vectors.encoder import Encoder
from gindex.vectors.path import VectorBatch
from gindex.vectors.projection import ProjectionSpec

logger = logging.getLogger(__name__)


def vector_spec(config: VectorConfig, projection: ProjectionSpec, parts: int) -> VectorSpec:
    """The shape of the vectors of a volume of so many parts."""
    return VectorSpec(
        parts=parts,
        segment_parts=choose_segment_parts(parts, config.dimension * config.bits // 8),
        dimension=config.dimension,
        bits=config.bits,
        slices=tuple(projection.slices.values()),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorSetup:
    """What the vectors of every volume of an index are computed with.

    Attributes:
        layout: The index.
        model: The model.
        config: All settings.
        layers: The tracked layers with their ranks.
        projection: The projection.
        index_damping: Multiple of each layer's mean eigenvalue.
        strict: Stop at a part whose loss or gradient is not finite.
    """

    layout: Layout
    model: TrackedModel
    config: BuildConfig
    layers: Sequence[LayerRecord]
    projection: ProjectionSpec
    index_damping: float
    strict: bool = False

    @classmethod
    def recorded(cls, snapshot: Snapshot, model: TrackedModel, config: BuildConfig, *, strict: bool) -> Self:
        """What a finished index was built with."""
        return cls(
            layout=snapshot.layout,
            model=model,
            config=config,
            layers=snapshot.manifest.layers,
            projection=snapshot.projection,
            index_damping=snapshot.manifest.damping.index,
            strict=strict,
        )

    @cached_property
    def factors(self) -> FactorReader:
        """What loads the factors of a layer."""
        return FactorReader.of(self.layout, self.layers, self.model)

    @cached_property
    def encoder(self) -> Encoder:
        """What makes vectors, prepared when it is first asked for."""
        return self.factors.encoder(self.model, self.projection, self.index_damping)

    def work(self, number: int, first_part: int, table: DocumentTable, spec: VectorSpec | None = None) -> "VectorWork":
        """The vectors of a volume, to be computed.

        Args:
            number: The volume.
            first_part: Ordinal of its first part.
            table: Where the tokens of its parts are.
            spec: Shape of its vectors; None takes what suits the table, which is then the volume's alone.
        """
        return VectorWork(
            setup=self,
            number=number,
            first_part=first_part,
            spec=vector_spec(self.config.vectors, self.projection, table.counts().parts) if spec is None else spec,
            table=table,
        )


@dataclass(kw_only=True, eq=False)
class VectorWork:
    """The vectors of a volume that are computed.

    Attributes:
        setup: What with.
        number: The volume.
        first_part: Ordinal of the volume's first part.
        spec: Shape of its vectors.
        table: Where the parts' tokens are.
    """

    setup: VectorSetup
    number: int
    first_part: int
    spec: VectorSpec
    table: DocumentTable

    @cached_property
    def batch_sizes(self) -> ByPhase[BatchSize]:
        """The batches of each phase."""
        longest = self.table.counts().longest_part
        return batch_sizes(self.setup.model, self.setup.config, self.spec.parts, longest)

    @property
    def volume(self) -> VolumeLayout:
        """Where the vectors go."""
        return self.setup.layout.volume(self.number)

    def compute(self, progress: Progress, segments: Sequence[int] | None = None) -> dict[int, SegmentRecord]:
        """Compute and publish every segment that isn't there yet; all, or those asked for.

        Batches are formed within a segment, so a segment comes out the same whenever it is computed. One is written
        while the next is computed. Segments that another process has claimed are waited for, and computed here where
        that process dies.

        Raises:
            NonFiniteError: A document's loss or gradient is not finite, and `strict` is set.
        """
        writer = VectorWriter(self.volume, self.spec)
        numbers = range(self.spec.segments) if segments is None else segments
        done: dict[int, SegmentRecord] = {}
        with (
            progress.phase("vectors", sum(len(self.spec.segment_range(n)) for n in numbers), "parts") as phase,
            _Writing(done) as writing,
        ):
            for wait in (False, True):
                for number in [n for n in numbers if n not in done]:
                    found = writer.finished(number)
                    if found is not None:
                        done[number] = found
                    else:
                        self._claim(writer, number, wait, phase, writing)
                writing.finish()
        return {number: done[number] for number in numbers}

    def _claim(self, writer: VectorWriter, number: int, wait: bool, phase: Phase, writing: "_Writing") -> None:
        """Compute a segment and begin to write it, unless another process has claimed it, or is done with it."""
        with ExitStack() as claim:
            if not claim.enter_context(claimed(self.setup.layout, self.number, number, wait)):
                return
            found = writer.finished(number)
            if found is not None:
                writing.done[number] = found
                return
            coded, skipped = self._segment(number, phase)
            writing.begin(number, lambda: writer.write(number, coded, skipped), claim.pop_all())

    def _segment(self, number: int, phase: Phase) -> tuple[CodedVectors, dict[int, str]]:
        """The codes of a segment, and the parts that have none, with the reason."""
        rows = self.spec.segment_range(number)
        parts = range(self.first_part + rows.start, self.first_part + rows.stop)
        objectives = self.table.objectives(list(parts))
        coded, finite_N = empty_coded(self.spec, len(parts)), np.zeros(len(parts), np.bool_)
        size = self.batch_sizes.vectors
        finish: Callable[[], None] = lambda: None  # noqa: E731
        with size.passes(self.setup.model):
            for positions, batch in self.setup.encoder.encode_batches(objectives, size.tokens):
                fetch = _code(batch, self.spec)
                finish()  # the batch before this one, once this one has been begun
                finish = partial(_store, fetch, coded, finite_N, positions, phase)
            finish()
        bad = [parts[position] for position in np.flatnonzero(~finite_N)]
        return coded, _name_skipped(self.table, bad, self.setup.model.dtype_name, self.setup.strict)


class _Writing:
    """Writes one segment at a time on a thread of its own, and lets go of its claim when it is there."""

    def __init__(self, done: dict[int, SegmentRecord]) -> None:
        self.done = done
        self._thread = ThreadPoolExecutor(1, "gindex-write")
        self._begun: tuple[int, Future[SegmentRecord]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._thread.shutdown()

    def begin(self, number: int, write: Callable[[], SegmentRecord], claim: ExitStack) -> None:
        """Begin to write a segment when the one before is written."""
        with claim:  # let go of where the one before could not be written
            self.finish()
            held = claim.pop_all()

        def act() -> SegmentRecord:
            with held:
                return write()

        self._begun = number, self._thread.submit(act)

    def finish(self) -> None:
        """Wait for what was begun.

        Raises:
            StoreError: It cannot be written.
        """
        if self._begun is not None:
            number, future = self._begun
            self._begun = None
            self.done[number] = future.result()


def _name_skipped(table: DocumentTable, bad: Sequence[int], dtype: str, strict: bool) -> dict[int, str]:
    """The parts whose loss or gradient is not finite, with the reason."""
    skipped = {}
    for part in table.parts(bad):
        bad_part = {
            "field": f"document {part.document_id!r}, part {part.part}",
            "expected": "a finite loss and gradient",
            "found": f"NaN or infinity in {dtype}",
        }
        if strict:
            remedy = f"drop the document, use `dtype` {wider(dtype)}, or build without `strict`"
            raise NonFiniteError(**bad_part, remedy=remedy)
        reason = str(NonFiniteError(**bad_part))
        advice = f"; `dtype` {wider(dtype)} may take it" if dtype == "float16" else ""
        logger.warning("%s; it is left out of the index%s", reason, advice)
        skipped[part.ordinal] = reason
    return skipped


def _code(batch: VectorBatch, spec: VectorSpec) -> Callable[[], list[npt.NDArray[np.generic]]]:
    """Code vectors on their device, those that are not finite as zeros, and return what fetches them and which are."""
    finite_N = batch.finite
    codes, scales = encode(torch.where(finite_N[:, None], batch.vectors, 0.0), spec.bits, spec.slices)
    return to_host([codes, scales, torch.where(finite_N, batch.self_influence, 0.0), finite_N])


def _store(
    fetch: Callable[[], list[npt.NDArray[np.generic]]],
    out: CodedVectors,
    finite_N: npt.NDArray[np.bool_],
    positions: npt.NDArray[np.int64],
    phase: Phase,
) -> None:
    """Put what is fetched at its positions."""
    out.codes[positions], out.scales[positions], out.self_influence[positions], finite_N[positions] = fetch()
    phase.advance(len(positions))
