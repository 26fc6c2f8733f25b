"""Pieces of messages that hold pictures, and what is put in their place: no picture is looked at here."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PIECES = ("image", "image_url")
"""Types of the pieces of a content that are pictures."""

HOLDERS = ("image", "image_url", "url", "path", "bytes")
"""Fields of a piece that may hold its picture."""

ADDRESSES = ("http://", "https://")
"""Beginnings of addresses, which are not fetched."""

CONTENTS = ("content", "value")
"""Fields of a message that may hold its content."""


def held(piece: Mapping[str, Any]) -> Any:
    """The picture that a piece of a content holds; None where it is a place alone."""
    value = next((piece[name] for name in HOLDERS if piece.get(name) is not None), None)
    return held(value) if isinstance(value, Mapping) and "url" in value else value


def with_located_list(value: object, folder: Path) -> Any:
    """One picture or a list of them that, where they are given by relative paths, begin at a folder.

    Addresses and data stay as they are.
    """
    if is_list(value):
        return [with_located_list(each, folder) for each in value]  # type: ignore[attr-defined]
    return value if isinstance(value, str) and value.startswith(("data:", *ADDRESSES)) else located(value, folder)


def with_located_pictures(
    messages: object, folder: Path, locate: Callable[[Any, Path], Any] = with_located_list
) -> Any:
    """A conversation with each picture that a piece holds as `locate` gives it, by default from a folder on."""
    return with_pictures(messages, lambda picture: locate(picture, folder))


def with_pictures(messages: object, change: Callable[[Any], Any]) -> Any:
    """A conversation whose pieces hold what `change` makes of their pictures; anything else as it is."""
    if not is_list(messages):
        return messages
    return [_changed_message(message, change) for message in messages]  # type: ignore[attr-defined]


def _changed_message(message: object, change: Callable[[Any], Any]) -> Any:
    if not isinstance(message, Mapping):
        return message
    lists = {name: content for name in CONTENTS if is_list(content := message.get(name))}
    return {**message} | {name: [_changed_piece(piece, change) for piece in content] for name, content in lists.items()}  # type: ignore[union-attr]


def _changed_piece(piece: object, change: Callable[[Any], Any]) -> Any:
    if not isinstance(piece, Mapping) or not is_picture(piece) or held(piece) is None:
        return piece
    return {"type": "image", "image": change(held(piece))}


def located(value: object, folder: Path) -> object:
    """A picture whose path, if it is given by a relative one, begins at a folder."""
    if isinstance(value, Mapping):
        return {**value, "path": located(value.get("path"), folder)}
    return str(folder / value) if isinstance(value, str) and value else value


def is_list(value: object) -> bool:
    """Whether it is a list of things, and no text, file or array of pixels."""
    if hasattr(value, "dtype"):  # an array of numpy, which is not imported for this
        return bool(value.dtype.kind == "O")
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview))


def is_picture(piece: object) -> bool:
    """Whether a piece of a content holds a picture, or is the place of one."""
    return isinstance(piece, Mapping) and piece.get("type") in PIECES
