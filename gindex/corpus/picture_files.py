"""Records of pictures in folders: each file is one, and the folder that it is in is its label."""

from collections.abc import Iterator
from pathlib import PurePath

from gindex.config import PICTURE, CorpusConfig
from gindex.corpus.forms import label_field
from gindex.corpus.records import Record
from gindex.corpus.sources import Source
from gindex.errors import CorpusError


def read_picture(source: Source, config: CorpusConfig) -> Iterator[Record]:
    """Yield the record of a picture: its bytes, and the name of its folder, where it is in one below the source's.

    A model of texts with pictures reads those that records name: the file by itself is none.

    Raises:
        CorpusError: The model reads no pictures.
    """
    if config.images_field is not None:
        return
    if config.form != PICTURE:
        raise CorpusError(
            field=source.location,
            expected="documents that the model reads",
            found="a picture",
            remedy="give a model that classifies pictures, or leave the file out",
        )
    with source.open() as file:
        fields: dict[str, object] = {config.image_field: {"bytes": file.read(), "path": PurePath(source.name).name}}
    folder = PurePath(source.name).parent.name
    if folder:
        fields[label_field(PICTURE, config)] = folder
    yield Record(fields=fields, place=source.location, default_id=source.name)
