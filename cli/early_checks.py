"""What commands check before they load the libraries of models, which takes seconds.

Each check is the library's own, which would find the same later.
"""

from collections.abc import Sequence
from pathlib import Path


def check_asked(index: Path, where: str | None = None, document_id: str | None = None) -> None:
    """Check that an index is there, and what is asked of its documents.

    Args:
        index: Its folder.
        where: A filter of the documents.
        document_id: A document.

    Raises:
        NotAnIndexError: There is no finished index.
        FilterError: The filter does not parse, or names a field that no document has.
        UnknownDocumentError: There is no such document, or it is deleted.
        CorruptStoreError: The manifest or the documents are damaged.
    """
    from gindex.documents.selection import check_filter
    from gindex.store.layout import Layout
    from gindex.store.manifest import Manifest
    from gindex.store.snapshot import Snapshot
    from gindex.store.versions import latest_version

    layout = Layout(index.absolute())
    snapshot = Snapshot(layout, Manifest.read(layout, latest_version(layout)))  # vectors may be damaged: not looked at
    check_filter(snapshot.documents, where)
    if document_id is not None:
        snapshot.documents.document(document_id)


def check_sources(corpus: Sequence[str]) -> None:
    """Check that the sources of a corpus on this machine are there; those in stores are looked at later, once.

    Raises:
        CorpusError: One is not.
    """
    from gindex.corpus.remote import is_address
    from gindex.corpus.sources import expand

    for given in corpus:
        if not is_address(given):
            expand(given)
