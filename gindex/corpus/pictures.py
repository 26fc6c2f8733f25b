"""Pictures of documents and queries: their bytes, checked and decoded.

Pillow decodes them as `datasets` does when a model is trained: turned as their EXIF data say, and converted to the
channels that the model reads. What that would change in silence is refused: several frames, and 16 bits a channel.
"""

import warnings
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from gindex.corpus.contents import Content
from gindex.corpus.packages import require
from gindex.errors import CorpusError

TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "WEBP": "image/webp",
}
"""Media types of pictures by Pillow's name of their format."""

SEVERAL_VIEWS = "MPO"
"""Pillow's name of JPEG files with further views behind the picture, as telephones write them."""

ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp")
"""Endings of the names of pictures."""

CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name of so many channels."""

_WIDE = ("I", "F")
"""What the names of Pillow's modes of more than 8 bits a channel begin with."""

_PNG_DEPTH = 24
"""Place of the byte of a PNG file that has the bits of a channel."""


def picture_content(value: object, place: str) -> Content:
    """A picture as it is kept: in its own encoding, where it has one, else as PNG.

    Args:
        value: The bytes of its file; the file's path; an object with `bytes` or `path`, as `datasets` has it; a picture
            of Pillow; or an array [height, width] or [height, width, channels] of uint8.
        place: What messages call it.

    Raises:
        CorpusError: It is no picture, or one that cannot be taken; see `decoded`.
        MissingDependencyError: Pillow is not installed.
    """
    data = _bytes(value, place)
    picture = _opened(data, place)
    return Content(TYPES.get(picture.format, TYPES["JPEG"]), data)


def decoded(content: Content, place: str, channels: int = 3) -> Any:
    """A picture of Pillow, upright, with as many channels as asked for.

    Raises:
        CorpusError: It is damaged, has several frames, or more than 8 bits a channel.
        MissingDependencyError: Pillow is not installed.
    """
    return require("PIL.ImageOps", place).exif_transpose(_opened(content.data, place)).convert(CHANNELS[channels])


def picture_size(content: Content, place: str) -> tuple[int, int]:
    """Width and height of a picture, in pixels, as it is shown.

    Raises:
        CorpusError: See `decoded`.
    """
    width, height = decoded(content, place, 1).size
    return int(width), int(height)


def picture_name(value: object) -> str | None:
    """Name of the file of a picture, where it has one."""
    path = value.get("path") if isinstance(value, Mapping) else value
    return Path(path).name if isinstance(path, (str, Path)) and str(path) else None


def _bytes(value: object, place: str) -> bytes:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (str, Path)) and value:
        return _file(Path(value), place)
    made = value
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim not in (2, 3) or (value.ndim == 3 and value.shape[2] not in CHANNELS):
            raise CorpusError(
                field=place,
                expected="pixels of uint8, [height, width] or [height, width, 1, 3 or 4 channels]",
                found=f"{value.dtype} of shape {value.shape}",
                remedy="convert it",
            )
        made = require("PIL.Image", place).fromarray(value[:, :, 0] if value.shape[2:] == (1,) else value)
    if not hasattr(made, "save") or not hasattr(made, "getexif"):
        found = "none" if value is None else type(value).__name__
        raise CorpusError(
            field=place,
            expected="a picture: the bytes or the path of its file",
            found=found,
            remedy="add it, or remove the record",
        )
    return _encoded(made, place)


def _file(path: Path, place: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorpusError(
            field=place,
            expected="a file of a picture",
            found=f"{path}: {error.strerror}",
            remedy="check the path, which begins at the folder of the record's file",
        ) from error


def _encoded(picture: Any, place: str) -> bytes:
    file = BytesIO()
    try:
        picture.save(file, "PNG")
    except (OSError, ValueError) as error:
        raise CorpusError(
            field=place, expected="a picture that PNG has room for", found=error, remedy="convert it to RGB"
        ) from error
    return file.getvalue()


def _opened(data: bytes, place: str) -> Any:
    """A picture with its pixels read."""
    library = require("PIL.Image", place)
    remedy = "write the picture again, or remove the record"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", library.DecompressionBombWarning)
            picture = library.open(BytesIO(data), formats=list(TYPES))
            frames = getattr(picture, "n_frames", 1) if picture.format != SEVERAL_VIEWS else 1
            picture.load()
    except Exception as error:  # what damage does to a decoder has no end
        named = f"one that cannot be read ({type(error).__name__}: {error})" if data else "an empty file"
        raise CorpusError(
            field=place, expected=f"a picture ({', '.join(ENDINGS)})", found=named, remedy=remedy
        ) from error
    if frames > 1:
        raise CorpusError(field=place, expected="a picture of one frame", found=f"{frames} frames", remedy=remedy)
    depth = data[_PNG_DEPTH] if picture.format == "PNG" else 8
    if depth > 8 or picture.mode.startswith(_WIDE):
        found = f"{max(depth, 16)} bits (mode {picture.mode})"
        raise CorpusError(field=place, expected="a picture of at most 8 bits a channel", found=found, remedy=remedy)
    return picture
