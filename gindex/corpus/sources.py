"""What a source given by the user stands for: files by kind, a saved dataset, or a dataset on the hub."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path

from gindex.corpus.compression import ENDINGS, without_ending
from gindex.corpus.folders import list_files
from gindex.corpus.partitions import partition_fields
from gindex.errors import CorpusError


class Kind(Enum):
    """How a source is read."""

    LINES = "JSON lines"
    JSON = "JSON"
    CSV = "CSV"
    TSV = "TSV"
    PARQUET = "Parquet"
    TEXT = "text"
    SAVED_DATASET = "saved dataset"
    HUB_DATASET = "hub dataset"


_KINDS = {
    ".jsonl": Kind.LINES,
    ".ndjson": Kind.LINES,
    ".json": Kind.JSON,
    ".csv": Kind.CSV,
    ".tsv": Kind.TSV,
    ".parquet": Kind.PARQUET,
}
# A missing source with one of these endings is a mistyped path, never a dataset: no network is asked for it.
_FILE_ENDINGS = (*_KINDS, *ENDINGS, ".txt", ".md")
# Files of files, and what no reader here opens: as text some of them would be one senseless document.
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

    kind: Kind
    location: str
    name: str
    fields: Mapping[str, str | None] = field(default_factory=dict)


def expand(given: str, tell: Callable[[str], None] = lambda _line: None) -> list[Source]:
    """Return what `given` stands for, the files of a folder in sorted order.

    Args:
        given: The source.
        tell: Called with a line on everything in a folder that is left out.

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
            return [Source(kind=Kind.HUB_DATASET, location=given, name=given)]
    except OSError as error:
        found = error.strerror or str(error)
    raise CorpusError(field=given, expected="a file, a folder or a hub dataset", found=found, remedy="check the path")


def is_saved_dataset(folder: Path) -> bool:
    """Return whether `folder` was written by `datasets.Dataset.save_to_disk` or by that of a DatasetDict."""
    if (folder / "dataset_dict.json").is_file():
        return True
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


def _folder(path: Path, given: str, tell: Callable[[str], None]) -> list[Source]:
    if is_saved_dataset(path):
        return [Source(kind=Kind.SAVED_DATASET, location=given, name=path.resolve().name)]
    listing = list_files(path)
    for line in listing.left_out():
        tell(f"{given}: {line}")
    return [_file(path, name) for name in listing.files]


def _alone(path: Path, given: str) -> Source:
    """Return a file that was given by itself; a text goes by its name without the ending."""
    source = _file(path.parent, path.name)
    if source.kind is not Kind.TEXT:
        return source
    return replace(source, location=given, name=Path(without_ending(path.name)).stem)


def _file(folder: Path, name: str) -> Source:
    path = folder / name
    fields = partition_fields(folder.parts, Path(name).parts[:-1], str(path))
    return Source(kind=_kind(path), location=str(path), name=name, fields=fields)


def _kind(path: Path) -> Kind:
    plain = without_ending(path.name)
    ending = Path(plain).suffix.lower()
    if ending in _ARCHIVES:
        raise CorpusError(
            field=path,
            expected="a file of documents",
            found="an archive or a form of compression that is not read",
            remedy=f"unpack it, or compress it as {', '.join(ENDINGS)}",
        )
    kind = _KINDS.get(ending, Kind.TEXT)
    if kind is Kind.PARQUET and plain != path.name:
        raise CorpusError(
            field=path, expected="a Parquet file as it is", found="it compressed once more", remedy="decompress it"
        )
    return kind
