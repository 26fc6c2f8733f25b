"""A corpus as a stream of documents, whatever its sources are."""

import zlib
from collections.abc import Callable, Iterator, Sequence

from gindex.config import CorpusConfig
from gindex.corpus.files import one_line, read_lines, read_parquet, read_text
from gindex.corpus.hugging_face import read_hub, read_saved
from gindex.corpus.places import Places
from gindex.corpus.records import Document, Record, to_document
from gindex.corpus.sources import Kind, Source, expand
from gindex.errors import CorpusError

_READERS: dict[Kind, Callable[[Source, CorpusConfig], Iterator[Record]]] = {
    Kind.LINES: read_lines,
    Kind.PARQUET: read_parquet,
    Kind.TEXT: read_text,
    Kind.SAVED_DATASET: read_saved,
    Kind.HUB_DATASET: read_hub,
}


def read_corpus(sources: Sequence[str], config: CorpusConfig) -> Iterator[Document]:
    """Stream the documents of all sources, in the order given.

    A source is a file (.jsonl, .ndjson, .json with one object per line, .jsonl.gz, .parquet; any other is one text),
    a folder of such files, a folder saved by Hugging Face datasets, or a hub dataset `owner/name[:split]`.
    A record's id is its field `config.id_field`, else "<file name>:<number of the record, from 1>"; a text file's is
    its name without the ending, or within a folder its path relative to the folder.

    Raises:
        CorpusError: At once if a source is missing; while streaming for anything malformed, a repeated id, or a
            corpus without documents.
        MissingDependencyError: While streaming, if a source needs a package that is not installed.
    """
    return _documents([source for given in sources for source in expand(given)], sources, config)


def _documents(sources: list[Source], given: Sequence[str], config: CorpusConfig) -> Iterator[Document]:
    empty = True
    with Places() as places:
        for source in sources:
            for record in _records(source, config):
                document = to_document(record, config)
                places.claim(document.document_id, record.place)
                empty = False
                yield document
    if empty:
        where = ", ".join(given) or "sources"
        raise CorpusError(f"{where}: expected at least one document, found none; give a source that holds documents")


def _records(source: Source, config: CorpusConfig) -> Iterator[Record]:
    try:
        yield from _READERS[source.kind](source, config)
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(
            f"{source.location}: expected a readable file, found {one_line(error)}; check the file and its permissions"
        ) from error
