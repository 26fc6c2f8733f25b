"""A corpus as a stream of documents, whatever its sources are."""

import logging
from collections.abc import Callable, Iterator, Sequence

from gindex.config import CorpusConfig
from gindex.corpus.compression import DAMAGE
from gindex.corpus.files import one_line, read_delimited, read_lines, read_text
from gindex.corpus.hugging_face import read_hub, read_saved
from gindex.corpus.json_files import read_json
from gindex.corpus.parquet import read_parquet
from gindex.corpus.partitions import with_partition
from gindex.corpus.places import Places
from gindex.corpus.records import Document, Record, to_document
from gindex.corpus.sources import Kind, Source, expand
from gindex.errors import CorpusError

logger = logging.getLogger(__name__)

_READERS: dict[Kind, Callable[[Source, CorpusConfig], Iterator[Record]]] = {
    Kind.LINES: read_lines,
    Kind.JSON: read_json,
    Kind.CSV: read_delimited,
    Kind.TSV: read_delimited,
    Kind.PARQUET: read_parquet,
    Kind.TEXT: read_text,
    Kind.SAVED_DATASET: read_saved,
    Kind.HUB_DATASET: read_hub,
}


def read_corpus(sources: Sequence[str], config: CorpusConfig) -> Iterator[Document]:
    """Stream the documents of all sources, in the order given.

    A source is a file, a folder of files, a folder saved by Hugging Face datasets, or a hub dataset
    `owner/name[:split]`. The ending of a file says what it is: .jsonl and .ndjson hold one object per line, .json that,
    an array of objects, or one object; .csv and .tsv name their fields in the first line; .parquet; any other is one
    text. All but .parquet may be compressed, as .gz, .bz2, .xz or .zst. A record's id is its field `config.id_field`,
    else "<file name>:<number of the record, from 1>"; a text file's is its name without the ending, or within a folder
    its path relative to the folder. Folders named `field=value` give their records a field.

    What of a folder is left out, and files without a record, are told as warnings in the log.

    Raises:
        CorpusError: At once if a source is missing; while streaming for anything malformed, a repeated id, or a
            corpus without documents.
        MissingDependencyError: While streaming, if a source needs a package that is not installed.
    """
    return _documents([source for given in sources for source in expand(given, logger.warning)], sources, config)


def _documents(sources: list[Source], given: Sequence[str], config: CorpusConfig) -> Iterator[Document]:
    without: list[str] = []
    with Places() as places:
        for source in sources:
            empty = True
            for found in _records(source, config):
                record = with_partition(found, source.fields, config)
                document = to_document(record, config)
                places.claim(document.document_id, record.place)
                empty = False
                yield document
            if empty:
                without.append(source.location)
    if len(without) == len(sources):
        where = ", ".join(given) or "sources"
        raise CorpusError(
            field=where, expected="at least one document", found="none", remedy="give a source that holds documents"
        )
    for location in without:
        logger.warning("%s: no record in it", location)


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
