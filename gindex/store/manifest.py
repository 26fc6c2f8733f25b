"""The manifest: one JSON file, written last, that says what an index is made of.

Everything else in the directory is found through it; a file that it does not name is not part of the index.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from gindex.atomic import checksum, publish
from gindex.errors import CorruptStoreError, FormatVersionError, NotAnIndexError
from gindex.store.layout import FORMAT_VERSION, REMEDY, Layout

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file of the index: path relative to the root, length in bytes, CRC-32C in hexadecimal."""

    path: str
    bytes: int
    crc32c: str

    @classmethod
    def of(cls, root: Path, path: Path) -> "FileRecord":
        """Describe a file that is complete."""
        return cls(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, crc32c=checksum(path))

    def check_length(self, root: Path) -> None:
        """Compare the file's length with the record.

        Raises:
            CorruptStoreError: The file is missing or has another length.
        """
        path = root / self.path
        if not path.is_file():
            raise CorruptStoreError(f"{path}: expected {self.bytes:,} bytes, found no file; {REMEDY}")
        if path.stat().st_size != self.bytes:
            raise CorruptStoreError(f"{path}: expected {self.bytes:,} bytes, found {path.stat().st_size:,}; {REMEDY}")

    def check_content(self, root: Path) -> None:
        """Compare the file's length and checksum with the record; reads the whole file.

        Raises:
            CorruptStoreError: They differ, or the file is missing.
        """
        self.check_length(root)
        found = checksum(root / self.path)
        if found != self.crc32c:
            raise CorruptStoreError(f"{root / self.path}: expected CRC-32C {self.crc32c}, found {found}; {REMEDY}")


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
class Manifest:
    """What a finished index is.

    Attributes:
        format_version: Version of the layout.
        gindex_version: Version of the program that built it.
        created: UTC time of the build, ISO 8601.
        settings: `BuildConfig.settings()` of the build.
        sources: Fingerprints of the corpus files.
        model: `name`, `fingerprint`, `tokenizer_fingerprint`, `dtype`, `parameters`, `tracked_parameters`.
        layers: The tracked layers in forward order.
        untracked: Name, parameters and reason of every weight that is left out.
        projection: `kind`, `seed`, `dimension`, `fingerprint`, `slices` (group to start and stop).
        documents: `documents`, `parts`, `tokens`, `longest_part`.
        fit: `documents`, `parts`, `tokens` that EK-FAC was fitted on.
        segment_parts: Parts in a segment, the last one excepted; also the rows of a Zarr shard.
        skipped: Parts without a vector, by ordinal, with the reason.
        search: FAISS index type and fold.
        files: Every file of the index but this one.
    """

    format_version: int
    gindex_version: str
    created: str
    settings: dict[str, Any]
    sources: list[dict[str, Any]]
    model: dict[str, Any]
    layers: list[LayerRecord]
    untracked: list[dict[str, Any]]
    projection: dict[str, Any]
    documents: dict[str, int]
    fit: dict[str, int]
    segment_parts: int
    skipped: dict[str, str]
    search: dict[str, Any]
    files: list[FileRecord]

    def write(self, layout: Layout) -> None:
        """Publish the manifest."""
        write_json(layout.manifest, asdict(self))

    @classmethod
    def read(cls, layout: Layout) -> "Manifest":
        """Read the manifest of a finished index and check that its files are there in full length.

        Raises:
            NotAnIndexError: There is no finished index.
            FormatVersionError: A newer gindex wrote it.
            CorruptStoreError: The manifest or a file is damaged.
        """
        layout.require_finished()
        content = read_content(layout)
        try:
            content["layers"] = [record(LayerRecord, entry) for entry in content["layers"]]
            content["files"] = [record(FileRecord, entry) for entry in content["files"]]
            manifest = record(cls, content)
        except (KeyError, TypeError) as error:
            raise CorruptStoreError(
                f"{layout.manifest}: expected the manifest of an index, found {error}; {REMEDY}"
            ) from error
        for file in manifest.files:
            file.check_length(layout.root)
        return manifest

    def file(self, path: Path) -> FileRecord:
        """Return the record of a file at the index's root.

        Raises:
            CorruptStoreError: The manifest names no such file.
        """
        for file in self.files:
            if file.path == path.name:
                return file
        raise CorruptStoreError(f"{path}: expected it among the manifest's files, found no record; {REMEDY}")

    @property
    def slices(self) -> dict[str, tuple[int, int]]:
        """Start and stop of each layer group's slice."""
        return {group: (start, stop) for group, (start, stop) in self.projection["slices"].items()}


def read_content(layout: Layout) -> dict[str, Any]:
    """Read the manifest as plain values, its format version checked.

    Raises:
        NotAnIndexError: It is the manifest of something else.
        FormatVersionError: A newer gindex wrote it.
        CorruptStoreError: It cannot be read.
    """
    content = read_json(layout.manifest)
    version = content.get("format_version")
    if not isinstance(version, int):
        raise NotAnIndexError(
            f"{layout.manifest}: expected the manifest of an index, found a file without format_version; "
            "give the folder of an index"
        )
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{layout.manifest}: expected format version {FORMAT_VERSION} or older, found {version}; "
            "install a newer gindex"
        )
    return content


def record(cls: type[Record], content: dict[str, Any]) -> Record:
    """Make a dataclass from a JSON object; raises TypeError where fields are missing or unknown."""
    names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if set(content) != names:
        raise TypeError(f"fields {sorted(set(content) ^ names)} missing or unknown")
    return cls(**content)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Publish a JSON object."""
    publish(path, lambda partial: _write_text(partial, json.dumps(content, indent=1, ensure_ascii=False) + "\n"))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CorruptStoreError: The file is missing or holds something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CorruptStoreError(f"{path}: expected a JSON file, found {error}; {REMEDY}") from error
    if not isinstance(content, dict):
        raise CorruptStoreError(f"{path}: expected a JSON object, found a {type(content).__name__}; {REMEDY}")
    return content
