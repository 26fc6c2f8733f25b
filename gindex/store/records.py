"""What a manifest says of each thing that a version is made of: plain values, one class a thing.

A field that is None by default is one that not every index has, and is left out of the file while it is None.
"""

import itertools
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from gindex.corpus.source_fingerprint import SourceFingerprint


class OperationKind(StrEnum):
    """What makes a version."""

    BUILD = "build"
    ADD = "add"
    DELETE = "delete"
    COMPACT = "compact"
    REINDEX = "reindex"
    ROLLBACK = "rollback"
    REPAIR = "repair"
    MERGE = "merge"
    INDEX_FIELDS = "index-fields"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What made a version, and what is to be said of it.

    Attributes:
        kind: One of `OperationKind`; a newer gindex may know more.
        documents: Documents that were built, added or deleted, or are in the volume that a merge wrote.
        recomputed: Segments that a build computed again.
        replaced: Documents of the index in whose place an add put others.
        norm_ratio: Mean whitened norm of added text over that of the build's text.
        parts_removed: Parts of deleted documents that a compact left out.
        type: Kind of FAISS index that a reindex was asked for.
        to: Version that a rollback went back to.
        lost_segments: Segments that a repair marked to be computed again.
    """

    kind: str
    documents: int | None = None
    recomputed: int | None = None
    replaced: int | None = None
    norm_ratio: float | None = None
    parts_removed: int | None = None
    type: str | None = None
    to: int | None = None
    lost_segments: int | None = None


@dataclass(frozen=True, kw_only=True)
class BaseRecord:
    """Where the base of an adapter is; see `store.model_place`.

    Attributes:
        name: Its folder or hub name, as the build looked for it.
        folder: Absolute path of its folder.
        relative: The same from the index.
        hub: Its name on the hub, in the place of a folder.
    """

    name: str
    folder: str | None = None
    relative: str | None = None
    hub: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The model of an index.

    Attributes:
        name: Its folder or hub name, as it was given to the build.
        model: Fingerprint of its weights, of an adapter those of the base.
        tokenizer: Fingerprint of its tokenizer.
        dtype: Number format of its passes.
        parameters: Number of its weights.
        tracked_parameters: Those of them that are tracked.
        buffers: Fingerprint of what the checkpoint holds beside weights; older indexes have none of this and the rest.
        code: `transformers`, or the fingerprint of the model's own code.
        folder: Absolute path of its folder; see `store.model_place`.
        relative: The same from the index.
        hub: Its name on the hub, in the place of a folder.
        body_parameters: Number of weights of its body, which embeddings and the output head are not of.
        tracked_body_parameters: Those of them that are tracked.
        adapter: Fingerprint of the adapter; this and the next only where there is one.
        base: Where its base is.
        runtime: With what the build tried it: versions of transformers and torch, and the kind of device.
    """

    name: str
    model: str
    tokenizer: str
    dtype: str
    parameters: int
    tracked_parameters: int
    buffers: str | None = None
    code: str | None = None
    folder: str | None = None
    relative: str | None = None
    hub: str | None = None
    body_parameters: int | None = None
    tracked_body_parameters: int | None = None
    adapter: str | None = None
    base: BaseRecord | None = None
    runtime: str | None = None


