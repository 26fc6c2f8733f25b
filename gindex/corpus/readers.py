"""A corpus as a stream of documents, whatever its sources are."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gindex.config import CorpusConfig
from gindex.corpus.arrow_files import read_arrow
from gindex.corpus.compression import DAMAGE
from gindex.corpus.forms import SHARE_GPT_FIELD
from gindex.corpus.hugging_face import read_hub, read_saved
from gindex.corpus.id_register import IdRegister
from gindex.corpus.json_files import read_json
from gindex.corpus.parquet import read_parquet
from gindex.corpus.partitions import with_partition
from gindex.corpus.picture_files import read_picture
from gindex.corpus.picture_pieces import located, with_located_list, with_located_pictures
from gindex.corpus.records import Document, Record, to_document
from gindex.corpus.remote import is_address, shown_address
from gindex.corpus.selection import drawn, first
from gindex.corpus.sources import Source, SourceKind, expand
from gindex.corpus.text_files import one_line, read_delimited, read_lines, read_text
from gindex.errors import CorpusError

logger = logging.getLogger(__name__)

_READERS: dict[SourceKind, Callable[[Source, CorpusConfig], Iterator[Record]]] = {
    SourceKind.LINES: read_lines,
    SourceKind.JSON: read_json,
    SourceKind.CSV: read_delimited,
    SourceKind.TSV: read_delimited,
    SourceKind.PARQUET: read_parquet,
    SourceKind.ARROW: read_arrow,
    SourceKind.TEXT: read_text,
    SourceKind.PICTURE: read_picture,
    SourceKind.SAVED_DATASET: read_saved,
    SourceKind.HUB_DATASET: read_hub,
}


def read_corpus(sources: Sequence[str], config: CorpusConfig, seed: int = 0) -> Iterator[Document]:
    """Stream the documents of all sources, in the order given, or those that `config.limit` or `config.sample` take.

    A source is a file or a folder of files, here or by an address that fsspec reads, as `s3://bucket/folder`; a folder
    saved by Hugging Face datasets; or a hub dataset `owner/name[/configuration][:split]`. The ending of a file says
    what it is: .jsonl and .ndjson hold one object per line; .json the same, an array of objects, or one object; .csv
    and .tsv name their fields in the first line; .parquet; .arrow and .feather; pictures,
    for a model that reads them, have the name of their folder as label; any other file is one text. All but
    .parquet, .arrow and .feather may be compressed, as .gz, .bz2, .xz or .zst. Folders named `field=value` give their
    records a field.

    A record's id is its field `config.id_field`, else "<file name>:<number of the record, from 1>"; a text file's is
    its name without the ending, or within a folder its path relative to the folder.

    Entries of a folder that are left out, files without a record, and how many documents were taken of the corpus,
    are logged as warnings.

    Args:
        sources: The sources.
        config: The names of the fields, and what is taken.
        seed: Decides what `config.sample` takes.

    Raises:
        CorpusError: At once if a source is missing; while streaming for anything malformed, a repeated id, or a
            corpus without documents.
        MissingDependencyError: While streaming, if a source needs a package that is not installed.
    """
    found = [source for given in sources for source in expand(given, logger.warning)]
    given = ", ".join(shown_address(each) if is_address(each) else each for each in sources)
    documents = _documents(found, given, config, logger.warning)
    if config.sample is not None:
        return drawn(documents, _documents(found, given, config, lambda _line: None), config.sample, seed)
    return documents if config.limit is None else first(documents, config.limit)


def _documents(
    sources: list[Source], given: str, config: CorpusConfig, tell: Callable[[str], None]
) -> Iterator[Document]:
    without: list[str] = []
    with IdRegister() as ids:
        for source in sources:
            empty = True
            for own in _records(source, config):
                record = with_partition(own, source.fields, config)
                document = to_document(_with_picture(record, source, config), config)
                ids.claim(document.document_id, record.place)
                empty = False
                yield document
            if empty and not (source.kind is SourceKind.PICTURE and config.images_field is not None):
                without.append(source.location)
    if len(without) == len(sources):
        raise CorpusError(
            field=given or "sources",
            expected="at least one document",
            found="none",
            remedy="give a source that holds documents",
        )
    for location in without:
        tell(f"{location}: no record in it")


def _with_picture(record: Record, source: Source, config: CorpusConfig) -> Record:
    """A record whose picture, if it is given by its path, is looked for from its file on; in a store there is none."""
    fields, name = record.fields, config.image_field
    if not config.reads_pictures or source.remote is not None or not isinstance(fields, Mapping):
        return record
    place = Path(source.location)
    folder = place if source.kind is SourceKind.SAVED_DATASET else place.parent
    if config.images_field is None:
        return replace(record, fields={**fields, name: located(fields[name], folder)} if name in fields else fields)
    beside = {of: with_located_list(fields[of], folder) for of in (name, config.images_field) if of in fields}
    names = (config.messages_field, config.prompt_field, config.completion_field, SHARE_GPT_FIELD)
    said = {of: with_located_pictures(fields[of], folder) for of in names if of in fields}
    return replace(record, fields={**fields, **beside, **said})


def _records(source: Source, config: CorpusConfig) -> Iterator[Record]:
    try:
        yield from _READERS[source.kind](source, config)
    except DAMAGE as error:
        raise CorpusError(
            field=source.location,
            expected="a readable file",
            found=one_line(error),
            remedy="check the file and its permissions",
        ) from error
