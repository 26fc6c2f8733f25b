"""The manifest of a version: one JSON file, written last, that says what the version is made of.

Everything else in the directory is found through it; a file that no manifest names is not part of the index.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gindex.config import AUTO, CAUSAL, BuildConfig
from gindex.corpus.source_fingerprint import SourceFingerprint
from gindex.errors import ConfigError, CorruptStoreError, FormatVersionError, NotAnIndexError
from gindex.model.layer_records import LayerRecord, UntrackedWeight
from gindex.store.coverage import Coverage, coverage
from gindex.store.files import FileRecord, read_json, read_plain
from gindex.store.layout import FORMAT_VERSION, REMEDY, Layout
from gindex.store.records import (
    DampingRecord,
    FidelityRecord,
    FitRecord,
    ModelRecord,
    Operation,
    ProjectionRecord,
    SearchRecord,
    VolumeRecord,
)
from gindex.store.values import record_of, values_of


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a version is.

    Attributes:
        format_version: Version of the layout.
        version: Number of this version, from 1.
        operation: What made it.
        gindex_version: Version of the program that wrote it.
        created: UTC time, ISO 8601.
        settings: Settings of the build that decide what the index holds; the others are at their defaults.
        sources: Fingerprints of the corpus files that the index was built from.
        model: The model.
        layers: The tracked layers in forward order.
        untracked: Every weight that is left out.
        projection: The projection.
        damping: Damping of exact influence and of stored vectors.
        fit: What EK-FAC was fitted on.
        volumes: The volumes, in the order of the ordinals.
        deleted: Deleted parts, as ranges of ordinals in order: start and stop.
        deleted_documents: Documents that they are of.
        deleted_tokens: Tokens of the deleted parts.
        search: The search index.
        fidelity: What the build measured at its end; None where it didn't.
        files: Every file of the version but this one.
        indexed_fields: Fields of the metadata that are looked up by index, as filters write them; None where none are.
    """

    format_version: int
    version: int
    operation: Operation
    gindex_version: str
    created: str
    settings: BuildConfig
    sources: list[SourceFingerprint]
    model: ModelRecord
    layers: list[LayerRecord]
    untracked: list[UntrackedWeight]
    projection: ProjectionRecord
    damping: DampingRecord
    fit: FitRecord
    volumes: list[VolumeRecord]
    deleted: list[tuple[int, int]]
    deleted_documents: int
    deleted_tokens: int
    search: SearchRecord
    fidelity: FidelityRecord | None
    files: list[FileRecord]
    indexed_fields: list[str] | None = None

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
            manifest = record_of(cls, _of_today(content))
        except (ConfigError, ValueError, TypeError) as error:
            raise CorruptStoreError(
                field=path, expected="the manifest of an index", found=error, remedy=REMEDY
            ) from error
        if not manifest.volumes:
            raise CorruptStoreError(field=path, expected="volumes", found="none", remedy=REMEDY)
        if manifest.version != version:
            raise CorruptStoreError(field=path, expected=f"version {version}", found=manifest.version, remedy=REMEDY)
        return manifest

    @cached_property
    def coverage(self) -> Coverage:
        """How much of the model is tracked, and what is not."""
        model = self.model
        if model.body_parameters is None or model.tracked_body_parameters is None:
            return coverage(model.parameters, model.tracked_parameters, "model", self.untracked)
        return coverage(model.body_parameters, model.tracked_body_parameters, "body", self.untracked)

    @property
    def task(self) -> str:
        """What the model was trained to do; the usual task alone is not recorded."""
        recorded = self.settings.model.task
        return CAUSAL if recorded == AUTO else recorded

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
        """Whether a file below the index's root is one of the version's."""
        return path.relative_to(root).as_posix() in self._files

    def file(self, root: Path, path: Path) -> FileRecord:
        """The record of a file below the index's root.

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
    def content(self) -> dict[str, Any]:
        """The plain values of its file; a single FAISS file is written as versions before 4 have it."""
        content: dict[str, Any] = values_of(self)
        files = content["search"].pop("faiss")
        content["search"] = {**(files[0] if len(files) == 1 else {"faiss": files}), **content["search"]}
        return content

    @property
    def derived(self) -> list[str]:
        """Names of the files that are derived from the vectors, and can be built again; in order."""
        return self.search.files

    @property
    def lasting(self) -> list[FileRecord]:
        """The records of all files that are not derived."""
        return [file for file in self.files if file.path not in self.derived]

    def files_below(self, root: Path, folder: Path) -> Iterator[FileRecord]:
        """Yield the records of the files in a folder."""
        name = folder.relative_to(root).as_posix() + "/"
        yield from (file for file in self.files if file.path.startswith(name))


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


def _of_today(content: dict[str, Any]) -> dict[str, Any]:
    """The values of a manifest as they are written today, whatever an older gindex called them.

    Raises:
        ConfigError: A setting of the build is out of its range.
        TypeError: A setting of the build is missing or unknown.
        ValueError: What is looked at here has another form.
    """
    today = dict(content)
    if "settings" in today:
        settings = record_of(dict[str, dict[str, Any] | int], today["settings"])
        today["settings"] = BuildConfig.of_settings(settings).settings()
    if _is_dict_with(today.get("operation"), "kind") and today["operation"]["kind"] == "index":
        today["operation"] = today["operation"] | {"kind": "reindex"}
    if _is_dict_with(today.get("search"), "second_level"):
        level = today["search"]["second_level"]
        search = {name: of for name, of in today["search"].items() if name != "second_level"}
        today["search"] = (
            search if level is None else search | {"transform": record_of(_SecondLevel, level).transform()}
        )
    if _is_dict_with(today.get("search"), "file"):
        others = {name: of for name, of in today["search"].items() if name in ("recall", "transform")}
        file = {name: of for name, of in today["search"].items() if name not in others}
        today["search"] = others | {"faiss": [file]}
    return today


@dataclass(frozen=True, kw_only=True)
class _SecondLevel:
    """The only transform of format version 2, under a name of its own."""

    file: str
    mu: float
    directions: int
    share: float

    def transform(self) -> dict[str, Any]:
        measures = {"directions": self.directions, "share": self.share}
        return {"kind": "second-level", "file": self.file, "settings": {"mu": self.mu}, "measures": measures}


def _is_dict_with(value: Any, name: str) -> bool:
    return isinstance(value, dict) and name in value
