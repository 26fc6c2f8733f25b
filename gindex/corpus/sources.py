"""The sources of a corpus: files by kind, saved datasets, and datasets on the hub."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from gindex.corpus.compression import ENDINGS, without_ending
from gindex.corpus.folders import list_files
from gindex.corpus.partitions import partition_fields
from gindex.errors import CorpusError


class SourceKind(Enum):
    """The kind of a source, by which its reader is chosen."""

    LINES = "JSON lines"
    JSON = "JSON"
    CSV = "CSV"
    TSV = "TSV"
    PARQUET = "Parquet"
    TEXT = "text"
    SAVED_DATASET = "saved dataset"
    HUB_DATASET = "hub dataset"


_KINDS = {
    ".jsonl": SourceKind.LINES,
    ".ndjson": SourceKind.LINES,
    ".json": SourceKind.JSON,
    ".csv": SourceKind.CSV,
    ".tsv": SourceKind.TSV,
    ".parquet": SourceKind.PARQUET,
}
# A missing source with one of these endings is a mistyped path, never a dataset: the hub is not asked for it.
_FILE_ENDINGS = (*_KINDS, *ENDINGS, ".txt", ".md")
# Archives, and compression that no reader here opens: as text such a file would be one senseless document.
_ARCHIVES = (".tar", ".tgz", ".tbz2", ".txz", ".zip", ".7z", ".rar", ".lz4", ".lzma", ".z")
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One readable piece of the corpus.

    Attributes:
        kind: How it is read.
        location: Its path, or its name on the hub, as messages show it.
        name: What the ids of its documents begin with.
        fields: Fields of all its records that stand in the names of its folders.
    """

    kind: SourceKind
    location: str
    name: str
    fields: Mapping[str, str | None] = field(default_factory=dict)


def expand(given: str, tell: Callable[[str], None] = lambda _line: None) -> list[Source]:
    """Return the sources that the user's argument names; those of a folder are its files, sorted.

    Args:
        given: A file, a folder, or a dataset's name.
        tell: Called with a line for each kind of entry of a folder that is left out.

    Raises:
        CorpusError: Nothing is there, and it does not look like a dataset name; or it cannot be looked at; or a file
            is an archive.
    """
    path = Path(given)
    try:
        if path.is_dir():
            return _folder(path, given, tell)
        if path.is_file():
            return [_alone(path, given)]
        found = "something that is neither" if path.exists() else "nothing there"
        if path.is_symlink() and not path.exists():
            found = "a link that leads nowhere"
        elif not path.exists() and _HUB_NAME.fullmatch(given) and not given.lower().endswith(_FILE_ENDINGS):
            return [Source(kind=SourceKind.HUB_DATASET, location=given, name=given)]
    except OSError as error:
        found = error.strerror or str(error)
    raise CorpusError(field=given, expected="a file, a folder or a hub dataset", found=found, remedy="check the path")


def is_saved_dataset(folder: Path) -> bool:
    """Say whether `folder` was written by `datasets.Dataset.save_to_disk` or by that of a DatasetDict."""
    if (folder / "dataset_dict.json").is_file():
        return True
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


def _folder(path: Path, given: str, tell: Callable[[str], None]) -> list[Source]:
    if is_saved_dataset(path):
        return [Source(kind=SourceKind.SAVED_DATASET, location=given, name=path.resolve().name)]
    listing = list_files(path)
    for line in listing.left_out():
        tell(f"{given}: {line}")
    return [_file(path, name) for name in listing.files]


def _alone(path: Path, given: str) -> Source:
    """Return a file that was given by itself; a text goes by its name without the ending."""
    source = _file(path.parent, path.name)
    if source.kind is not SourceKind.TEXT:
        return source
    return replace(source, location=given, name=Path(without_ending(path.name)).stem)


def _file(folder: Path, name: str) -> Source:
    path = folder / name
    fields = partition_fields(folder.parts, Path(name).parts[:-1], str(path))
    return Source(kind=_kind(path), location=str(path), name=name, fields=fields)


def _kind(path: Path) -> SourceKind:
    plain = without_ending(path.name)
    ending = Path(plain).suffix.lower()
    if ending in _ARCHIVES:
        raise CorpusError(
            field=path,
            expected="a file of documents",
            found="an archive or a form of compression that is not read",
            remedy=f"unpack it, or compress it as {', '.join(ENDINGS)}",
        )
    kind = _KINDS.get(ending, SourceKind.TEXT)
    if kind is SourceKind.PARQUET and plain != path.name:
        raise CorpusError(
            field=path, expected="a Parquet file as it is", found="it compressed once more", remedy="decompress it"
        )
    return kind
