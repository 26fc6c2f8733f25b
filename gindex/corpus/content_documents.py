"""Parts of documents that are no text: a picture with its label, or tensors."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from gindex.corpus.contents import Content, positions
from gindex.corpus.encoding import EncodedDocument, weighted
from gindex.corpus.labels import Labels
from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.corpus.pictures import picture_size
from gindex.corpus.records import Document
from gindex.corpus.tokens import Part
from gindex.errors import CorpusError


class ContentEncoder:
    """Makes one part of each document."""

    def __init__(self, read: Callable[[Document, Content], tuple[str, WeightedTokens]]) -> None:
        """Take what makes of a document and its content the text that people read, and what the model is asked."""
        self._read = read

    def encode(self, documents: Sequence[Document]) -> list[EncodedDocument]:
        """Read pictures or tensors.

        Raises:
            CorpusError: A label is none of the model's, or a document is of another form.
        """
        return [weighted(self._encoded(document)) for document in documents]

    def _encoded(self, document: Document) -> EncodedDocument:
        if document.file is None:
            raise CorpusError(
                field=f"document {document.document_id!r}", expected="a picture or tensors", found=document.form
            )
        text, asked = self._read(document, document.file)
        part = Part(part=0, start=0, end=len(text), objective=Objective((asked,)))
        return EncodedDocument(document=replace(document, text=text), parts=[part])


def picture_encoder(labels: Labels, size: int) -> ContentEncoder:
    """What makes parts of pictures with their labels.

    Args:
        labels: The labels of the model.
        size: Positions that a picture counts for.
    """

    def read(document: Document, content: Content) -> tuple[str, WeightedTokens]:
        place = f"document {document.document_id!r}"
        label = labels.read(document.content["label"], f"{place}, label")
        width, height = picture_size(content, place)
        name = document.content.get("file", document.document_id)
        text = f"[{labels.text(label)}] {name} ({width} x {height} pixels)"
        return text, WeightedTokens.of_content(content, size, label)

    return ContentEncoder(read)


def tensor_encoder() -> ContentEncoder:
    """What makes parts of tensors."""
    return ContentEncoder(lambda _document, content: (content.shown, asked_of_tensors(content)))


def asked_of_tensors(content: Content) -> WeightedTokens:
    """Tensors as a task of one's own is asked for their loss."""
    return WeightedTokens.of_content(content, positions(sum(array.size for array in content.tensors().values())))
