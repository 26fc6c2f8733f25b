"""What a model reads in the place of tokens: a picture in its own encoding, or tensors by name.

Both are kept as bytes: a picture's are those of its file, tensors' are those of a safetensors file. Pictures may also
stand beside tokens: see `gindex.corpus.picture_texts`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from gindex.errors import CorpusError, ShapeError

TENSORS = "application/x-safetensors"
"""Media type of tensors by name."""

PICTURE_TEXT = "application/x-gindex-picture-text"
"""Media type of a text with its pictures, which a model reads beside the tokens that its processor makes of both."""

OBJECT = "\N{OBJECT REPLACEMENT CHARACTER}"
"""What stands for a picture in a text: the character that Unicode has for objects within one."""

NUMBERS = "biuf"
"""Kinds of numpy's formats that tensors may have: truth values, whole numbers and floating ones."""

POSITION_VALUES = 768
"""Values of tensors that count as one position: as many as a patch of 16 by 16 pixels has. It decides, beside texts'
tokens, how many documents a batch has."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Content:
    """The content of a document that is no text.

    Attributes:
        type: Media type of a picture, such as `image/png`, or `TENSORS`, or `PICTURE_TEXT`.
        data: Its bytes.
    """

    type: str
    data: bytes

    @property
    def is_picture(self) -> bool:
        """Whether it is a picture."""
        return not self.is_beside and self.type != TENSORS

    @property
    def is_beside(self) -> bool:
        """Whether it is pictures that are read beside tokens, and not in their place."""
        return self.type == PICTURE_TEXT

    @cached_property
    def kind(self) -> str:
        """What contents of one batch have in common: of tensors their names, formats and shapes."""
        if self.type != TENSORS:
            return "picture text" if self.is_beside else "picture"
        length = int.from_bytes(self.data[:8], "little")
        header: dict[str, Any] = json.loads(self.data[8 : 8 + length])
        header.pop("__metadata__", None)
        return " ".join(f"{name}:{header[name]['dtype']}{header[name]['shape']}" for name in sorted(header))

    @property
    def shown(self) -> str:
        """Tensors as people read them: names and shapes."""
        shapes = {name: " x ".join(map(str, array.shape)) or "1" for name, array in self.tensors().items()}
        return ", ".join(f"{name} [{shape}]" for name, shape in sorted(shapes.items()))

    def tensors(self) -> dict[str, Array]:
        """The tensors by name.

        Raises:
            ShapeError: The bytes are not those of tensors.
        """
        try:
            return load(self.data)
        except (SafetensorError, KeyError, ValueError) as error:
            raise ShapeError(field="content", expected="the bytes of tensors", found=error) from error


def tensor_content(tensors: Mapping[str, Array]) -> Content:
    """Tensors by name as they are kept."""
    return Content(TENSORS, save({name: np.ascontiguousarray(array) for name, array in sorted(tensors.items())}))


def positions(values: int) -> int:
    """How many positions a document of so many values counts for."""
    return max(1, round(values / POSITION_VALUES))


def tensor_of(value: object, place: str) -> Array:
    """A field of a record as a tensor: whole numbers as int64, floating ones as float32, arrays as they are.

    Args:
        value: A number, a truth value, a list of them, lists of equal length of such lists, or an array.
        place: What messages call it.

    Raises:
        CorpusError: It is none of these.
    """
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise _no_tensor(place, "lists of several lengths") from error
    if array.dtype.kind not in NUMBERS or not array.size:
        raise _no_tensor(place, "none" if value is None or not array.size else f"values of {array.dtype}")
    if isinstance(value, (np.ndarray, np.generic)):
        return array
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _no_tensor(place: str, found: str) -> CorpusError:
    return CorpusError(
        field=place, expected="numbers, or lists of equal length", found=found, remedy="correct or remove the record"
    )
