"""Where everything is inside an index directory."""

from dataclasses import dataclass
from pathlib import Path

FORMAT_VERSION = 5
"""Newest version that is read; raised when a reader of the version before would misread the files."""

FIELDS, SEVERAL, TRANSFORMED, PLAIN = 5, 4, 3, 2
"""Version that is written of an index with indexed fields, of one with several FAISS files, of one whose vectors are
transformed before they are searched, and of any other one."""


REMEDY = "restore it, or see what gindex verify and gindex repair can do"
"""What to do about a damaged file; ends the messages about one."""


@dataclass(frozen=True)
class VolumeLayout:
    """Paths of one volume: what one build, add, merge or compact wrote.

    documents.sqlite     documents and their parts
    documents.crc32c     checksums of its rows
    fields-00000001.sqlite  index of fields of the documents, named after the version that made it
    vectors/             Zarr v3 group: codes, scales, self_influence
    segments/00000.json  checksums of one finished segment
    pending.json         what an add or compact was started with, until it is committed
    .staging/            files that are being written
    """

    folder: Path

    @property
    def documents(self) -> Path:
        """The document table."""
        return self.folder / "documents.sqlite"

    @property
    def row_checksums(self) -> Path:
        """The checksums of the document table's rows."""
        return self.folder / "documents.crc32c"

    def field_index(self, version: int) -> Path:
        """The index of fields of the documents that a version made."""
        return self.folder / f"fields-{version:08d}.sqlite"

    @property
    def vectors(self) -> Path:
        """The Zarr group."""
        return self.folder / "vectors"

    @property
    def pending(self) -> Path:
        """The record of an unfinished add."""
        return self.folder / "pending.json"

    @property
    def staging(self) -> Path:
        """The folder of files that are being written."""
        return self.folder / ".staging"

    def segment(self, number: int) -> Path:
        """The record of a finished segment."""
        return self.folder / "segments" / f"{number:05d}.json"


@dataclass(frozen=True)
class Layout:
    """Paths of one index.

    manifests/00000001.json   version 1, committed last; never changed
    volumes/00000/            documents and vectors of the build; a volume for each add, until they are merged
    factors/eigenbases-00000.safetensors, eigenvalues-00000.safetensors, one of each a layer group
        factors/calibration.json  what was expected of other ranks and dampings, where they were chosen
    search/00000001.faiss     FAISS index of consecutive parts, derived from the vectors, named after the version that
                              made it; an add makes one of its own parts
        search/00000001.KIND.safetensors  what vectors are transformed by, where they are; derived as well
    build.json                what a build was started with, until it is finished
    .merging/                 the volume and the FAISS file that a merge prepares, until it is committed
    .lock, .lock-*            held by running writers
    """

    root: Path

    @property
    def manifests(self) -> Path:
        """The folder of manifests."""
        return self.root / "manifests"

    @property
    def build(self) -> Path:
        """The record of an unfinished build."""
        return self.root / "build.json"

    @property
    def factors(self) -> Path:
        """The folder of factor files."""
        return self.root / "factors"

    @property
    def volumes(self) -> Path:
        """The folder of volumes."""
        return self.root / "volumes"

    @property
    def search(self) -> Path:
        """The folder of FAISS indexes."""
        return self.root / "search"

    @property
    def merging(self) -> Path:
        """The folder of what a merge prepares."""
        return self.root / ".merging"

    @property
    def lock(self) -> Path:
        """The file that writers hold locked: builds together, any other one alone."""
        return self.root / ".lock"

    def claim(self, name: str) -> Path:
        """The file that one of several builders holds locked while it does a piece of the work."""
        return self.root / f".lock-{name}"

    def manifest(self, version: int) -> Path:
        """The manifest of a version."""
        return self.manifests / f"{version:08d}.json"

    def volume(self, number: int) -> VolumeLayout:
        """The paths of a volume."""
        return VolumeLayout(self.volumes / f"{number:05d}")

    def faiss(self, version: int) -> Path:
        """The FAISS index that a version made."""
        return self.search / f"{version:08d}.faiss"

    def eigenbases(self, group: int) -> Path:
        """Eigenbases of a layer group."""
        return self.factors / f"eigenbases-{group:05d}.safetensors"

    @property
    def calibration(self) -> Path:
        """What the calibration of ranks and damping found."""
        return self.factors / "calibration.json"

    def eigenvalues(self, group: int) -> Path:
        """Corrected eigenvalues of a layer group."""
        return self.factors / f"eigenvalues-{group:05d}.safetensors"

    def factor_files(self, groups: int) -> list[Path]:
        """All factor files of an index of so many layer groups."""
        return [file for group in range(groups) for file in (self.eigenbases(group), self.eigenvalues(group))]
