"""Records of Hugging Face datasets, saved in a folder or streamed from the hub."""

from collections.abc import Iterable, Iterator
from typing import Any

from gindex.config import CorpusConfig
from gindex.corpus.files import one_line
from gindex.corpus.packages import require
from gindex.corpus.records import Record
from gindex.corpus.sources import Source
from gindex.errors import CorpusError, MissingDependencyError


def read_saved(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield the records of a folder written by `save_to_disk`; of several splits, those of `train`.

    Raises:
        MissingDependencyError: datasets is not installed.
        CorpusError: The folder cannot be read, or has several splits and none called `train`.
    """
    library = require("datasets", source.location)
    try:
        dataset = library.load_from_disk(source.location)
        if isinstance(dataset, dict):
            dataset = _only_split(dataset, source.location)
        yield from _records(source, dataset.with_format(None))
    except CorpusError:
        raise
    except Exception as error:  # datasets documents no set of errors
        raise CorpusError(
            field=source.location,
            expected="a saved dataset",
            found=f"one that cannot be read ({one_line(error)})",
            remedy="save it again",
        ) from error


def read_hub(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield the records of the hub dataset `owner/name` or `owner/name:split`, by default its split `train`.

    Raises:
        MissingDependencyError: datasets is not installed.
        CorpusError: The hub cannot be reached, or has no such dataset or split.
    """
    name, _, split = source.location.partition(":")
    try:
        library = require("datasets", f"{source.location}: not a file, perhaps a hub dataset")
        yield from _records(source, library.load_dataset(name, split=split or "train", streaming=True))
    except (CorpusError, MissingDependencyError):
        raise
    except Exception as error:  # network, hub and parsing errors alike
        raise CorpusError(
            field=source.location,
            expected="a file, a folder or a hub dataset",
            found=f"neither a file nor a reachable hub dataset ({one_line(error)})",
            remedy="check the path, or the dataset's name and split and the network",
        ) from error


def _only_split(splits: dict[str, Any], location: str) -> Any:
    if "train" in splits:
        return splits["train"]
    if len(splits) == 1:
        return next(iter(splits.values()))
    found = ", ".join(sorted(splits)) or "none"
    raise CorpusError(
        field=location,
        expected="a split 'train' or a single split",
        found=f"the splits {found}",
        remedy=f"give the folder of one split, such as {location}/NAME",
    )


def _records(source: Source, dataset: Iterable[object]) -> Iterator[Record]:
    number = 0
    try:
        for number, fields in enumerate(dataset, 1):
            place = f"{source.location}: record {number}"
            yield Record(fields=fields, place=place, default_id=f"{source.name}:{number}")
    except OverflowError as error:  # Python's dates begin with year 1 and end with 9999
        raise CorpusError(
            field=source.location,
            expected="values within the range of Python's types",
            found=f"one past record {number} that is not ({one_line(error)})",
            remedy="convert its field to text",
        ) from error
