"""The sources of a corpus: files by kind, here or in a store, saved datasets, and datasets on the hub."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path, PurePath
from urllib.parse import urlsplit
from urllib.request import url2pathname

from gindex.corpus.compression import ENDINGS, without_ending
from gindex.corpus.folders import Listing, list_files
from gindex.corpus.partitions import partition_fields
from gindex.corpus.pictures import ENDINGS as PICTURE_ENDINGS
from gindex.corpus.remote import RemotePath, is_address
from gindex.errors import CorpusError


class SourceKind(Enum):
    """The kind of a source, by which its reader is chosen."""

    LINES = "JSON lines"
    JSON = "JSON"
    CSV = "CSV"
    TSV = "TSV"
    PARQUET = "Parquet"
    ARROW = "Arrow"
    TEXT = "text"
    PICTURE = "picture"
    SAVED_DATASET = "saved dataset"
    HUB_DATASET = "hub dataset"


_KINDS = {
    ".jsonl": SourceKind.LINES,
    ".ndjson": SourceKind.LINES,
    ".json": SourceKind.JSON,
    ".csv": SourceKind.CSV,
    ".tsv": SourceKind.TSV,
    ".parquet": SourceKind.PARQUET,
    ".arrow": SourceKind.ARROW,
    ".feather": SourceKind.ARROW,
    **dict.fromkeys(PICTURE_ENDINGS, SourceKind.PICTURE),
}
_TABLES = (SourceKind.PARQUET, SourceKind.ARROW)
# A missing source with one of these endings is a mistyped path, never a dataset: the hub is not asked for it.
_FILE_ENDINGS = (*_KINDS, *ENDINGS, ".txt", ".md")
# Archives, and compression that no reader here opens: as text such a file would be one senseless document.
_ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".zip", ".7z", ".rar", ".lz4", ".lzma", ".z")
_HUB_NAME = re.compile(r"(?P<name>\w[\w.-]*/[\w.-]+)(/(?P<configuration>[\w.+-]+))?(:[\w.-]+)?")
# What `datasets` writes beside its .arrow files: no documents.
_DATASET_STATE = ("dataset_info.json", "state.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One readable piece of the corpus.

    Attributes:
        kind: How it is read.
        location: Its path, or its name on the hub, as messages show it.
        name: What the ids of its documents begin with.
        fields: Fields of all its records that stand in the names of its folders.
        remote: Where it is, where that is in a store and not here.
    """

    kind: SourceKind
    location: str
    name: str
    fields: Mapping[str, str | None] = field(default_factory=dict)
    remote: RemotePath | None = None

    def open(self, *, seekable: bool = False) -> io.BufferedReader:
        """Open a file to be read from its beginning, or in any order where that is asked for.

        Raises:
            OSError: It is here and cannot be opened.
            CorpusError: It is in a store and cannot be opened.
        """
        return open(self.location, "rb") if self.remote is None else self.remote.open(seekable=seekable)


def expand(given: str, tell: Callable[[str], None] = lambda _line: None) -> list[Source]:
    """Return the sources that the user's argument names; those of a folder are its files, sorted.

    Args:
        given: A file or a folder, here or by its address in a store, or a dataset's name.
        tell: Called with a line for each kind of entry of a folder that is left out.

    Raises:
        CorpusError: Nothing is there, and it does not look like a dataset name; or it cannot be looked at; or a file
            is an archive.
        MissingDependencyError: A package is missing to reach a store.
    """
    if given.startswith("file://"):
        given = url2pathname(urlsplit(given).path)
    if is_address(given):
        return _in_store(RemotePath.at(given), tell)
    path = Path(given)
    try:
        if path.is_dir():
            return _folder(path, given, tell)
        if path.is_file():
            return [_alone(path, given)]
        found = "something that is neither" if path.exists() else "nothing there"
        if path.is_symlink() and not path.exists():
            found = "a link that leads nowhere"
        elif not path.exists() and _is_hub_name(given):
            return [Source(kind=SourceKind.HUB_DATASET, location=given, name=given)]
    except OSError as error:
        found = error.strerror or str(error)
    raise CorpusError(field=given, expected="a file, a folder or a hub dataset", found=found, remedy="check the path")