@dataclass(frozen=True, kw_only=True)
class ProjectionRecord:
    """The projection: what it is made from, its fingerprint, and start and stop of each layer group's slice."""

    kind: str
    seed: int
    dimension: int
    fingerprint: str
    slices: dict[str, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class DampingRecord:
    """Damping of exact influence and of stored vectors, as multiples of each layer's mean eigenvalue."""

    exact: float
    index: float


@dataclass(frozen=True, kw_only=True)
class FitRecord:
    """What EK-FAC was fitted on.

    Attributes:
        documents: Number of documents.
        parts: Number of their parts.
        tokens: Tokens of those.
        whitened_norm: Mean whitened norm of the build's text, from the first add on; None before.
    """

    documents: int
    parts: int
    tokens: int
    whitened_norm: float | None


@dataclass(frozen=True, kw_only=True)
class VolumeRecord:
    """What one build, add or compact wrote.

    Attributes:
        number: Its folder.
        first_document: Ordinal of its first document.
        first_part: Ordinal of its first part.
        documents: Documents in it, deleted ones included.
        parts: Their parts.
        tokens: Tokens of the parts, the context of later parts included.
        longest_part: Tokens of the longest part.
        segment_parts: Parts in a segment, the last one excepted; also the rows of a Zarr shard.
        skipped: Parts without a vector, by ordinal, with the reason.
        lost: Segments that must be computed again.
        sources: Fingerprints of the corpus files.
        fields: File of the index of its fields, relative to the index's root; None where it has none.
    """

    number: int
    first_document: int
    first_part: int
    documents: int
    parts: int
    tokens: int
    longest_part: int
    segment_parts: int
    skipped: dict[str, str]
    lost: list[int]
    sources: list[SourceFingerprint]
    fields: str | None = None

    def segment_range(self, number: int) -> range:
        """Part ordinals of a segment."""
        start = self.first_part + number * self.segment_parts
        return range(start, min(start + self.segment_parts, self.first_part + self.parts))


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Share of an exhaustive search's best that the search index finds with its default settings, means over queries.

    Attributes:
        at_10: Of the best 10.
        at_100: Of the best 100.
        queries: How many stored vectors were the queries; each one's own part doesn't count.
        parts: How many parts there were when it was measured; None where as many as now.
    """

    at_10: float
    at_100: float
    queries: int
    parts: int | None = None


@dataclass(frozen=True, kw_only=True)
class TransformRecord:
    """What vectors and queries are transformed by before they are compared, derived from the stored vectors.

    Attributes:
        kind: Its name among the registered transforms.
        file: Its file, relative to the index's root.
        settings: What it was made with.
        measures: What is to be said of it.
    """

    kind: str
    file: str
    settings: dict[str, Any] = field(default_factory=dict)
    measures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CentresRecord:
    """The centres of an ivf index's lists, which are used again as it grows.

    Attributes:
        parts: How many parts the search index had when they were found.
        large: Norm from which a part is in the list that every query searches.
    """

    parts: int
    large: float


@dataclass(frozen=True, kw_only=True)
class SearchFile:
    """A FAISS index of consecutive parts, and how it is made.

    Attributes:
        kind: Kind of FAISS index; this, the next five and `centres` are those of `ann.spec.FaissSpec`.
        folds: How often vectors are halved.
        scale: What they are multiplied by.
        lists: Lists of an ivf index.
        probes: Those of them that a query searches.
        largest: Parts of largest norm, the largest first, numbered from the first part that it holds.
        file: Its file, relative to the index's root.
        parts: How many parts it holds.
        centres: Of an ivf index, what its lists are around; older ones have none of it.
    """

    kind: str
    folds: int
    scale: float
    lists: int
    probes: int
    largest: tuple[int, ...]
    file: str
    parts: int
    centres: CentresRecord | None = None


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """The search index: its FAISS files, and what was measured of it.

    Attributes:
        faiss: Its FAISS files, in the order of the ordinals: together they hold all parts.
        recall: What it finds of an exhaustive search; None where that was not measured.
        transform: What its vectors are transformed by; None where by nothing.
    """

    faiss: tuple[SearchFile, ...]
    recall: Recall | None = None
    transform: TransformRecord | None = None

    @property
    def main(self) -> SearchFile:
        """The file that holds most parts."""
        return max(self.faiss, key=lambda file: file.parts)

    @property
    def parts(self) -> int:
        """How many parts all files hold."""
        return sum(file.parts for file in self.faiss)

    @property
    def runs(self) -> list[range]:
        """The ordinals of the parts that each file holds."""
        stops = list(itertools.accumulate(file.parts for file in self.faiss))
        return [range(stop - file.parts, stop) for file, stop in zip(self.faiss, stops, strict=True)]

    def around(self, run: range) -> tuple[list[SearchFile], range, list[SearchFile]]:
        """The files before a run of parts, the run with all parts of files that hold some of it, the files after."""
        touched = [run, *(of for of in self.runs if of.start < run.stop and run.start < of.stop)]
        whole = range(min(of.start for of in touched), max(of.stop for of in touched))
        pairs = list(zip(self.faiss, self.runs, strict=True))
        before = [file for file, of in pairs if of.stop <= whole.start]
        return before, whole, [file for file, of in pairs if of.start >= whole.stop]

    @property
    def files(self) -> list[str]:
        """Names of the files that it is in, in order."""
        return sorted([file.file for file in self.faiss] + ([] if self.transform is None else [self.transform.file]))


@dataclass(frozen=True, kw_only=True)
class MeasureRecord:
    """A mean with its 95% confidence interval; see `gindex.statistics`."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class FidelityRecord:
    """What a build measured at its end: how many queries ranked how many parts, and each measure with its interval."""

    queries: int
    parts: int
    measures: dict[str, MeasureRecord]
