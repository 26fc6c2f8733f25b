"""The manifest of a version: one JSON file, written last, that says what the version is made of.

Everything else in the directory is found through it; a file that no manifest names is not part of the index.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, TypedDict

from gindex.config import BuildConfig
from gindex.errors import ConfigError, CorruptStoreError, FormatVersionError, NotAnIndexError
from gindex.store.coverage import Coverage, coverage
from gindex.store.files import FileRecord, read_json, read_plain
from gindex.store.layout import FORMAT_VERSION, REMEDY, Layout
from gindex.store.parse import parse


class _Source(TypedDict):
    path: str
    bytes: int | None
    sha256: str | None


class _Added(TypedDict, total=False):
    """What manifests of an older gindex lack.

    What identifies the model beside its weights, where it is (`store.model_place`), and the size of its body.
    """

    buffers: str
    code: str
    folder: str
    relative: str
    hub: str
    body_parameters: int
    tracked_body_parameters: int


class _Model(_Added):
    name: str
    model: str
    tokenizer: str
    dtype: str
    parameters: int
    tracked_parameters: int


class _Inside(TypedDict, total=False):
    body: bool


class _Weight(_Inside):
    name: str
    parameters: int
    reason: str


class _Projection(TypedDict):
    kind: str
    seed: int
    dimension: int
    fingerprint: str
    slices: dict[str, tuple[int, int]]


class _Damping(TypedDict):
    exact: float
    index: float


class _Fit(TypedDict):
    documents: int
    parts: int
    tokens: int
    whitened_norm: float | None


@dataclass(frozen=True, kw_only=True)
class LayerRecord:
    """A tracked layer: its name, group, activation source, shape, ranks kept and mean corrected eigenvalue."""

    name: str
    group: str
    source: str
    inputs: int
    outputs: int
    activation_rank: int
    gradient_rank: int
    mean_eigenvalue: float


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
    sources: list[Annotated[dict[str, Any], _Source]]

    def segment_range(self, number: int) -> range:
        """Part ordinals of a segment."""
        start = self.first_part + number * self.segment_parts
        return range(start, min(start + self.segment_parts, self.first_part + self.parts))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a version is.

    Attributes:
        format_version: Version of the layout.
        version: Number of this version, from 1.
        operation: `kind` (build, add, delete, compact, rollback, repair) and what is to be said of it.
        gindex_version: Version of the program that wrote it.
        created: UTC time, ISO 8601.
        settings: `BuildConfig.settings()` of the build.
        sources: Fingerprints of the corpus files that the index was built from.
        model: `name`, `model` and `tokenizer` (fingerprints), `dtype`, `parameters`, `tracked_parameters`; and what
            older versions don't tell: `body_parameters` and `tracked_body_parameters` of its body alone, `buffers` and
            `code` (fingerprints), `folder` and `relative`, or `hub`: where it is, see `store.model_place`.
        layers: The tracked layers in forward order.
        untracked: Name, parameters and reason of every weight that is left out, and whether it is of the body.
        projection: `kind`, `seed`, `dimension`, `fingerprint`, `slices` (group to start and stop).
        damping: `exact` (influence) and `index` (stored vectors), multiples of each layer's mean eigenvalue.
        fit: `documents`, `parts`, `tokens` that EK-FAC was fitted on; `whitened_norm` of the build's text, from the
            first add on, None before.
        volumes: The volumes, in the order of the ordinals.
        deleted: Deleted parts, as ranges of ordinals in order: start and stop.
        deleted_documents: Documents that they are of.
        deleted_tokens: Tokens of the deleted parts.
        search: FAISS index: `kind`, `folds`, `scale`, `lists`, `probes`, `largest`; its `file`, how many `parts` it
            holds, and its `recall`; `second_level`: its `file`, `mu`, `directions` and `share`, None where it is off.
        fidelity: What the build measured at its end, `Fidelity.record()`; None where it didn't.
        files: Every file of the version but this one.
    """

    format_version: int
    version: int
    operation: dict[str, Any]
    gindex_version: str
    created: str
    settings: dict[str, Any]
    sources: list[Annotated[dict[str, Any], _Source]]
    model: Annotated[dict[str, Any], _Model]
    layers: list[LayerRecord]
    untracked: list[Annotated[dict[str, Any], _Weight]]
    projection: Annotated[dict[str, Any], _Projection]
    damping: Annotated[dict[str, float], _Damping]
    fit: Annotated[dict[str, Any], _Fit]
    volumes: list[VolumeRecord]
    deleted: list[tuple[int, int]]
    deleted_documents: int
    deleted_tokens: int
    search: dict[str, Any]
    fidelity: dict[str, Any] | None
    files: list[FileRecord]

    @classmethod
    def read(cls, layout: Layout, version: int) -> "Manifest":
        """Read a version's manifest.

        Args:
            layout: The index.
            version: Its number.

        Raises:
            NotAnIndexError: It is the manifest of something else.
            FormatVersionError: A newer gindex wrote it.
            CorruptStoreError: It is missing, altered, or says what no manifest says.
        """
        path = layout.manifest(version)
        content = read_content(path)
        try:
            manifest = parse(cls, content)
            _ = manifest.config
        except (ConfigError, ValueError, TypeError) as error:
            raise CorruptStoreError(
                field=path, expected="the manifest of an index", found=error, remedy=REMEDY
            ) from error
        if not manifest.volumes or not {"file", "parts"} <= manifest.search.keys():
            raise CorruptStoreError(field=path, expected="volumes and a FAISS index", found="none", remedy=REMEDY)
        level = manifest.search.get("second_level")
        if level is not None and not (isinstance(level, dict) and {"file", "mu"} <= level.keys()):
            raise CorruptStoreError(
                field=path, expected="a second level with file and mu", found=repr(level), remedy=REMEDY
            )
        if manifest.version != version:
            raise CorruptStoreError(field=path, expected=f"version {version}", found=manifest.version, remedy=REMEDY)
        return manifest

    def content(self) -> dict[str, Any]:
        """Return the manifest as plain values."""
        return asdict(self)

    @property
    def config(self) -> BuildConfig:
        """The settings of the build, the model's device and the batches at their defaults."""
        return BuildConfig.of_settings(self.settings)

    @cached_property
    def coverage(self) -> Coverage:
        """How much of the model is tracked, and what is not."""
        return coverage(self.model, self.untracked)

    @property
    def slices(self) -> dict[str, tuple[int, int]]:
        """Start and stop of each layer group's slice."""
        return {group: (start, stop) for group, (start, stop) in self.projection["slices"].items()}

    @property
    def stored_parts(self) -> int:
        """Rows of the stored vectors, those of deleted parts included."""
        return sum(volume.parts for volume in self.volumes)

    @property
    def stored_documents(self) -> int:
        """Documents in all volumes, deleted ones included."""
        return sum(volume.documents for volume in self.volumes)

    @property
    def deleted_parts(self) -> int:
        """Parts of deleted documents."""
        return sum(stop - start for start, stop in self.deleted)

    @property
    def documents(self) -> dict[str, int]:
        """`documents`, `parts`, `tokens` without the deleted, and `longest_part` of all that is stored."""
        return {
            "documents": self.stored_documents - self.deleted_documents,
            "parts": self.stored_parts - self.deleted_parts,
            "tokens": sum(volume.tokens for volume in self.volumes) - self.deleted_tokens,
            "longest_part": max(volume.longest_part for volume in self.volumes),
        }

    @property
    def skipped(self) -> dict[str, str]:
        """Parts without a vector, by ordinal, with the reason."""
        return {ordinal: reason for volume in self.volumes for ordinal, reason in volume.skipped.items()}

    @property
    def lost_parts(self) -> list[range]:
        """Ordinals of the parts whose vectors must be computed again."""
        return [volume.segment_range(number) for volume in self.volumes for number in volume.lost]

    @cached_property
    def _files(self) -> dict[str, FileRecord]:
        return {file.path: file for file in self.files}

    def names(self, root: Path, path: Path) -> bool:
        """Say whether a file below the index's root is one of the version's."""
        return path.relative_to(root).as_posix() in self._files

    def file(self, root: Path, path: Path) -> FileRecord:
        """Return the record of a file below the index's root.

        Raises:
            CorruptStoreError: The manifest names no such file.
        """
        name = path.relative_to(root).as_posix()
        if name not in self._files:
            raise CorruptStoreError(
                field=path, expected=f"it among the files of version {self.version}", found="no record", remedy=REMEDY
            )
        return self._files[name]

    @property
    def second_level(self) -> dict[str, Any] | None:
        """What `search` says of the second level of curvature; None where it is off."""
        found = self.search.get("second_level")  # format version 1 knew none
        return None if found is None else dict(found)

    @property
    def mu(self) -> float | None:
        """The second level's mu; None where it is off."""
        return None if self.second_level is None else float(self.second_level["mu"])

    @property
    def derived(self) -> set[str]:
        """Names of the files that are derived from the vectors, and can be built again."""
        return derived_files(self.search)

    @property
    def lasting(self) -> list[FileRecord]:
        """The records of all files that are not derived."""
        return [file for file in self.files if file.path not in self.derived]

    def files_below(self, root: Path, folder: Path) -> Iterator[FileRecord]:
        """Yield the records of the files in a folder."""
        name = folder.relative_to(root).as_posix() + "/"
        yield from (file for file in self.files if file.path.startswith(name))


def derived_files(search: dict[str, Any]) -> set[str]:
    """Return the names of the files that a manifest's `search` is about."""
    level = search.get("second_level")
    return {str(search["file"])} | (set() if level is None else {str(level["file"])})


def read_content(path: Path) -> dict[str, Any]:
    """Read a manifest as plain values, its checksum and format version checked.

    Raises:
        NotAnIndexError: It is the manifest of something else.
        FormatVersionError: A newer gindex wrote it.
        CorruptStoreError: It cannot be read.
    """
    plain, _ = read_plain(path)
    version = plain.get("format_version")
    if not isinstance(version, int):
        raise NotAnIndexError(
            field=path,
            expected="the manifest of an index",
            found="a file without format_version",
            remedy="give the folder of an index",
        )
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            field=path,
            expected=f"format version {FORMAT_VERSION} or older",
            found=version,
            remedy="install a newer gindex",
        )
    return read_json(path)
