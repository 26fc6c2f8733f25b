"""Where everything is inside an index directory."""

from dataclasses import dataclass
from pathlib import Path

from gindex.errors import NotAnIndexError

FORMAT_VERSION = 1
"""Raised when a reader of the version before would misread the files."""


REMEDY = "restore it, or build again with another --out"
"""What to do about a damaged file; ends the messages about one."""


@dataclass(frozen=True)
class Layout:
    """Paths of one index.

    manifest.json                      written last: the index is finished
    build.json                         what a build was started with, until it is finished
    documents.sqlite                   documents and their parts
    factors/eigenbases-00000.safetensors, eigenvalues-00000.safetensors, one of each a layer group
    vectors/                           Zarr v3 group: codes, scales, self_influence
    segments/00000.json                checksums of one finished segment
    search.faiss                       derived from vectors/
    .staging/                          files that are being written
    """

    root: Path

    @property
    def manifest(self) -> Path:
        """The manifest."""
        return self.root / "manifest.json"

    @property
    def build(self) -> Path:
        """The record of an unfinished build."""
        return self.root / "build.json"

    @property
    def documents(self) -> Path:
        """The document table."""
        return self.root / "documents.sqlite"

    @property
    def factors(self) -> Path:
        """The folder of factor files."""
        return self.root / "factors"

    @property
    def vectors(self) -> Path:
        """The Zarr group."""
        return self.root / "vectors"

    @property
    def faiss(self) -> Path:
        """The FAISS index."""
        return self.root / "search.faiss"

    @property
    def staging(self) -> Path:
        """The folder of files that are being written."""
        return self.root / ".staging"

    @property
    def lock(self) -> Path:
        """The file that a running build holds locked."""
        return self.root / ".lock"

    def segment(self, number: int) -> Path:
        """The record of a finished segment."""
        return self.root / "segments" / f"{number:05d}.json"

    def eigenbases(self, group: int) -> Path:
        """Eigenbases of a layer group."""
        return self.factors / f"eigenbases-{group:05d}.safetensors"

    def eigenvalues(self, group: int) -> Path:
        """Corrected eigenvalues of a layer group."""
        return self.factors / f"eigenvalues-{group:05d}.safetensors"

    def require_finished(self) -> None:
        """Check that there is a finished index.

        Raises:
            NotAnIndexError: There is none.
        """
        if self.manifest.is_file():
            return
        if self.build.is_file():
            raise NotAnIndexError(
                f"{self.root}: expected a finished index, found an unfinished build; run the same gindex build again"
            )
        found = "no manifest.json in it" if self.root.is_dir() else "a file" if self.root.exists() else "no such folder"
        raise NotAnIndexError(f"{self.root}: expected an index, found {found}; make one with gindex build")
