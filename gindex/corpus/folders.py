"""The files below a folder, and those that are left out."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gindex.errors import CorpusError

_SHOWN = 3
# Files that Spark, Hive and writers of Parquet leave beside their data.
_MARKERS = frozenset({"_SUCCESS", "_metadata", "_common_metadata", "_temporary"})
_MARKERS_BEGIN = (".", "_started_", "_committed_")
_TABLE_LOG = "_delta_log"


@dataclass(kw_only=True)
class Listing:
    """The content of a folder, each name relative to it.

    Attributes:
        files: The files to read, as sorted POSIX paths; linked ones and those of linked folders among them.
        hidden: Hidden files and folders, and marker files of other tools.
        broken: Links that lead nowhere.
        repeated: Linked folders that are read under another name, or that lead back up to where they stand.
        special: What is neither a file nor a folder: pipes, sockets, devices.
    """

    files: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)

    def left_out(self) -> Iterator[str]:
        """Yield a line for each kind of entry that is not read."""
        for names, one, many in (
            (self.hidden, "hidden or marker file", "hidden or marker files"),
            (self.broken, "broken link", "broken links"),
            (self.repeated, "link to a folder that is read anyway", "links to folders that are read anyway"),
            (self.special, "special file", "special files"),
        ):
            if names:
                shown = ", ".join(sorted(names)[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
                yield f"left out {len(names):,} {one if len(names) == 1 else many}: {shown}"


def sort_names(names: Iterable[str], location: str) -> Listing:
    """Sort the files of a store, by their names relative to a folder, into those that are read and those left out.

    Raises:
        CorpusError: The folder is a Delta Lake table.
    """
    listing = Listing()
    for name in names:
        folders = name.split("/")
        if _TABLE_LOG in folders:
            raise _delta_table(location)
        (listing.hidden if any(map(_is_marker, folders)) else listing.files).append(name)
    return listing


def list_files(folder: Path) -> Listing:
    """List the files below a folder. Its own folders come before linked ones, and each is read once.

    Raises:
        CorpusError: A folder cannot be read, or is a Delta Lake table.
    """
    listing = Listing()
    try:
        _Walk(folder, listing).run()
    except OSError as error:
        raise CorpusError(
            field=error.filename or folder,
            expected="a readable folder",
            found=error.strerror,
            remedy="check its permissions",
        ) from error
    listing.files.sort()
    return listing


class _Walk:
    def __init__(self, root: Path, listing: Listing) -> None:
        self._root = root
        self._listing = listing
        self._seen = {_identity(path) for path in root.resolve().parents}  # a link to one of them leads in a circle
        self._links: list[str] = []

    def run(self) -> None:
        self._read("")
        while self._links:
            self._links.sort(reverse=True)
            self._read(self._links.pop())

    def _read(self, start: str) -> None:
        """Read a folder and those in it, down to links."""
        waiting = [start]
        while waiting:
            name = waiting.pop()
            folder = self._root / name
            if (identity := _identity(folder)) in self._seen:
                self._listing.repeated.append(name)
                continue
            self._seen.add(identity)
            with os.scandir(folder) as entries:
                waiting += [below for entry in entries if (below := self._sort(entry, f"{name}/" if name else ""))]

    def _sort(self, entry: os.DirEntry[str], parent: str) -> str | None:
        """Add an entry to its list; return its name where it is a folder that is still to be read."""
        name = parent + entry.name
        if entry.name == _TABLE_LOG:
            raise _delta_table(self._root / parent)
        if _is_marker(entry.name):
            self._listing.hidden.append(name)
        elif entry.is_symlink():
            self._sort_link(name)
        elif entry.is_dir():
            return name
        else:
            (self._listing.files if entry.is_file() else self._listing.special).append(name)
        return None

    def _sort_link(self, name: str) -> None:
        try:
            mode = os.stat(self._root / name).st_mode
        except PermissionError:
            raise
        except OSError:  # nothing there, or a link to itself
            self._listing.broken.append(name)
            return
        if stat.S_ISDIR(mode):
            self._links.append(name)
        else:
            (self._listing.files if stat.S_ISREG(mode) else self._listing.special).append(name)


def _is_marker(name: str) -> bool:
    return name in _MARKERS or name.startswith(_MARKERS_BEGIN) or name.endswith(".crc")


def _delta_table(folder: object) -> CorpusError:
    return CorpusError(
        field=folder,
        expected="files of documents",
        found="a Delta Lake table, among whose files are those of older versions",
        remedy="write the table as plain Parquet",
    )


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
