"""What a source given by the user stands for: files by kind, a saved dataset, or a dataset on the hub."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from gindex.errors import CorpusError

_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz")
# A missing source with one of these endings is a mistyped path, never a dataset: no network is asked for it.
_FILE_ENDINGS = (*_LINES, ".gz", ".parquet", ".txt", ".md", ".csv")
_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+(:[\w.-]+)?")


class Kind(Enum):
    """How a source is read."""

    LINES = "JSON lines"
    PARQUET = "Parquet"
    TEXT = "text"
    SAVED_DATASET = "saved dataset"
    HUB_DATASET = "hub dataset"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One readable piece of the corpus.

    Attributes:
        kind: How it is read.
        location: Its path, or its name on the hub, as messages show it.
        name: What the ids of its documents begin with.
    """

    kind: Kind
    location: str
    name: str


def expand(given: str) -> Iterator[Source]:
    """Yield what `given` stands for, the files of a folder in sorted order.

    Raises:
        CorpusError: Nothing is there, and it does not look like a dataset name.
    """
    path = Path(given)
    if path.is_dir():
        if is_saved_dataset(path):
            yield Source(kind=Kind.SAVED_DATASET, location=given, name=path.resolve().name)
        else:
            yield from (_file(path / relative, relative) for relative in files_below(path))
    elif path.is_file():
        source = _file(path, path.name)
        yield source if source.kind is not Kind.TEXT else Source(kind=Kind.TEXT, location=given, name=path.stem)
    elif not path.exists() and _HUB_NAME.fullmatch(given) and not given.lower().endswith(_FILE_ENDINGS):
        yield Source(kind=Kind.HUB_DATASET, location=given, name=given)
    else:
        found = "something that is neither" if path.exists() else "nothing there"
        raise CorpusError(f"{given}: expected a file, a folder or a hub dataset, found {found}; check the path")


def is_saved_dataset(folder: Path) -> bool:
    """Return whether `folder` was written by `datasets.Dataset.save_to_disk` or by that of a DatasetDict."""
    if (folder / "dataset_dict.json").is_file():
        return True
    return (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()


def files_below(folder: Path) -> list[str]:
    """Return the regular files below `folder` that are not hidden, as sorted POSIX paths relative to it."""
    found: list[str] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found += [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    return sorted(found)


def _file(path: Path, name: str) -> Source:
    return Source(kind=_kind(path), location=str(path), name=name)


def _kind(path: Path) -> Kind:
    name = path.name.lower()
    if name.endswith(_LINES):
        return Kind.LINES
    return Kind.PARQUET if name.endswith(".parquet") else Kind.TEXT