def _is_hub_name(given: str) -> bool:
    """Say whether a missing source may be a dataset; what would lie in a folder that is here is a mistyped path."""
    match = _HUB_NAME.fullmatch(given)
    if match is None or given.lower().endswith(_FILE_ENDINGS):
        return False
    return match["configuration"] is None or not Path(match["name"]).is_dir()


def is_saved_dataset(folder: Path) -> bool:
    """Say whether `folder` was written by `datasets.Dataset.save_to_disk` or by that of a DatasetDict."""
    if (folder / "dataset_dict.json").is_file():
        return True
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


def _folder(path: Path, given: str, tell: Callable[[str], None]) -> list[Source]:
    if is_saved_dataset(path):
        return [Source(kind=SourceKind.SAVED_DATASET, location=given, name=path.resolve().name)]
    return [_file(path, name) for name in _documents(list_files(path), given, tell)]


def _in_store(place: RemotePath, tell: Callable[[str], None]) -> list[Source]:
    if not place.is_folder():
        source = _remote_file(place, place.parts[:-1], place.parts[-1])
        return [_by_stem(source)]
    listing = place.list_files()
    if "dataset_dict.json" in listing.files:
        raise CorpusError(
            field=place.location,
            expected="files of documents",
            found="a saved dataset of several splits",
            remedy=f"give the folder of one split, such as {place.location}/train",
        )
    return [_remote_file(place.below(name), place.parts, name) for name in _documents(listing, place.location, tell)]


def _documents(listing: Listing, folder: str, tell: Callable[[str], None]) -> list[str]:
    """Return the files of a folder that hold documents; what is left out is told."""
    names = [PurePath(name) for name in listing.files]
    datasets = {name.parent for name in names if name.suffix.lower() == ".arrow"}
    state = {str(name) for name in names if name.name in _DATASET_STATE and name.parent in datasets}
    if state:
        tell(f"{folder}: left out what `datasets` writes beside its files: {', '.join(sorted(state)[:2])}")
    for line in listing.left_out():
        tell(f"{folder}: {line}")
    return [name for name in listing.files if name not in state]


def _alone(path: Path, given: str) -> Source:
    """Return a file that was given by itself; a text goes by its name without the ending."""
    source = _file(path.parent, path.name)
    return source if source.kind is not SourceKind.TEXT else replace(_by_stem(source), location=given)


def _by_stem(source: Source) -> Source:
    if source.kind is not SourceKind.TEXT:
        return source
    return replace(source, name=Path(without_ending(source.name)).stem)


def _file(folder: Path, name: str) -> Source:
    path = folder / name
    fields = partition_fields(folder.parts, Path(name).parts[:-1], str(path))
    return Source(kind=_kind(path, str(path)), location=str(path), name=name, fields=fields)


def _remote_file(place: RemotePath, folders: Sequence[str], name: str) -> Source:
    below = PurePath(name).parts[:-1]
    return Source(
        kind=_kind(PurePath(name), place.location),
        location=place.location,
        name=name,
        fields=partition_fields(folders, below, place.location),
        remote=place,
    )


def _kind(path: PurePath, location: str) -> SourceKind:
    plain = without_ending(path.name)
    ending = Path(plain).suffix.lower()
    if ending in _ARCHIVES:
        raise CorpusError(
            field=location,
            expected="a file of documents",
            found="an archive or a form of compression that is not read",
            remedy=f"unpack it, or compress it as {', '.join(ENDINGS)}",
        )
    kind = _KINDS.get(ending, SourceKind.TEXT)
    if kind in _TABLES and plain != path.name:
        raise CorpusError(
            field=location,
            expected=f"a file of {kind.value} as it is",
            found="it compressed once more",
            remedy="decompress it",
        )
    return kind
