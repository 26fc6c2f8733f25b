"""Records of Hugging Face datasets, saved in a folder or streamed from the hub."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gindex.config import PICTURE, CorpusConfig
from gindex.corpus.forms import label_field
from gindex.corpus.labels import NamedClass
from gindex.corpus.packages import require
from gindex.corpus.records import Record
from gindex.corpus.sources import Source
from gindex.corpus.text_files import one_line
from gindex.errors import CorpusError, MissingDependencyError

_SHOWN = 20


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
            remedy = f"give the folder of one split, such as {source.location}/NAME"
            dataset = _split(dataset, "", source.location, remedy)
        yield from _records(source, _prepared(dataset.with_format(None), config), config)
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
    """Yield the records of the hub dataset `owner/name[/configuration][:split]`.

    Without a split they are those of `train`, or of the only one; without a configuration, those of the default one, or
    of the only one.

    Raises:
        MissingDependencyError: datasets is not installed.
        CorpusError: The hub cannot be reached, or has no such dataset, configuration or split.
    """
    named, _, split = source.location.partition(":")
    name, configuration = "/".join(named.split("/")[:2]), "/".join(named.split("/")[2:])
    library = require("datasets", f"{source.location}: not a file, perhaps a hub dataset")
    try:
        splits = _load(library, name, configuration, source.location)
        remedy = f"name a split, as in {named}:SPLIT"
        yield from _records(source, _prepared(_split(splits, split, source.location, remedy), config), config)
    except (CorpusError, MissingDependencyError):
        raise
    except Exception as error:  # network, hub and parsing errors alike
        raise CorpusError(
            field=source.location,
            expected="a file, a folder or a hub dataset",
            found=f"neither a file nor a reachable hub dataset ({one_line(error)})",
            remedy="check the path, or the dataset's name, configuration and split, and the network",
        ) from error


def _load(library: Any, name: str, configuration: str, location: str) -> Mapping[str, Any]:
    """Return the splits of a dataset, none of which is read yet."""
    try:
        splits: Mapping[str, Any] = library.load_dataset(name, configuration or None, streaming=True)
        return splits
    except ValueError as error:  # of an unknown configuration, or of none where there are several, among others
        try:
            known = library.get_dataset_config_names(name)
        except Exception:  # what the first error says is the cause
            raise error from None
        if configuration in known or (not configuration and len(known) == 1):
            raise
        raise CorpusError(
            field=location,
            expected="a configuration of the dataset",
            found=f"{repr(configuration) if configuration else 'none'}, where there are {_listed(known)}",
            remedy=f"name a configuration, as in {name}/CONFIGURATION",
        ) from error


def _split(splits: Mapping[str, Any], wanted: str, location: str, remedy: str) -> Any:
    """Return the split that is wanted; where none is, `train` or the only one."""
    if (wanted or "train") in splits:
        return splits[wanted or "train"]
    if not wanted and len(splits) == 1:
        return next(iter(splits.values()))
    raise CorpusError(
        field=location,
        expected=f"a split {wanted!r}" if wanted else "a split 'train' or a single split",
        found=f"the splits {_listed(splits)}",
        remedy=remedy,
    )


def _listed(names: Iterable[str]) -> str:
    known = sorted(map(str, names))
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return ", ".join(known[:_SHOWN]) + more or "none"


def _prepared(dataset: Any, config: CorpusConfig) -> Any:
    """A dataset whose pictures come as they are stored, where the model reads any."""
    if not config.reads_pictures:
        return dataset
    for name, feature in (dataset.features or {}).items():
        stored = _undecoded(feature)
        if stored is not None:
            dataset = dataset.cast_column(name, stored)
    return dataset


def _undecoded(feature: Any) -> Any:
    """The feature of pictures, or of lists of them, as they are stored; None for any other."""
    if type(feature).__name__ == "Image":
        return type(feature)(decode=False)
    inner = _undecoded(feature.feature) if type(feature).__name__ in ("List", "Sequence") else None
    return None if inner is None else type(feature)(inner)


def _with_class_name(fields: Any, features: Any, config: CorpusConfig) -> Any:
    """A record of a picture whose label goes by its name, where the dataset has names of labels."""
    field = label_field(PICTURE, config)
    names: list[str] = getattr((features or {}).get(field), "names", None) or []
    label = fields.get(field) if config.form == PICTURE else None
    if not isinstance(label, int) or not 0 <= label < len(names):
        return fields
    return {**fields, field: NamedClass.of(names[label], label)}


def _records(source: Source, dataset: Any, config: CorpusConfig) -> Iterator[Record]:
    number, features = 0, getattr(dataset, "features", None)
    try:
        for number, fields in enumerate(dataset, 1):
            place = f"{source.location}: record {number}"
            fields = _with_class_name(fields, features, config)
            yield Record(fields=fields, place=place, default_id=f"{source.name}:{number}")
    except OverflowError as error:  # Python's dates begin with year 1 and end with 9999
        raise CorpusError(
            field=source.location,
            expected="values within the range of Python's types",
            found=f"one past record {number} that is not ({one_line(error)})",
            remedy="convert its field to text",
        ) from error
